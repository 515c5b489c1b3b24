"""The project's own table: its cases, and what is measured on them."""

import hashlib
import math
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from PIL import Image

from bd_diff.baselines.uresnet import UResNet
from bd_diff.blur.kernels import blur
from bd_diff.data.folders import Folder, open_data
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.kernel_files import read_kernel
from bd_diff.data.procedural import procedural_image
from bd_diff.data.synthetic import write_domain
from bd_diff.evaluation import evaluate, metrics
from bd_diff.evaluation.card_tables import read_card
from bd_diff.evaluation.methods import Method, model_name, open_method
from bd_diff.evaluation.protocols import find_protocol


@pytest.fixture(scope="module")
def photographs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, shape, generator=generator).byte() for shape in [(3, 90, 100), (3, 60, 130)]]


def test_each_image_meets_each_family_and_the_sharp_one_is_untouched(photographs):
    cases = evaluate.family_pairs(photographs, seed=3, size=64)
    assert [case.family for case in cases] == [f for f in ("gaussian", "line", "shake", "sharp") for _ in range(2)]
    assert [tuple(case.sharp.shape) for case in cases[:2]] == [(3, 64, 64), (3, 60, 64)]
    assert torch.equal(cases[6].blurry, cases[6].sharp)
    assert torch.equal(cases[6].sharp, photographs[0][:, 13:77, 18:82] / 255)


def test_cases_are_their_kernels_applied_with_noise_at_eight_bit(photographs):
    sharp, blurry, kernel = evaluate.family_pairs(photographs, size=64)[4][1:]
    inside = slice(16, -16)
    error = (blurry[None] - blur(sharp[None], kernel[None]))[..., inside, inside]
    assert error.std() == pytest.approx(1 / 255, rel=0.2)
    assert torch.equal((blurry * 255).round() / 255, blurry)
    assert metrics.psnr(blurry[None], sharp[None]) < 30


def test_the_border_is_blurred_from_the_real_surroundings(photographs):
    image = photographs[0].clone()
    image[:, :, 82] = 255  # the first column right of the crop
    plain, changed = (evaluate.family_pairs([i], size=64)[0].blurry for i in (photographs[0], image))
    assert (plain - changed).abs()[..., -1].mean() > 0.02 and torch.equal(plain[..., :40], changed[..., :40])


def test_cases_follow_the_seed_and_not_the_number_of_images(photographs):
    both, first = evaluate.family_pairs(photographs, 7, 64), evaluate.family_pairs(photographs[:1], 7, 64)
    assert all(torch.equal(both[2 * i].blurry, first[i].blurry) for i in range(4))
    other = evaluate.family_pairs(photographs[:1], 8, 64)
    assert not torch.equal(first[1].kernel, other[1].kernel)
    assert not torch.equal(first[2].kernel, both[5].kernel)


@pytest.fixture(scope="module")
def sharp_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        image = procedural_image(72, torch.Generator().manual_seed(number), "leaves")
        save_image(to_image(image), folder / f"{number}.png")
    return folder


@pytest.fixture
def pairs(sharp_folder, tmp_path):
    write_domain(sorted(sharp_folder.iterdir()), tmp_path / "pairs", "source")
    return tmp_path / "pairs"


def rows_of(name, cases, **settings):
    return evaluate.evaluate(open_method(name), cases, find_protocol("rgb"), **settings)


def test_family_cases_are_family_pairs_of_the_folder(sharp_folder):
    cases = list(evaluate.family_cases(sharp_folder, seed=2, size=64))
    pairs = evaluate.family_pairs([to_tensor(read_image(path)) for path in sorted(sharp_folder.iterdir())], 2, 64)
    assert [name for name, _ in cases][:4] == ["gaussian/0", "gaussian/1", "gaussian/2", "line/0"]
    for (_, read), pair in zip(cases, pairs, strict=True):
        sample = read()
        assert torch.equal(sample.blurry, pair.blurry) and torch.equal(sample.kernel, pair.kernel)


def in_shards(columns, folder):
    table = {name: [str(path) for path in paths] for name, paths in columns.items()}
    kinds = Features({name: datasets.Image() for name in columns})
    Dataset.from_dict(table, features=kinds).save_to_disk(folder, num_shards=2)
    return folder


def test_photographs_and_pairs_in_shards_are_scored_as_those_in_folders(sharp_folder, pairs, tmp_path):
    shards = in_shards({"image": sorted(sharp_folder.iterdir())}, tmp_path / "sharp")
    for (name, read), (same, expected) in zip(
        evaluate.family_cases(shards, size=64), evaluate.family_cases(sharp_folder, size=64), strict=True
    ):
        assert name == same and torch.equal(read().blurry, expected().blurry)
    items = Folder(pairs).items
    sides = {side: [getattr(item, side) for item in items] for side in ("blurry", "sharp")}
    shards = open_data(in_shards(sides, tmp_path / "shards"))
    left, right = (rows_of("input", evaluate.paired_cases(data))[0] for data in (shards, Folder(pairs)))
    assert [row["digest"] for row in left] == [row["digest"] for row in right]


def test_shards_that_cannot_be_scored_are_one_sentence(sharp_folder, tmp_path):
    shards = in_shards({"image": sorted(sharp_folder.iterdir())}, tmp_path / "sharp")
    with pytest.raises(ValueError, match="sharp has image; its sharp image must be called sharp or"):
        open_data(shards)
    next(shards.glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(ValueError, match="sharp cannot be read as shards of a data set"):
        evaluate.family_cases(shards)


def test_a_list_chooses_the_photographs_and_must_be_right(sharp_folder, tmp_path):
    names = tmp_path / "val.txt"
    names.write_text("2.png\n0.png\n")
    assert [name for name, _ in evaluate.family_cases(sharp_folder, names)][:3] == [
        "gaussian/2",
        "gaussian/0",
        "line/2",
    ]
    names.write_text("7.png")
    with pytest.raises(ValueError, match="val.txt lists 7.png, which is not in"):
        evaluate.family_cases(sharp_folder, names)


def test_the_input_gains_nothing_and_known_kernels_gain(sharp_folder):
    cases = list(evaluate.family_cases(sharp_folder, limit=2))
    results = {name: evaluate.summarize(rows_of(name, cases)[0]) for name in ("input", "wiener", "richardson-lucy")}
    assert all(group["gain"] == 0 for group in results["input"].values())
    for name in ("wiener", "richardson-lucy"):
        gains = {family: results[name][family]["gain"] for family in ("gaussian", "line", "shake")}
        assert min(gains.values()) > 1, (name, gains)
    assert results["richardson-lucy"]["sharp"]["psnr"] == 100


def test_rows_are_the_protocols_figures_and_means_are_exact(pairs):
    rows, bad = rows_of("input", evaluate.paired_cases(Folder(pairs)))
    sample = Folder(pairs)[1]
    assert not bad and [row["name"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["psnr"] == pytest.approx(float(metrics.psnr(sample.blurry[None], sample.sharp[None])), abs=1e-5)
    assert rows[1]["gmsd"] == pytest.approx(float(metrics.gmsd(sample.blurry[None], sample.sharp[None])), abs=1e-5)
    result = evaluate.summarize(rows)
    assert list(result) == ["all"] and result["all"]["psnr"] == math.fsum(row["psnr"] for row in rows) / 3


def test_all_leaves_out_inputs_that_were_sharp_already():
    rows = [
        {"name": n, "group": g, "psnr_input": p, "psnr": p, "gain": 0.0}
        for n, g, p in [("a", "line", 20.0), ("b", "sharp", metrics.IDENTICAL), ("c", "shake", 30.0)]
    ]
    assert evaluate.summarize(rows)["all"]["psnr"] == 25


def test_a_folder_of_results_is_found_by_name_and_a_missing_one_is_named(pairs, tmp_path):
    same = evaluate.evaluate(
        open_method(str(pairs / "sharp")), evaluate.paired_cases(Folder(pairs)), find_protocol("rgb")
    )
    assert all(row["psnr"] == metrics.IDENTICAL for row in same[0])
    (tmp_path / "few").mkdir()
    save_image(to_image(torch.zeros(3, 72, 72)), tmp_path / "few/0.png")
    with pytest.raises(ValueError, match="few has no result for 1; it would be called 1.png"):
        rows_of(str(tmp_path / "few"), evaluate.paired_cases(Folder(pairs)))


def test_a_model_folder_is_an_entry_with_the_hash_of_its_weights(pairs, tmp_path):
    network = UResNet()
    for parameter in network.parameters():  # it starts as the identity, which would gain nothing
        torch.nn.init.normal_(parameter, std=0.02)
    network.save_pretrained(tmp_path / "model")
    method = open_method(str(tmp_path / "model"))
    rows, _ = evaluate.evaluate(method, evaluate.paired_cases(Folder(pairs)), find_protocol("rgb"))
    assert len(rows) == 3 and rows[0]["gain"] != 0
    weights = (tmp_path / "model" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert method.weights == hashlib.sha256(weights).hexdigest()


def test_a_kernel_file_serves_where_the_data_knows_none(pairs, tmp_path):
    with pytest.raises(ValueError, match="the kernel of 0 is not known; give one with --kernel"):
        rows_of("wiener", evaluate.paired_cases(Folder(pairs)))
    Image.new("L", (4, 1), 255).save(tmp_path / "kernel.png")
    kernel = read_kernel(tmp_path / "kernel.png")
    assert kernel.shape == (5, 5) and kernel[2].tolist() == [0.25] * 4 + [0]
    method = open_method("wiener", tmp_path / "kernel.png")
    assert len(evaluate.evaluate(method, evaluate.paired_cases(Folder(pairs)), find_protocol("rgb"))[0]) == 3
    Image.new("L", (5, 5)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="black.png is all zero"):
        read_kernel(tmp_path / "black.png")


def test_the_true_kernel_is_given_to_a_model_that_takes_one(sharp_folder, tiny_pipeline_folder, tmp_path):
    cases = list(evaluate.family_cases(sharp_folder, size=64, limit=1))[:1]
    sample = cases[0][1]()
    oracle = open_method(str(tiny_pipeline_folder), use_true_kernel=True)
    np.save(tmp_path / "kernel.npy", sample.kernel.numpy())
    given = open_method(str(tiny_pipeline_folder), tmp_path / "kernel.npy")
    assert torch.allclose(oracle.restore(sample), given.restore(sample), atol=1e-6)
    assert (oracle.settings["kernel"], len(given.settings["kernel"])) == ("true", 64)
    assert not torch.equal(oracle.restore(sample), open_method(str(tiny_pipeline_folder)).restore(sample))
    with pytest.raises(ValueError, match="takes no kernel"):
        open_method("input", use_true_kernel=True)


def test_settings_and_kernels_that_an_entry_cannot_use_are_refused(tmp_path):
    with pytest.raises(ValueError, match="input has no setting num_inference_steps; only models have"):
        open_method("input", num_inference_steps=3)
    with pytest.raises(ValueError, match="input takes no kernel"):
        open_method("input", tmp_path / "kernel.png")
    with pytest.raises(ValueError, match="is not a model folder"):
        open_method(str(tmp_path / "nowhere"))


def test_an_unreadable_image_stops_or_is_named_and_passed_over(pairs):
    (pairs / "blurry/1.png").write_text("broken")
    with pytest.raises(ValueError, match="1.png"):
        rows_of("input", evaluate.paired_cases(Folder(pairs)))
    rows, bad = rows_of("input", evaluate.paired_cases(Folder(pairs)), skip_bad=True)
    assert [row["name"] for row in rows] == ["0", "2"] and len(bad) == 1 and "1.png" in bad[0]


def test_a_result_with_nan_or_of_another_size_is_refused(pairs):
    for result in (torch.full((3, 72, 72), torch.nan), torch.zeros(3, 70, 72)):
        broken = Method("broken", lambda sample, result=result: result)
        with pytest.raises(ValueError, match="the result of broken for 0 is of shape"):
            evaluate.evaluate(broken, evaluate.paired_cases(Folder(pairs)), find_protocol("rgb"))


def test_plain_photographs_are_no_pairs(sharp_folder):
    with pytest.raises(ValueError, match="holds no pairs .layout plain, split test.*blur-families"):
        evaluate.paired_cases(Folder(sharp_folder))


def test_two_processes_give_the_numbers_of_one(pairs, tmp_path):
    arguments = ["eval", "input", "--data", str(pairs), "--out", str(tmp_path / "two")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "bd_diff.cli", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.count("| all |") == 1  # one process speaks for both
    rows, _ = rows_of("input", evaluate.paired_cases(Folder(pairs)))
    two, one = read_card(tmp_path / "two")["results"]["all"], evaluate.summarize(rows)["all"]
    assert {key: two[key] for key in one if key != "seconds"} == {key: one[key] for key in one if key != "seconds"}


def test_every_protocol_of_the_families_has_a_camera_and_each_takes_another_photograph():
    image = procedural_image(96, torch.Generator().manual_seed(0), "edges")
    image[:, 40:60, 40:60] = 1.0  # a lamp
    taken = {}
    for name, camera in evaluate.TABLE_CAMERAS.items():
        assert find_protocol(name)
        taken[name] = evaluate.family_pair("line", image, 5, 64, camera)
    plain = taken["blur-families"]
    assert all(
        torch.equal(pair.sharp, plain.sharp) and torch.equal(pair.kernel, plain.kernel) for pair in taken.values()
    )
    errors = {name: float((pair.blurry - plain.blurry).abs().mean()) for name, pair in taken.items()}
    assert errors.pop("blur-families") == 0 and min(errors.values()) > 0.5 / 255
    assert taken["blur-families-highlights"].blurry.mean() > taken["blur-families-light"].blurry.mean() + 0.01


def test_a_model_is_called_as_its_run_or_its_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs/mine/pipeline").mkdir(parents=True)
    assert model_name(str(tmp_path / "runs/mine/pipeline")) == model_name(str(tmp_path / "runs/mine")) == "mine"
    monkeypatch.chdir(tmp_path / "runs/mine/pipeline")
    assert model_name(".") == "mine"
    assert model_name("somebody/model") == "somebody/model"
