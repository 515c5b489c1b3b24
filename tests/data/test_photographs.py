"""Photographs are read when drawn, from files or shards, and which are drawn never depends on what was read."""

import pytest
import torch
from datasets import Dataset, Features, Image
from torch.utils.data import DataLoader

from bd_diff.data.crops import SharpCrops, seeded
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.photographs import Photographs
from bd_diff.data.procedural import procedural_image

SIDES = (48, 20, 56, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharp")
    for index, side in enumerate(SIDES):
        save_image(to_image(procedural_image(side, seeded(index))), folder / f"{index}.png")
    return folder


def same(left, right):
    return all(torch.equal(*pair) for pair in zip(left, right, strict=True))


def test_nothing_is_read_before_it_is_drawn(folder, tmp_path):
    (tmp_path / "0.png").write_bytes((folder / "0.png").read_bytes())
    (tmp_path / "1.png").write_text("no image")
    photographs = Photographs(tmp_path)
    assert len(photographs) == 2 and photographs[0].shape == (3, 48, 48)
    with pytest.raises(ValueError, match=r"1\.png"):
        photographs[1]


def test_they_are_the_files_in_the_order_of_their_names_without_those_that_are_excluded(folder, tmp_path):
    (tmp_path / "names.txt").write_text("2.png")
    files = [(to_tensor(read_image(folder / f"{index}.png")) * 255).round().byte() for index in range(len(SIDES))]
    assert same(Photographs(folder), files)
    assert same(Photographs(folder, tmp_path / "names.txt"), files[:2] + files[3:])


def test_samples_are_the_same_whatever_is_kept_and_whoever_reads(folder):
    def samples(memory, workers):
        crops = SharpCrops(Photographs(folder, memory=memory), 32, seed=3)
        batches = DataLoader(crops, batch_sampler=[[4, 5], [6, 7]], num_workers=workers)
        return [batch["sharp"] for batch in batches]

    expected = samples(1.0, 0)
    assert same(samples(0.0, 0), expected) and same(samples(1e-5, 2), expected)
    assert same(samples(1.0, 0)[1:], expected[1:])  # as after a resume


def test_no_more_is_kept_than_there_is_room_for(folder):
    photographs = Photographs(folder, memory=3 * 48 * 48 / 2**30)
    assert same([photographs[i] for i in (0, 2, 3, 0)], [Photographs(folder)[i] for i in (0, 2, 3, 0)])
    assert list(photographs.kept) == [0]


def test_small_ones_are_passed_over_and_a_folder_of_small_ones_is_named(folder):
    crops = SharpCrops(Photographs(folder), 48)
    assert all(crops[index]["sharp"].shape == (3, 48, 48) for index in range(12))
    with pytest.raises(ValueError, match="sharp.* has no photograph of at least 57 pixels a side"):
        Photographs(folder).check_sizes(57)
    assert Photographs(folder).check_sizes(56)


def test_shards_that_datasets_saved_are_read_in_place(folder, tmp_path):
    paths = [str(folder / f"{index}.png") for index in range(len(SIDES))]
    table = Dataset.from_dict({"image": paths}, features=Features({"image": Image()}))
    table.save_to_disk(tmp_path / "shards", num_shards=2)
    assert len(list((tmp_path / "shards").glob("*.arrow"))) == 2
    assert same(Photographs(tmp_path / "shards"), Photographs(folder))
    (tmp_path / "names.txt").write_text("1.png\n3.png")
    left = Photographs(tmp_path / "shards", tmp_path / "names.txt")
    assert same(left, [Photographs(folder)[0], Photographs(folder)[2]])
    assert same(Photographs(tmp_path / "shards", only=tmp_path / "names.txt"), [Photographs(folder)[i] for i in (1, 3)])
    (tmp_path / "names.txt").write_text("9.png")
    for place in (folder, tmp_path / "shards"):
        with pytest.raises(ValueError, match="names.txt lists 9.png, which is not in"):
            Photographs(place, tmp_path / "names.txt")
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(ValueError, match="is a data set of text; it needs a column image"):
        Photographs(tmp_path / "texts")


def test_rows_of_one_name_are_all_read_and_a_damaged_one_is_named(folder, tmp_path):
    content = (folder / "0.png").read_bytes()
    images = [{"bytes": content, "path": "0.png"}, {"bytes": content[:200], "path": "0.png"}, {"bytes": content}]
    Dataset.from_dict({"image": images}, features=Features({"image": Image()})).save_to_disk(tmp_path / "shards")
    photographs = Photographs(tmp_path / "shards")
    assert len(photographs) == 3 and torch.equal(photographs[2], Photographs(folder)[0])
    with pytest.raises(ValueError, match=r"shards: row 1 \(0.png\) cannot be read"):
        photographs[1]
    (tmp_path / "names.txt").write_text("0.png")
    assert len(Photographs(tmp_path / "shards", tmp_path / "names.txt")) == 1
    assert len(Photographs(tmp_path / "shards", only=tmp_path / "names.txt")) == 2
