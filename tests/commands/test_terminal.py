"""What the command line tells: help, version, completion, levels, progress, and the summary after a signal."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from bd_diff_toys import ROOT
from PIL import Image

import bd_diff
from bd_diff.baselines.uresnet import UResNet
from bd_diff.data import progress as module
from bd_diff.data.progress import Lines, progress

TORCHLESS = """
import sys
from bd_diff.cli import main
sys.argv = ["bd-diff", *sys.argv[1:]]
try:
    main()
finally:
    assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.fixture
def bd_diff_command(warm_python):
    def run(*arguments, **settings):
        command = [*warm_python, "-m", "bd_diff", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **settings)

    return run


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    UResNet(width=2).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.effect_noise((32, 24), 60).convert("RGB").save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_groups_the_commands_by_who_needs_them(bd_diff_command, asked):
    told = bd_diff_command(asked, env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}).stdout
    places = [told.index(f"─ {panel} ─") for panel in ("Photographs", "Research", "Stable Diffusion")]
    assert places == sorted(places)
    assert places[0] < told.index(" deblur ") < places[1] < told.index(" eval ") < places[2] < told.index(" merge ")


@pytest.mark.parametrize("command", ["deblur", "eval", "merge", "data check"])
def test_every_command_has_short_options_for_help_and_for_how_much_is_told(bd_diff_command, command):
    told = bd_diff_command(*command.split(), "-h").stdout
    assert re.search(r"--quiet +-q", told) and re.search(r"--verbose +-v", told)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--version"], 0, f"bd-diff {bd_diff.__version__}"),
        (["deblur", "-h"], 0, "--out"),
        (["deblur", "gone.jpg", "-o", "out"], 1, "gone.jpg does not exist"),
        (["deblur", "photos", "-o", "out", "--model", "gone"], 1, "gone is not a model folder"),
        (["deblur", "photos", "-o", "out", "--dtype", "float8"], 1, "--dtype is float8"),
        (["deblur", "photos", "-o", "out", "--format", "xyz"], 1, "--format xyz cannot be written"),
        (["deblur", "photos", "-o", "photos"], 1, "is an input, which would be lost"),
        (["deblur", "photos", "-o", "out", "--steps", "0"], 2, "--steps"),
        (["deblur", "photos", "-o", "out", "-q", "-v"], 1, "contradict"),
        (["compare", "gone"], 1, "gone does not exist"),
        (["kernel", "photos/0.png", "-o", "photos/0.png"], 1, "is the input itself"),
        (["eval", "input", "--data", "photos", "--save-images"], 1, "--save-images needs --out"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_needs_no_torch_does_not_import_it(photos, arguments, code, told):
    command = [sys.executable, "-c", TORCHLESS, *arguments]
    done = subprocess.run(command, cwd=photos.parent, capture_output=True, text=True)
    assert done.returncode == code and told in done.stdout + done.stderr, done.stderr
    assert "torch was imported" not in done.stderr


@pytest.mark.parametrize(("shell", "words"), [("bash", "bd-diff de"), ("zsh", "bd-diff de"), ("fish", "bd-diff de")])
def test_shells_complete_commands(bd_diff_command, shell, words):
    asked = {"_BD_DIFF_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": "1"}
    asked |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    told = bd_diff_command(env=os.environ | asked).stdout
    assert "deblur" in told and "demo" in told and "kernel" not in told


def test_a_device_that_is_not_there_is_told_in_a_sentence(bd_diff_command, network, photos, tmp_path):
    for device in ("cuda:17", "toaster"):
        done = bd_diff_command("deblur", photos, "-o", tmp_path / "out", "--model", network, "--device", device)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and f"--device {device} cannot be used here" in line


def test_quiet_tells_errors_only_and_verbose_every_photograph(bd_diff_command, network, photos, tmp_path):
    (photos / "3.png").write_text("no photograph")
    given = ("deblur", photos, "--model", network, "--device", "cpu", "-o")
    quiet = bd_diff_command(*given, tmp_path / "quiet", "-q")
    assert quiet.returncode == 1 and not quiet.stdout
    assert [line.split(":")[0] for line in quiet.stderr.splitlines()] == ["error"]
    verbose = bd_diff_command(*given, tmp_path / "verbose", "-v")
    assert "INFO bd_diff.restore: loading" in verbose.stderr and "on cpu" in verbose.stderr.replace(
        " to cpu", " on cpu"
    )
    assert all(f"{number}.png: written" in verbose.stderr for number in range(3))


def test_in_bfloat16_the_command_line_deblurs(bd_diff_command, tiny_pipeline_folder, photos, tmp_path):
    done = bd_diff_command(
        "deblur", photos / "0.png", "-o", tmp_path / "out.png", "--model", tiny_pipeline_folder, "--dtype", "bfloat16"
    )
    assert done.returncode == 0 and (tmp_path / "out.png").exists(), done.stderr


def test_off_a_terminal_a_line_every_half_minute_tells_how_far_it_is(monkeypatch):
    clock, told = [0.0], io.StringIO()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", told)
    shown = progress(range(100), unit="image")
    assert isinstance(shown, Lines)
    for _ in shown:
        clock[0] += 12.0
    lines = told.getvalue().splitlines()
    assert len(lines) == 33  # of 20 minutes, 36 seconds apart where each takes 12
    assert lines[0] == "3 of 100 images, 0.0833 images/s, 19:24 left"


def test_what_an_earlier_run_did_counts_but_was_not_fast(monkeypatch):
    clock, told = [0.0], io.StringIO()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", told)
    with progress(total=100, unit="step", done=40) as shown:
        for _ in range(60):
            clock[0] += 10.0
            shown.update()
    assert told.getvalue().splitlines()[0] == "43 of 100 steps, 0.1 steps/s, 09:30 left"


def test_a_training_off_a_terminal_writes_no_bar(warm_python, tmp_path):
    train = [*warm_python, ROOT / "train/joint.py", "--config", ROOT / "configs/bd_diff_tiny/smoke.yaml"]
    done = subprocess.run([*train, f"run.folder={tmp_path}", "run.steps=2"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "step 2: " in done.stdout and "\r" not in done.stderr and "it/s" not in done.stderr


@pytest.mark.parametrize("command", [("adapt", "--target", ".", "--out", "{}"), ("exits", ".", "photo.png")])
def test_a_device_that_is_not_there_is_a_sentence_before_anything_is_done(bd_diff_command, command, tmp_path):
    done = bd_diff_command(*(part.format(tmp_path / "out") for part in command), "--device", "cuda:99")
    assert done.returncode == 1 and "--device cuda:99 cannot be used here" in done.stderr
    assert not list((tmp_path / "out").glob("*")) and "Traceback" not in done.stderr


def test_a_run_that_is_terminated_sums_up_and_resume_goes_on(bd_diff_command, warm_python, network, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(40):
        Image.effect_noise((600, 400), 60).convert("RGB").save(photos / f"{number}.png")
    out = tmp_path / "out"
    given = ["deblur", str(photos), "-o", str(out), "--model", str(network)]
    process = subprocess.Popen(
        [*warm_python, "-m", "bd_diff", *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(out.glob("*.png")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    done = len(list(out.glob("*.png")))
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    assert 0 < done < 40
    assert f"{done} deblurred" in printed and f"stopped, {40 - done} are left" in printed
    again = bd_diff_command(*given, "--resume")
    assert again.returncode == 0 and f"{40 - done} deblurred" in again.stdout


@pytest.mark.parametrize("command", "deblur transfer kernel sample domain eval probe bench demo".split())
def test_every_command_that_loads_a_model_takes_device_and_dtype(bd_diff_command, command):
    told = bd_diff_command(command, "-h", env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}).stdout
    assert "--device" in told and "--dtype" in told


@pytest.mark.parametrize(
    "command", "deblur transfer kernel sample adapt domain eval probe bench synth export init merge".split()
)
def test_every_command_that_writes_takes_a_short_option_for_where(bd_diff_command, command):
    told = bd_diff_command(command, "-h", env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}).stdout
    assert re.search(r"--out +-o", told)
