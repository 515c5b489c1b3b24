"""Every layout is recognised, and every wrong folder is told what is wrong with it."""

import pytest
import torch
from PIL import Image

from bd_diff.blur.kernels import blur, gaussian
from bd_diff.data.check import check, shift
from bd_diff.data.folders import Folder, HubData, Sample, open_data, read_row
from bd_diff.data.images import save_image, to_image
from bd_diff.data.layouts import LAYOUTS, recognise
from bd_diff.data.procedural import procedural_image

SHARP = procedural_image(48, torch.Generator().manual_seed(0), "leaves")
REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene050"
RSBLUR = "RSBlur/0001/000001"

# Layout: (the files of its blurry images, those of their sharp twins, other images, text files, split)
EXAMPLES = {
    "gopro": (
        ["test/GOPR1/blur/1.png", "test/GOPR2/blur/1.png"],
        ["test/GOPR1/sharp/1.png", "test/GOPR2/sharp/1.png"],
        [],
        {},
        "test",
    ),
    "gopro-gamma": (["train/GOPR1/blur_gamma/1.png"], ["train/GOPR1/sharp/1.png"], [], {}, "train"),
    "hide": (
        ["test/test-close-ups/1.png", "test/test-long-shot/2.png"],
        ["GT/1.png", "GT/2.png"],
        ["GT/3.png"],
        {},
        "test",
    ),
    "realblur": (
        [f"{REALBLUR}/blur/blur_1.png"],
        [f"{REALBLUR}/gt/gt_1.png"],
        [f"{REALBLUR}/gt/gt_2.png"],
        {"RealBlur_J_test_list.txt": f"{REALBLUR}/gt/gt_1.png {REALBLUR}/blur/blur_1.png\n"},
        "test",
    ),
    "rsblur": (
        [f"{RSBLUR}/real_blur/real_blur.png"],
        [f"{RSBLUR}/gt/gt_sharp.png"],
        [],
        {"RSBlur_real_test.txt": f"{RSBLUR}/gt/gt_sharp.png {RSBLUR}/real_blur/real_blur.png"},
        "test",
    ),
    "reds": (["val/val_blur/000/00000000.png"], ["val/val_sharp/000/00000000.png"], [], {}, "val"),
    "blur2blur": (["trainC/1.png"], ["trainD/1.png"], ["trainA/9.png", "trainB/8.png"], {}, "train"),
    "extreme": (
        ["blurred_levels/blur_19/1.png", "blurred_levels/blur_29/1.png"],
        ["sharp/1.png", "sharp/1.png"],
        [],
        {},
        "test",
    ),
    "paired": (["val/input/1.png", "val/input/2.jpg"], ["val/target/1.png", "val/target/2.png"], [], {}, "val"),
    "unpaired": ([], [], ["unpaired/1.png", "sharp/2.png"], {}, "test"),
    "plain": ([], [], ["1.png", "2.jpg"], {}, "test"),
}


def write(root, files, image=SHARP):
    for file in files:
        save_image(to_image(image), root / file)


def build(root, layout):
    blurry, sharp, others, texts, split = EXAMPLES[layout]
    write(root, [*blurry, *sharp, *others])
    for name, text in texts.items():
        (root / name).write_text(text)
    return split


def test_there_is_an_example_of_each_layout():
    assert set(EXAMPLES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", EXAMPLES)
def test_each_layout_is_recognised_and_its_pairs_are_pairs(layout, tmp_path):
    split = build(tmp_path, layout)
    name, items = recognise(tmp_path, split)
    pairs = [(item.blurry, item.sharp) for item in items if item.blurry and item.sharp]
    assert name == layout
    assert pairs == [(tmp_path / b, tmp_path / s) for b, s in zip(*EXAMPLES[layout][:2], strict=True)]
    assert len({item.name for item in items}) == len(items)


@pytest.mark.parametrize("blurry, sharp", [("lq", "gt"), ("LQ", "HQ"), ("Blur", "Sharp"), ("Blurry", "GT")])
def test_folders_of_pairs_are_recognised_in_capitals_or_not(blurry, sharp, tmp_path):
    write(tmp_path, [f"{blurry}/1.png", f"{sharp}/1.png"])
    name, (item,) = recognise(tmp_path)
    assert name == "paired"
    assert (item.blurry, item.sharp) == (tmp_path / blurry / "1.png", tmp_path / sharp / "1.png")


def test_groups_are_what_results_are_reported_by(tmp_path):
    groups = {
        layout: {item.group for item in recognise(tmp_path / layout, build(tmp_path / layout, layout))[1]}
        for layout in ("hide", "extreme", "blur2blur")
    }
    assert groups == {
        "hide": {"test-close-ups", "test-long-shot"},
        "extreme": {"blur_19", "blur_29"},
        "blur2blur": {"known", "target"},
    }


def test_a_folder_is_a_table_and_reads_samples(tmp_path):
    folder = Folder(tmp_path, build(tmp_path, "paired"))
    assert folder.kind == "paired" and len(folder) == 2
    assert folder.table.column_names == ["name", "group", "blurry", "sharp"]
    assert folder.table[1]["blurry"] == str(tmp_path / "val/input/2.jpg")
    assert torch.allclose(folder[0].sharp, SHARP, atol=1e-6) and folder[0].name == "1"


def test_blur_and_sharp_folders_at_the_root_are_pairs_for_any_split(tmp_path):
    write(tmp_path, ["blur/1.png", "sharp/1.png"])
    assert Folder(tmp_path, "train").layout == "paired" and len(Folder(tmp_path, "test")) == 1


def test_kitti_is_sharp_beside_blurred(tmp_path):
    write(tmp_path, ["blurred/1.png", "sharp/1.png"])
    assert Folder(tmp_path).layout == "paired"


def test_a_wrong_folder_is_told_each_layout_and_what_it_lacks(tmp_path):
    write(tmp_path, ["photos/1.png"])
    with pytest.raises(ValueError, match=r"no layout known here; tried .*gopro \(no test/\).*hide \(no GT/\).*plain"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no layout 'div2k'; the layouts are realblur"):
        recognise(tmp_path, layout="div2k")
    with pytest.raises(ValueError, match=r"tried gopro \(no train/\)"):
        recognise(tmp_path, "train", layout="gopro")


def test_images_without_twins_are_counted_and_the_first_is_named(tmp_path):
    write(tmp_path, ["blur/1.png", "blur/2.png", "sharp/1.png", "sharp/3.png"])
    with pytest.raises(ValueError, match=r"1 of 2 images in .*blur have no twin .*the first is 2.png"):
        recognise(tmp_path)


def test_a_list_that_names_absent_files_says_so(tmp_path):
    build(tmp_path, "realblur")
    (tmp_path / REALBLUR / "gt/gt_1.png").unlink()
    with pytest.raises(ValueError, match="RealBlur_J_test_list.txt names 1 files that are not there; .*gt_1.png"):
        recognise(tmp_path)
    (tmp_path / "RealBlur_J_test_list.txt").write_text("one.png two.png")
    with pytest.raises(ValueError, match="line 1: expected a path through gt/"):
        recognise(tmp_path)


def test_unreadable_files_and_pairs_of_different_sizes_are_named(tmp_path):
    write(tmp_path, ["blur/1.png", "sharp/1.png", "blur/2.png"])
    write(tmp_path, ["sharp/2.png"], SHARP[:, :40])
    (tmp_path / "blur/1.png").write_text("not an image")
    folder = Folder(tmp_path)
    with pytest.raises(ValueError, match="1.png"):
        folder[0]
    with pytest.raises(ValueError, match="2: the blurry image is 48x48, the sharp one 48x40"):
        folder[1]


@pytest.mark.parametrize(
    "name, mode", [("16.png", "I;16"), ("cmyk.jpg", "CMYK"), ("palette.png", "P"), ("alpha.png", "RGBA")]
)
def test_unusual_modes_are_read_as_colour_in_range(name, mode, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new(mode, (12, 10), 40000 if mode == "I;16" else 0).save(tmp_path / "images" / name)
    sample = Folder(tmp_path / "images")[0]
    assert sample.sharp.shape == (3, 10, 12) and 0 <= sample.sharp.min() and sample.sharp.max() <= 1
    if mode == "I;16":
        assert torch.allclose(sample.sharp, torch.tensor(40000 / 65535), atol=1e-4)


def test_a_rotated_photograph_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to be upright
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert Folder(tmp_path)[0].sharp.shape == (3, 30, 20)


def test_check_finds_each_problem_and_only_those(tmp_path):
    good = blur(SHARP[None], gaussian(torch.tensor([1.5]), 9))[0]
    write(tmp_path, [f"sharp/{i}.png" for i in range(5)])
    write(tmp_path, ["blur/0.png"], good)
    write(tmp_path, ["blur/1.png"], good.roll((6, -5), (1, 2)))
    write(tmp_path, ["blur/2.png"], SHARP)
    write(tmp_path, ["blur/3.png"], good[:, :30])
    (tmp_path / "blur/4.png").write_bytes(b"\x89PNG broken")
    findings = check(Folder(tmp_path))
    words = [
        "1: the blurry image is shifted by -5 pixels to the right and 6 down",
        "2: the blurry image is the sharp one",
        "3: the blurry image is 48x30",
        "4.png",
    ]
    assert len(findings.problems) == 4
    assert all(word in problem for word, problem in zip(words, findings.problems, strict=True))
    assert findings.images == 5 and findings.sizes == {"48x48": 3}
    assert findings.lines()[0] == "layout    paired" and findings.lines()[-1] == "problems  4"


def test_shift_is_found_under_blur_and_noise():
    noisy = blur(SHARP[None], gaussian(torch.tensor([2.0]), 13))[0].roll((-4, 7), (1, 2))
    noisy = noisy + 0.01 * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(1))
    assert shift(noisy, SHARP) == (-4, 7) and shift(SHARP, SHARP) == (0, 0)


def test_a_row_of_the_hub_finds_its_columns_by_name():
    picture = to_image(SHARP)
    sample = read_row("test/0", {"blur": picture, "gt": picture, "scene": 3})
    assert isinstance(sample, Sample) and torch.allclose(sample.sharp, SHARP, atol=1e-6)
    with pytest.raises(ValueError, match="test/0 has blur, depth; its sharp image must be called sharp or target"):
        read_row("test/0", {"blur": picture, "depth": picture})


def test_a_name_that_is_neither_folder_nor_data_set_is_one_sentence(monkeypatch):
    import datasets

    def no_network(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(
        ValueError, match="someone/blur, split test, is neither a folder here nor a data set of the hub: no r"
    ):
        open_data("someone/blur")


def test_a_streamed_data_set_is_read_in_order(monkeypatch):
    import datasets

    rows = [{"input": to_image(SHARP * scale), "target": to_image(SHARP)} for scale in (0.5, 0.25)]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split, streaming: rows)
    data = open_data("someone/blur", "val")
    assert isinstance(data, HubData)
    samples = [read() for _, read in data.readers()]
    assert [sample.name for sample in samples] == ["val/0", "val/1"] and samples[0].blurry.mean() > samples[
        1
    ].blurry.mean()
