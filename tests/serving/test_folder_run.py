"""A folder of photographs is done completely, in any batches, however often the run is killed."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from bd_diff.serving.folder_run import Job, Manifest, remove_parts, run_jobs

COUNT = 200


def make_jobs(folder, count, sizes=((16, 12),)):
    (folder / "in").mkdir()
    jobs = []
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "in" / f"{index}.png")
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


@pytest.mark.parametrize("batch_size", [1, 3])
def test_photographs_of_one_size_come_together_and_others_apart(tmp_path, batch_size):
    jobs, seen = make_jobs(tmp_path, 7, sizes=((16, 12), (16, 12), (16, 12), (12, 16))), []

    def restore(images):
        seen.append(len(images))
        return invert(images)

    assert run_jobs(jobs, restore, batch_size=batch_size, silent=True).done == 7
    assert all(inverted(job) for job in jobs)
    assert seen == ([1] * 7 if batch_size == 1 else [3, 1, 3])


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


def test_a_manifest_whose_last_line_was_cut_off_is_read(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add(Job(tmp_path / "a", tmp_path / "b"), "broken")
    with open(manifest.path, "a") as file:
        file.write('{"target": "c", "fai')
    assert manifest.read() == {str(tmp_path / "b"): "broken"}


def test_only_parts_of_this_runs_own_results_are_removed(tmp_path):
    jobs = [Job(tmp_path / "photo.png", tmp_path / "out" / "photo.png")]
    (tmp_path / "out").mkdir()
    names = [".photo.png.123.part", ".other.png.123.part", ".photo.png.part", "photo.png"]
    for name in names:
        (tmp_path / "out" / name).touch()
    remove_parts(jobs)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names[1:])
