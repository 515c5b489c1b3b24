"""A folder of photographs is done completely, in any batches, however often the run is killed."""

import multiprocessing
import os
import random
import signal
import struct
import time

import numpy as np
import pytest
import torch
from bd_diff_toys.damage import room_for
from PIL import Image

from bd_diff.data.failures import out_of_memory
from bd_diff.data.images import read_image, save_image, to_tensor
from bd_diff.serving import folder_run
from bd_diff.serving.folder_run import Job, Manifest, remove_parts, run_jobs

COUNT = 200


def make_jobs(folder, count, sizes=((16, 12),)):
    """Smooth pictures: what is sharp would stay as it is."""
    (folder / "in").mkdir()
    jobs = []
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        pixels = np.random.default_rng(index).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.BICUBIC).save(folder / "in" / f"{index}.png")
        jobs.append(Job(folder / "in" / f"{index}.png", folder / "out" / f"{index}.png"))
    return jobs


def invert(images):
    return 1 - images


def slowly(images):
    time.sleep(0.01)  # so that ten kills come before the end
    return invert(images)


def inverted(job):
    return np.array_equal(255 - np.asarray(Image.open(job.source)), np.asarray(Image.open(job.target)))


def test_a_run_that_is_killed_ten_times_leaves_every_result_once_and_none_half_written(tmp_path):
    jobs, manifest = make_jobs(tmp_path, COUNT), Manifest(tmp_path / "out")
    fork = multiprocessing.get_context("fork")
    chance = random.Random(0)
    interrupted = 0
    for _ in range(10):
        rest = [job for job in jobs if not job.target.exists()]
        running = fork.Process(target=run_jobs, args=(rest, slowly, manifest), kwargs={"silent": True})
        running.start()
        running.join(chance.uniform(0.02, 0.1))
        os.kill(running.pid, signal.SIGKILL)
        running.join()
        interrupted += running.exitcode == -signal.SIGKILL
        assert all(inverted(job) for job in jobs if job.target.exists())
    assert interrupted and any(not job.target.exists() for job in jobs)
    summary = run_jobs([job for job in jobs if not job.target.exists()], invert, manifest, silent=True)
    assert summary.done and not summary.failed and all(inverted(job) for job in jobs)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {job.target.name for job in jobs}
    remove_parts(jobs)
    assert not list((tmp_path / "out").glob(".*.part"))
    told = [line for line in manifest.path.read_text().splitlines()]
    assert len(told) == len(set(told)) >= COUNT - 10 * 3  # a kill may come between two threads' results and their lines


def test_what_is_transparent_is_told_to_the_restorer(tmp_path):
    jobs, told = make_jobs(tmp_path, 3), []
    with Image.open(jobs[1].source) as image:
        alpha = image.convert("RGBA")
    alpha.paste((0, 0, 0, 0), (4, 4, 9, 8))
    alpha.save(jobs[1].source)

    def restore(images, hidden=None):
        told.append(hidden)
        return 1 - images

    assert run_jobs(jobs, restore, silent=True).done == 3
    assert told[0] is None and told[2] is None
    assert told[1].shape == (1, 1, 12, 16) and told[1].sum() == 5 * 4 and told[1][..., 4:8, 4:9].all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_photographs_of_one_size_come_together_and_others_apart(tmp_path, batch_size):
    jobs, seen = make_jobs(tmp_path, 7, sizes=((16, 12), (16, 12), (16, 12), (12, 16))), []

    def restore(images):
        seen.append(len(images))
        return invert(images)

    assert run_jobs(jobs, restore, batch_size=batch_size, silent=True).done == 7
    assert all(inverted(job) for job in jobs)
    assert seen == ([1] * 7 if batch_size == 1 else [3, 1, 3])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_stays_as_it_is_is_not_restored(tmp_path, batch_size):
    jobs, seen = make_jobs(tmp_path, 3, sizes=((64, 64),)), []
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(levels).save(jobs[1].source)

    def restore(images):
        seen.append(len(images))
        return invert(images)

    assert run_jobs(jobs, restore, batch_size=batch_size, silent=True).done == 3
    assert seen == ([1, 1] if batch_size == 1 else [2])
    assert np.array_equal(Image.open(jobs[1].target), levels) and inverted(jobs[0]) and inverted(jobs[2])


def test_one_bad_photograph_of_a_batch_does_not_take_the_others_with_it(tmp_path, capsys):
    jobs = make_jobs(tmp_path, 3)

    def restore(images):
        if len(images) > 1 or torch.equal((images[0] * 255).round().byte(), bad):
            raise ValueError("too much")
        return invert(images)

    bad = torch.from_numpy(np.asarray(Image.open(jobs[1].source)).copy()).permute(2, 0, 1)
    manifest = Manifest(tmp_path / "out")
    summary = run_jobs(jobs, restore, manifest, batch_size=3, silent=True)
    assert summary.done == 2 and summary.failed == {str(jobs[1].source): "too much"}
    assert f"error: {jobs[1].source}: too much" in capsys.readouterr().err
    assert manifest.read() == {str(job.target): ("too much" if job is jobs[1] else None) for job in jobs}


def test_a_result_that_cannot_be_written_is_a_failure_of_that_photograph(tmp_path):
    jobs = make_jobs(tmp_path, 2)
    jobs[0].target.mkdir(parents=True)
    summary = run_jobs(jobs, invert, silent=True)
    assert summary.done == 1 and list(summary.failed) == [str(jobs[0].source)]


@pytest.mark.parametrize(
    "error", [KeyError(277), struct.error("unpack"), MemoryError(), RuntimeError("out of memory"), AssertionError()]
)
@pytest.mark.parametrize("stage", ["read", "restore", "write"])
def test_whatever_a_photograph_raises_the_others_are_done(tmp_path, monkeypatch, stage, error):
    jobs = make_jobs(tmp_path, 3)

    def read(path):
        if stage == "read" and path == jobs[1].source:
            raise error
        return read_image(path)

    def restore(images):
        if stage == "restore" and torch.equal(images[0], to_tensor(read_image(jobs[1].source))):
            raise error
        return invert(images)

    def save(image, path, quality):
        if stage == "write" and path == jobs[1].target:
            raise error
        save_image(image, path, quality)

    monkeypatch.setattr(folder_run, "save_image", save)
    manifest = Manifest(tmp_path / "out")
    summary = run_jobs(jobs, restore, manifest, silent=True, open_image=read)
    assert summary.done == 2 and list(summary.failed) == [str(jobs[1].source)]
    assert manifest.given_up() == (set() if out_of_memory(error) else {str(jobs[1].target)})


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "bmp", "ppm"])
def test_on_a_full_disk_nothing_is_lost_and_the_next_run_does_the_rest(tmp_path, kind):
    jobs = [Job(job.source, job.target.with_suffix(f".{kind}")) for job in make_jobs(tmp_path, 4)]
    manifest, whole = Manifest(tmp_path / "out"), {}
    run_jobs(jobs, invert, silent=True)
    for job in jobs:
        whole[job] = job.target.read_bytes()
    for room in range(0, 1024, 64):
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        with room_for(room):
            summary = run_jobs(jobs, invert, manifest, silent=True)
        there = [job for job in jobs if job.target.exists()]
        assert summary.done == len(there) and len(summary.failed) == 4 - len(there) and not manifest.given_up()
        assert all(job.target.read_bytes() == whole[job] for job in there)
        manifest.complete(jobs)
        assert run_jobs([job for job in jobs if job not in there], invert, manifest, silent=True).failed == {}
        assert all(job.target.read_bytes() == whole[job] for job in jobs)
        assert manifest.read() == dict.fromkeys(str(job.target) for job in jobs)


def test_a_manifest_whose_last_line_was_cut_off_is_read_and_written_on(tmp_path):
    manifest, jobs = Manifest(tmp_path), [Job(tmp_path / name, tmp_path / f"{name}.png") for name in "abc"]
    manifest.add(jobs[0], "broken")
    for cut in ('{"target": "c", "fai', "[1, 2]\n", '"text"\n', "\xff\xfe\n", '{"target": 3, "failed": null}\n'):
        with open(manifest.path, "a", encoding="latin-1") as file:
            file.write(cut)
    assert manifest.read() == {str(jobs[0].target): "broken"}
    with open(manifest.path, "a") as file:
        file.write('{"target": "c", "fai')
    manifest.add(jobs[1], "no space", again=True)
    assert manifest.read() == {str(jobs[0].target): "broken", str(jobs[1].target): "no space"}
    assert manifest.given_up() == {str(jobs[0].target)}
    for job in jobs[1:]:
        job.target.touch()
    manifest.complete(jobs)
    assert manifest.read() == {str(jobs[0].target): "broken"} | {str(job.target): None for job in jobs[1:]}


def test_only_parts_of_this_runs_own_results_are_removed_and_of_runs_that_have_ended(tmp_path):
    jobs = [Job(tmp_path / "photo.png", tmp_path / "out" / "photo.png")]
    (tmp_path / "out").mkdir()
    ended, going = 2**22 + 1, os.getpid()  # no process has a number above 2^22
    names = [f".photo.png.{ended}.part", f".photo.png.{going}.part", f".other.png.{ended}.part", ".photo.png.part"]
    for name in [*names, "photo.png"]:
        (tmp_path / "out" / name).touch()
    remove_parts(jobs)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names[1:], "photo.png"])
