"""What a user types, what appears on the disk and on the terminal; every mistake is one line and exit code 1."""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bd_diff.baselines.uresnet import UResNet
from bd_diff.cli import main
from bd_diff.data.claims import LOCK
from bd_diff.restore import call_settings, load
from bd_diff.serving.folder_run import MANIFEST


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The folder of a small network that changes every image: any system does for deblur."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = UResNet(width=2)
    torch.nn.init.normal_(model.conv2d_9.weight, std=0.05)  # untrained, it would leave images as they are
    model.save_pretrained(folder)
    return str(folder)


CPU = {"CUDA_VISIBLE_DEVICES": ""}


def save_noise(path, seed):
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder with two photographs."""
    save_noise(tmp_path / "photos/a.png", 0)
    save_noise(tmp_path / "photos/b.jpg", 1)
    return tmp_path / "photos"


@pytest.fixture
def bd_diff(monkeypatch, capfd):
    """Run the command line: `code, printed, errors = bd_diff("deblur", ...)`."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bd-diff", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        printed, errors = capfd.readouterr()
        assert "Traceback" not in errors
        return code, printed, errors

    return run


def names(folder):
    """Files in a folder and below, without the manifest and the lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, LOCK))
    return sorted(str(path.relative_to(folder)) for path in found)


def in_one_line(errors, *words):
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    for word in words:
        assert str(word) in lines[0]


def test_help_costs_less_than_two_seconds_and_comes_without_torch():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-m", "bd_diff.cli", "--help"], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor seconds, not the clock's: a busy machine must not fail the test.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert shown.returncode == 0
    for command in ("deblur", "transfer", "kernel", "sample"):
        assert command in shown.stdout
    loaded = "import sys, bd_diff.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout.strip() == "False"


# deblur


def test_one_photograph_to_a_file(bd_diff, network, photos, tmp_path):
    out = tmp_path / "sharp.png"
    assert bd_diff("deblur", photos / "a.png", "--out", out, "--model", network)[0] == 0
    result = Image.open(out)
    assert result.size == (32, 24)
    assert not np.array_equal(result, Image.open(photos / "a.png"))


def test_one_photograph_to_a_folder(bd_diff, network, photos, tmp_path):
    assert bd_diff("deblur", photos / "a.png", "--out", tmp_path / "out", "--model", network)[0] == 0
    assert names(tmp_path / "out") == ["a.png"]


def test_a_folder_a_glob_and_a_file_together(bd_diff, network, photos, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "c.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "d1.webp")
    code, printed, _ = bd_diff(
        "deblur", photos, tmp_path / "c.png", tmp_path / "d*.webp", "--out", tmp_path / "out", "--model", network
    )
    assert code == 0 and "4 deblurred" in printed
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "c.png", "d1.webp"]


def test_subfolders_are_kept_when_asked_for(bd_diff, network, photos, tmp_path):
    (photos / "deep").mkdir()
    Image.new("RGB", (16, 16)).save(photos / "deep" / "a.png")
    assert bd_diff("deblur", photos, "--recursive", "--out", tmp_path / "out", "--model", network)[0] == 0
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "deep/a.png"]


def test_what_exists_is_skipped_unless_overwrite(bd_diff, network, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("kept")
    code, printed, _ = bd_diff("deblur", photos, "--out", out, "--model", network)
    assert code == 0 and "1 already there" in printed and "1 deblurred" in printed
    assert (out / "a.png").read_text() == "kept"
    assert bd_diff("deblur", photos, "--out", out, "--model", network, "--overwrite")[0] == 0
    assert Image.open(out / "a.png").size == (32, 24)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_input_is_never_overwritten(bd_diff, network, photos, overwrite):
    before = (photos / "a.png").read_bytes()
    code, _, errors = bd_diff("deblur", photos, "--out", photos, "--model", network, *overwrite)
    assert code == 1
    in_one_line(errors, photos / "a.png", "--out")
    assert (photos / "a.png").read_bytes() == before
    os.symlink(photos, photos.parent / "alias")
    code, _, _ = bd_diff("deblur", photos / "a.png", "--out", photos.parent / "alias", "--model", network, *overwrite)
    assert code == 1 and (photos / "a.png").read_bytes() == before


def test_two_inputs_of_one_name_are_refused_before_any_work(bd_diff, network, photos, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    code, _, errors = bd_diff(
        "deblur", photos / "a.png", tmp_path / "a.png", "--out", tmp_path / "out", "--model", network
    )
    assert code == 1
    in_one_line(errors, photos / "a.png", tmp_path / "a.png")
    assert not (tmp_path / "out").exists()


def test_bad_files_among_many_are_named_and_the_others_done(bd_diff, network, photos, tmp_path):
    (photos / "notes.png").write_text("text")
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:700])
    code, printed, errors = bd_diff(
        "deblur", photos, tmp_path / "gone.png", "--out", tmp_path / "out", "--model", network
    )
    assert code == 1
    assert "2 deblurred" in printed and "3 failed" in printed
    lines = [line for line in errors.splitlines() if "error: " in line]
    assert len(lines) == 3
    for name in (photos / "notes.png", photos / "cut.jpg", tmp_path / "gone.png"):
        assert any(str(name) in line for line in lines)
    assert names(tmp_path / "out") == ["a.png", "b.jpg"]


def test_a_grey_photograph_stays_grey_and_a_still_gif_becomes_png(bd_diff, network, tmp_path):
    Image.effect_noise((20, 20), 50).save(tmp_path / "grey.png")
    Image.effect_noise((20, 20), 50).save(tmp_path / "old.gif")
    code, _, errors = bd_diff(
        "deblur", tmp_path / "grey.png", tmp_path / "old.gif", "--out", tmp_path / "out", "--model", network
    )
    assert code == 0, errors
    assert Image.open(tmp_path / "out" / "grey.png").mode == "L"
    assert names(tmp_path / "out") == ["grey.png", "old.png"]


def test_names_formats_and_quality_are_as_asked_for(bd_diff, network, photos, tmp_path):
    sizes = []
    for quality in (20, 90):
        asked = ["--suffix", "-sharp", "--format", "webp", "--quality", quality, "--overwrite"]
        assert bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", network, *asked)[0] == 0
        assert names(tmp_path / "out") == ["a-sharp.webp", "b-sharp.webp"]
        sizes.append((tmp_path / "out/a-sharp.webp").stat().st_size)
    assert Image.open(tmp_path / "out/a-sharp.webp").format == "WEBP" and sizes[0] < sizes[1]
    code, _, errors = bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", network, "--format", "doc")
    assert code == 1
    in_one_line(errors, "--format doc")


def test_results_beside_their_photographs_are_not_deblurred_again(bd_diff, network, photos):
    given = ["deblur", photos, "--out", photos, "--model", network, "--suffix", "-sharp"]
    assert "2 deblurred" in bd_diff(*given)[1]
    code, printed, _ = bd_diff(*given)
    assert code == 0 and "2 already there" in printed
    assert names(photos) == ["a-sharp.png", "a.png", "b-sharp.jpg", "b.jpg"]


def test_files_of_too_many_pixels_are_refused_with_the_option_that_raises_the_limit(
    bd_diff, network, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards
    given = ["deblur", photos / "a.png", "--out", tmp_path / "out", "--model", network, "--limit-pixels"]
    code, _, errors = bd_diff(*given, 24 * 32 - 2)
    assert code == 1
    in_one_line(errors, photos / "a.png", "--limit-pixels")
    assert bd_diff(*given, 24 * 32)[0] == 0


def test_the_summary_for_scripts_is_one_json_object_and_a_resumed_run_leaves_failures_out(
    bd_diff, network, photos, tmp_path
):
    (photos / "notes.png").write_text("text")
    given = ["deblur", photos, "--out", tmp_path / "out", "--model", network, "--json"]
    code, printed, _ = bd_diff(*given)
    summary = json.loads(printed)
    assert code == 1 and summary["done"] == 2 and list(summary["failed"]) == [str(photos / "notes.png")]
    code, printed, _ = bd_diff(*given, "--resume")
    assert code == 0 and json.loads(printed) | {"seconds": 0} == {
        "done": 0,
        "skipped": 3,
        "left": 0,
        "failed": {},
        "unchanged": 0,
        "doubtful": 0,
        "wide": 0,
        "differs": 0,
        "seconds": 0,
        "images_per_second": 0.0,
    }
    assert json.loads(bd_diff(*given)[1])["failed"]  # without --resume it is tried again


def test_what_stays_as_it_is_is_not_counted_as_deblurred(bd_diff, tiny_pipeline_folder, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(levels).save(tmp_path / "sharp.png")
    out = tmp_path / "out"
    given = ["deblur", tmp_path / "sharp.png", "--out", out, "--model", tiny_pipeline_folder]
    code, printed, _ = bd_diff(*given)
    assert code == 0 and printed == f"0 deblurred, 1 left as it was (no blur found), in {out}\n"
    assert np.array_equal(Image.open(out / "sharp.png"), levels)
    assert json.loads((out / MANIFEST).read_text())["blur"] == "no blur found"
    summary = json.loads(bd_diff(*given, "--overwrite", "--json")[1])
    assert [summary[name] for name in ("done", "unchanged", "doubtful", "wide", "differs")] == [1, 1, 0, 0, 0]


def test_two_processes_share_the_photographs(network, tmp_path):
    for index in range(5):
        save_noise(tmp_path / "photos" / f"{index}.png", index)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    command += ["-m", "bd_diff.cli", "deblur", tmp_path / "photos", "--out", tmp_path / "out", "--model", network]
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, env=os.environ | CPU)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["done"] == 5
    assert names(tmp_path / "out") == [f"{index}.png" for index in range(5)]
    (tmp_path / "out" / "2.png").unlink()  # a later run does what is missing, whoever's share it is
    again = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, env=os.environ | CPU)
    assert json.loads(again.stdout.splitlines()[-1]).items() >= {"done": 1, "skipped": 4}.items()
    lines = [json.loads(line)["target"] for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert sorted(lines[:5]) == [str(tmp_path / "out" / f"{index}.png") for index in range(5)]


def test_a_folder_without_images_is_named(bd_diff, network, tmp_path):
    code, _, errors = bd_diff("deblur", tmp_path, "--out", tmp_path / "out", "--model", network)
    assert code == 1
    in_one_line(errors, tmp_path, "holds no images")


def test_a_glob_that_matches_nothing_is_named(bd_diff, network, tmp_path):
    code, _, errors = bd_diff("deblur", tmp_path / "*.jpg", "--out", tmp_path / "out", "--model", network)
    assert code == 1
    in_one_line(errors, tmp_path / "*.jpg", "matches no images")


def test_an_output_folder_without_permission_is_named_before_the_model_loads(bd_diff, photos, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.geteuid() == 0:
        locked = "/proc"  # where even root may not write
    code, _, errors = bd_diff("deblur", photos, "--out", f"{locked}/out", "--model", tmp_path / "none")
    assert code == 1
    in_one_line(errors, locked)


def test_a_model_that_is_not_there_is_named(bd_diff, photos, tmp_path):
    code, _, errors = bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", tmp_path / "none")
    assert code == 1
    in_one_line(errors, tmp_path / "none", "model folder")


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--strength", "2"], ["--sharpness", "3"]])
def test_a_wrong_option_is_explained(bd_diff, network, photos, tmp_path, wrong):
    code, _, errors = bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", network, *wrong)
    assert code == 2
    assert wrong[0] in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option, value", [("--tile", 100), ("--kernel-windows", 20)])
def test_a_wrong_setting_ends_the_run_before_the_first_photograph(
    bd_diff, network, tiny_pipeline_folder, photos, tmp_path, option, value
):
    (photos / "c.png").write_text("no image")
    setting = option.strip("-").replace("-", "_")
    for model, reason in ((network, "only BD-Diff has"), (tiny_pipeline_folder, f"{setting} is {value}")):
        code, _, errors = bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", model, option, value)
        assert code == 1
        in_one_line(errors, reason)
        assert not (tmp_path / "out" / MANIFEST).exists()


# BD-Diff


def test_the_same_seed_gives_the_same_file(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    for name in ("one", "two"):
        out = tmp_path / f"{name}.png"
        code, _, errors = bd_diff(
            "deblur", photos / "a.png", "--out", out, "--model", tiny_pipeline_folder, "--seed", 3, "--steps", 2
        )
        assert code == 0, errors
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_more_steps_than_help_are_refused_before_the_first_photograph(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_pipeline_folder, model)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"most_steps": 1}))
    code, _, errors = bd_diff("deblur", photos, "--out", tmp_path / "out", "--model", model, "--steps", 2)
    assert code == 1 and not (tmp_path / "out/a.png").exists()
    in_one_line(errors, "2 steps: this model's results get worse with more than 1")


def test_another_seed_gives_another_image(tiny_pipeline_folder):
    restorer = load(tiny_pipeline_folder, device="cpu")
    images = torch.full((1, 3, 16, 16), 0.5)
    results = [restorer(images, **call_settings(restorer, seed, num_inference_steps=2)) for seed in (3, 3, 4)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_strength_zero_gives_the_photograph_back(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    model = ("--model", tiny_pipeline_folder)
    for strength in (0, 1):
        out = tmp_path / f"{strength}.png"
        assert bd_diff("deblur", photos / "a.png", "--out", out, *model, "--strength", strength)[0] == 0
    difference = np.abs(np.asarray(Image.open(tmp_path / "0.png"), int) - np.asarray(Image.open(photos / "a.png"), int))
    assert difference.max() <= 1
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_colours_are_fixed_as_asked_for(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    given = ("deblur", photos / "a.png", "--model", tiny_pipeline_folder, "--out")
    assert bd_diff(*given, tmp_path / "plain.png")[0] == 0
    assert bd_diff(*given, tmp_path / "fixed.png", "--colour-fix", "adain")[0] == 0
    means = [np.asarray(Image.open(path)).mean((0, 1)) for path in (photos / "a.png", tmp_path / "fixed.png")]
    assert np.abs(means[0] - means[1]).max() < 2  # clipping leaves a little
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "fixed.png").read_bytes()
    assert bd_diff(*given, tmp_path / "same.png", "--colour-fix", "adain", "--colour-strength", 0)[0] == 0
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    for wrong in (["--colour-fix", "sepia"], ["--colour-strength", 1]):
        code, _, errors = bd_diff(*given, tmp_path / "wrong.png", *wrong)
        assert code == 1
        in_one_line(errors, wrong[0])


def test_an_image_in_a_folder_is_deblurred_as_it_is_alone(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    model = ("--model", tiny_pipeline_folder)
    assert bd_diff("deblur", photos, "--out", tmp_path / "all", *model)[0] == 0
    assert bd_diff("deblur", photos / "b.jpg", "--out", tmp_path / "alone", *model)[0] == 0
    assert (tmp_path / "all" / "b.jpg").read_bytes() == (tmp_path / "alone" / "b.jpg").read_bytes()


def test_transfer_writes_the_structure_at_its_size(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    out = tmp_path / "moved.png"
    Image.effect_noise((40, 48), 50).save(tmp_path / "blur.png")
    command = ("transfer", photos / "a.png", tmp_path / "blur.png", "--out", out, "--model", tiny_pipeline_folder)
    code, _, errors = bd_diff(*command)
    assert code == 0, errors
    assert Image.open(out).size == (32, 24)
    code, _, errors = bd_diff(*command)
    assert code == 1
    in_one_line(errors, out, "--overwrite")


def test_kernel_draws_what_the_model_sees(bd_diff, tiny_pipeline_folder, photos, tmp_path):
    out = tmp_path / "kernel.png"
    code, printed, errors = bd_diff("kernel", photos / "a.png", "--out", out, "--model", tiny_pipeline_folder)
    assert code == 0, errors
    assert "degrees" in printed
    assert np.asarray(Image.open(out)).max() == 255


@pytest.mark.parametrize("command", ["transfer", "kernel"])
def test_the_output_is_never_an_input(bd_diff, photos, command):
    inputs = [photos / "a.png", photos / "b.jpg"][: 2 if command == "transfer" else 1]
    code, _, errors = bd_diff(command, *inputs, "--out", inputs[-1], "--overwrite")
    assert code == 1
    in_one_line(errors, inputs[-1], "is the input itself")


@pytest.mark.parametrize("command", ["transfer", "kernel"])
def test_only_bd_diff_sees_kernels(bd_diff, network, photos, tmp_path, command):
    inputs = [photos / "a.png", photos / "b.jpg"][: 2 if command == "transfer" else 1]
    code, _, errors = bd_diff(command, *inputs, "--out", tmp_path / "out.png", "--model", network)
    assert code == 1
    in_one_line(errors, "UResNet", "only BD-Diff")


def test_a_folder_of_every_kind_of_file_gives_a_result_or_one_sentence_for_each(
    bd_diff, tiny_pipeline_folder, tmp_path
):
    folder = tmp_path / "kinds"
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize((32, 24), Image.BICUBIC)  # what is sharp would stay as it is
    turned = Image.Exif()
    turned[0x0112] = 6
    good = {"deep.png": "I;16", "press.jpg": "RGB", "flag.png": "RGB", "clear.png": "RGBA", "turned.jpg": "RGB"}
    Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80).save(folder / "deep.png")
    scene.convert("CMYK").save(folder / "press.jpg")
    scene.convert("P").save(folder / "flag.png")
    scene.convert("RGBA").save(folder / "clear.png")
    scene.save(folder / "turned.jpg", exif=turned)
    bad = {
        "cut.jpg": "truncated",
        "notes.png": "known format",
        "dot.png": "1x1 pixels; both sides must be at least 8",
        "strip.png": "3x2000 pixels; both sides must be at least 8",
        "moving.gif": "2 frames",
        "empty.png": "empty",
    }
    scene.resize((200, 200)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:3000])
    (folder / "notes.png").write_text("not a photograph")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (2000, 3)).save(folder / "strip.png")
    scene.save(folder / "moving.gif", save_all=True, append_images=[scene.rotate(90)])
    (folder / "empty.png").touch()

    code, printed, errors = bd_diff("deblur", folder, "--out", tmp_path / "out", "--model", tiny_pipeline_folder)
    assert code == 1 and "6 failed" in printed
    assert "4 deblurred, 1 left as it was" in printed  # the flag is dithered, so it is sharp
    lines = [line for line in errors.splitlines() if "error: " in line]
    assert len(lines) == len(bad)
    for name, reason in bad.items():
        assert any(str(folder / name) in line and reason in line for line in lines)
    assert names(tmp_path / "out") == sorted(good)
    for name, mode in good.items():
        result = Image.open(tmp_path / "out" / name)
        assert result.mode == mode and result.size == ((24, 32) if name == "turned.jpg" else (32, 24))


def test_kernel_windows_reach_the_model_that_is_scored(bd_diff, tiny_pipeline_folder, tmp_path):
    for side in ("blurry", "sharp"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        save_noise(tmp_path / "pairs" / side / "a.png", 0)
    code, _, errors = bd_diff("eval", tiny_pipeline_folder, "--data", tmp_path / "pairs", "--kernel-windows", "64")
    assert code == 1 and "kernel_windows is 64" in errors
