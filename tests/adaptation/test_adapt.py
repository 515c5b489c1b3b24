"""Adapting to a folder: one command that ends, keeps the best, goes on where it was, and says what came of it."""

import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bd_diff_toys import ROOT
from safetensors.torch import load_file

from bd_diff.adaptation.adapt import PATIENCE, Criterion, adapt, adaptation_config, advice, moving
from bd_diff.adaptation.blur_mix import ROUNDS
from bd_diff.adaptation.candidates import LENS
from bd_diff.adaptation.judge import Compared, Judgement
from bd_diff.adaptation.lens import FEWEST, MOST, Lens
from bd_diff.adaptation.material import (
    HELD_OUT,
    PROCEDURAL,
    SHORT,
    WHOLE,
    effort_of,
    photographs_of,
    seen_photographs,
    sharp_photographs,
)
from bd_diff.blur.kernels import blur, line
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.lens import as_lens
from bd_diff.training.checkpoints import newest_checkpoint
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig
from bd_diff.training.pipelines import load_pipeline

SHARP = ROOT / "assets/sharp"


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    for index in range(4):
        image = procedural_image(136, torch.Generator().manual_seed(index))[None]
        save_image(to_image(blur(image, line(torch.tensor([9.0]), torch.tensor([0.3])))[0]), folder / f"{index}.png")
    return folder


@pytest.fixture
def command(warm_python, target, tiny_pipeline_folder, tmp_path):
    arguments = ["adapt", "--target", target, "--model", tiny_pipeline_folder, "--out", tmp_path / "out", "--steps", 6]
    return [*warm_python, "-m", "bd_diff", *map(str, arguments)]


def test_a_killed_adaptation_goes_on_and_ends_with_a_model_and_a_report(command, tiny_pipeline_folder, tmp_path):
    running = subprocess.Popen(command, cwd=tmp_path)
    history = tmp_path / "out/history.json"
    while running.poll() is None and not (history.exists() and len(json.loads(history.read_text())) > 1):
        time.sleep(0.05)  # until the check after the first step
    running.send_signal(signal.SIGINT)
    assert running.wait() == 1 and newest_checkpoint(tmp_path / "out")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["steps"] == 6 or report["stopped_early"]
    assert all(sentence in done.stdout for sentence in report["advice"]) and (tmp_path / "out/samples.png").exists()
    before = load_file(tiny_pipeline_folder / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "out/pipeline/unet/diffusion_pytorch_model.safetensors")
    changed = any(not torch.equal(before[name], after[name]) for name in before)
    assert changed == (report["judged"]["kept"] == "whole")
    assert report["verdict"].startswith("Kept" if report["judged"]["kept"] else "rejected")
    held_out = (tmp_path / "out/held_out.txt").read_text().split()
    assert 1 <= len(held_out) < 4
    sharp = set((tmp_path / "out/held_out_sharp.txt").read_text().split())
    assert sharp and sharp < {path.name for path in SHARP.iterdir()}


def test_where_hardly_anything_moved_the_trained_model_does_not_search_for_shakes(
    target, tiny_pipeline_folder, tmp_path
):
    assert moving({"disc": 0.7, "line": 0.3}) and moving({"shake": 1.0})
    found = {"families": {"disc": 0.85, "line": 0.15}, "variation": 0.8, "curve": "srgb"}
    (tmp_path / "blur.json").write_text(json.dumps(found))
    report = adapt(adaptation_config(target, tiny_pipeline_folder, SHARP, tmp_path, steps=1))
    last, kept = (json.loads((tmp_path / part / "model_index.json").read_text()) for part in ("last", "pipeline"))
    assert not last["search"] and not report["moved"]
    assert kept["search"] == (report["judged"]["kept"] not in ("reader", "whole"))


def test_a_finished_adaptation_gives_its_report_again_at_once(target, tmp_path):
    (tmp_path / "report.json").write_text('{"steps": 3}')
    config = adaptation_config(target, tmp_path / "nowhere", SHARP, tmp_path)
    assert adapt(config) == adapt(config) == {"steps": 3}
    with pytest.raises(ValueError, match="was begun with --steps 400, now it is 800; give another folder"):
        adapt(replace(config, run=replace(config.run, steps=800)))
    with pytest.raises(ValueError, match="was begun with --target"):
        adapt(replace(config, data=replace(config.data, target=str(SHARP))))


def test_few_sharp_photographs_are_filled_up_with_procedural_images(tmp_path):
    (tmp_path / "kept.txt").write_text("gb82_dog.webp\n")
    config = adaptation_config(tmp_path, tmp_path, SHARP, tmp_path)
    config = replace(config, data=replace(config.data, exclude=str(tmp_path / "kept.txt")))
    trained_on, held_out = sharp_photographs(config), sharp_photographs(config, held_out=True)
    assert (len(trained_on), len(held_out)) == (PROCEDURAL, HELD_OUT)
    photographs = [sum(image.dtype == torch.uint8 for image in images) for images in (trained_on, held_out)]
    assert photographs == [len(list(SHARP.glob("*.webp"))) - 1, 1]
    seen = {image.float().mean().item() for image in trained_on}
    assert len(seen) == PROCEDURAL and not seen & {image.float().mean().item() for image in held_out}


def test_it_ends_when_the_criterion_stays_and_not_before():
    criterion = Criterion.__new__(Criterion)
    criterion.history, criterion.earliest = {0: 3.0, 1: 2.0, 2: 1.0}, 4
    assert not criterion.enough()
    criterion.history |= {2 + check: 1.5 for check in range(1, PATIENCE)}
    assert not criterion.enough()
    criterion.history |= {2 + PATIENCE: 1.0}
    assert criterion.enough()
    criterion.earliest = 50
    assert not criterion.enough()


def test_the_defaults_are_those_of_the_configuration_file():
    told = load_config(JointConfig, ["--config", str(ROOT / "configs/bd_diff_tiny/adapt.yaml")])
    ours = adaptation_config(Path("t"), Path(told.start_from), Path(told.data.sharp), Path(told.run.folder))
    run = replace(ours.run, validate_every=told.run.validate_every)
    assert replace(ours, run=run, data=told.data) == told


def test_advice_follows_the_figures():
    gaps = {"noise": 1.0, "size": 0.2}
    report = {
        "best_step": 40,
        "verdict": "Kept: 8 held-out photographs are explained better by 5.0%, 100% of them.",
        "judged": {"kept": "reader"},
        "criterion": {"before": 4.0, "after": 4.0},
        "kernel_size": {"before": 4.0, "after": 1.0},
        "gap": {"before": 0.5, "after": 0.5},
        "gaps": {"before": gaps, "after": gaps},
        "moved": True,
    }
    said = " ".join(advice(report))
    assert "Kept: 8" in said and "restores as before" in said and "less than half the blur" in said
    assert "did not shrink; most of it is in noise" in said and "denoise first" in said
    better = {
        "criterion": {"before": 4.0, "after": 3.0},
        "gap": {"before": 0.5, "after": 0.2},
        "kernel_size": {"before": 4.0, "after": 3.9},
    }
    assert "does not search for shakes" in " ".join(advice(report | {"moved": False}))
    assert advice(report | better)[-1] == "The domain gap shrank."
    rejected = {"judged": {"kept": None}, "verdict": "rejected: nothing was better"}
    assert advice(report | better | rejected) == [
        "rejected: nothing was better",
        "The last model of the training is in the folder 'last', to be judged by eye.",
    ]


def test_too_few_photographs_are_refused(tmp_path):
    image = procedural_image(136, torch.Generator().manual_seed(0))
    save_image(to_image(image), tmp_path / "target/one.png")
    with pytest.raises(ValueError, match="has 1 photographs of 128 pixels a side; adapting needs two"):
        adapt(adaptation_config(tmp_path / "target", tmp_path, SHARP, tmp_path / "out"))


def test_a_few_steps_are_a_rehearsal_that_spends_little_beside_them_and_says_so(target, tiny_pipeline_folder, tmp_path):
    rehearsal, short, half, whole = (
        effort_of(adaptation_config(target, tmp_path, SHARP, tmp_path, steps))
        for steps in (SHORT - 1, SHORT, WHOLE // 2, WHOLE)
    )
    assert [one.rounds for one in (short, half, whole)] == [ROUNDS // 4, ROUNDS // 2, ROUNDS]
    assert rehearsal.rounds * 7 < short.rounds and short.held_out == whole.held_out == HELD_OUT
    assert (rehearsal.seen, short.seen) == (FEWEST, MOST)  # a lens is looked for in a rehearsal, too
    config = adaptation_config(target, Path(tiny_pipeline_folder), SHARP, tmp_path / "out", steps=2)
    report = adapt(replace(config, run=replace(config.run, batch_size=1, cpu=True)))
    assert report["rehearsal"] and report["steps"] == 2
    assert "a rehearsal" in advice(report)[0] and report["verdict"] in advice(report)


def test_as_many_photographs_as_wanted_are_looked_at_evenly_chosen(target, tmp_path):
    config, paths = adaptation_config(target, tmp_path, SHARP, tmp_path), sorted(target.iterdir())
    found = photographs_of(paths, config, 3)
    assert len(found) == 3 and torch.equal(found[0], photographs_of(paths[:1], config, 3)[0])
    assert not photographs_of([], config, 3)
    (tmp_path / "held_out.txt").write_text("0.png\n")
    assert len(seen_photographs(config)) == 3


def test_a_lens_that_held_out_photographs_confirm_is_kept_without_training(target, tiny_pipeline_folder, tmp_path):
    import bd_diff.adaptation.adapt as adapting

    kernel = line(torch.tensor([9.0]), torch.tensor([0.3]))
    kept = Judgement(LENS, {LENS: Compared(better=0.1, error=0.01, wins=1.0, changed=2.0, photographs=2)}, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "FEWEST", 2)
        patch.setattr(adapting, "lens_of", lambda begun, seen, sharp: Lens(kernel, 0.0, len(seen)))
        patch.setattr(adapting, "judge", lambda *given, by_kernel: kept)
        config = adaptation_config(target, Path(tiny_pipeline_folder), SHARP, tmp_path / "out")
        report = adapt(replace(config, run=replace(config.run, cpu=True)))
    assert (report["steps"], report["rehearsal"]) == (0, False)
    assert report["judged"]["kept"] == LENS and "one lens" in " ".join(report["advice"])
    assert not (tmp_path / "out/last").exists() and (tmp_path / "out/samples.png").exists()
    assert load_pipeline(str(tmp_path / "out/pipeline")).config.lens == as_lens(kernel)
    assert adapt(config)["verdict"] == report["verdict"]


def test_where_the_photographs_reject_the_result_is_the_model_one_began_with(target, tiny_pipeline_folder, tmp_path):
    import bd_diff.adaptation.judge as judging

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "score", lambda photograph, result, kernel: 0.0)  # nobody is better
        config = adaptation_config(target, Path(tiny_pipeline_folder), SHARP, tmp_path / "out", steps=2)
        report = adapt(replace(config, run=replace(config.run, batch_size=1, cpu=True)))
    assert report["judged"]["kept"] is None and report["verdict"].startswith("rejected: ")
    for before in Path(tiny_pipeline_folder).rglob("*.safetensors"):
        after = tmp_path / "out/pipeline" / before.relative_to(tiny_pipeline_folder)
        assert before.name.startswith("blur_statistics") or before.read_bytes() == after.read_bytes()
