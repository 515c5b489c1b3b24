"""Tries to lose something: damaged photographs, full disks, kills at random moments, folders made to do harm.

    python tests/benches/campaign.py --mutants 10000 --kills 50

prints a line a part and exits with 1 where anything was lost. Every part can be run alone (`--only disk`); `--seed`
makes another campaign. Full disks are real ones (tmpfs of some blocks of 4 KiB) where mounting is allowed, otherwise
files that may not grow. Photographs, models and trainings are toys; the code is that of the commands.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import logging
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from bd_diff_toys import TINY
from bd_diff_toys.damage import DAMAGE, room_for
from kills import Lost, check, fork, kill_adaptations, kill_folders, kill_trainings, photograph

from bd_diff.data.images import list_images, read_image, save_image
from bd_diff.restore import load
from bd_diff.serving.folder_run import Job, Manifest, run_jobs
from bd_diff.training.pipelines import build_pipeline, save_pipeline

BLOCK = 4096
FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "avif", "heic", "deep.png", "deep.tif")


# Photographs


def seeds(folder: Path, generator: np.random.Generator) -> list[Path]:
    """A small photograph of each format, some with EXIF."""
    found = []
    for name in FORMATS:
        path, image = folder / f"seed.{name}", photograph(generator, name.startswith("deep"))
        exif = Image.Exif()
        exif[0x0110], exif[0x0112] = "Test Camera", 6
        try:
            if name == "gif":
                image.save(path)
            else:
                image.info["exif"] = exif.tobytes()
                save_image(image, path)
        except ValueError:  # HEIC, where its library is not installed
            continue
        found.append(path)
    return found


def mutant(content: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, damaged: some changed, near its beginning more often, cut, doubled, or set to all ones."""
    content = bytearray(content)
    how = chance.choice(("few", "many", "head", "cut", "double", "ones", "zeros"))
    places = len(content) if how != "head" else min(64, len(content))
    if how == "cut":
        return bytes(content[: chance.randrange(len(content))])
    if how == "double":
        begin = chance.randrange(len(content))
        return bytes(content[:begin] + content[begin : begin + 200] + content[begin:])
    if how in ("ones", "zeros"):
        begin = chance.randrange(len(content))
        length = chance.choice((1, 2, 4, 8, 64))
        content[begin : begin + length] = bytes([255 if how == "ones" else 0]) * len(content[begin : begin + length])
        return bytes(content)
    for _ in range({"few": 1, "head": 3, "many": 40}[how]):
        content[chance.randrange(places)] = chance.randrange(256)
    return bytes(content)


def deblur_mutants(folder: Path, jobs: list[Job]) -> None:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        summary = run_jobs(jobs, lambda images: 1 - images, Manifest(folder / "out"), silent=True)
    (folder / "summary.json").write_text(json.dumps([summary.done, len(summary.failed), peak_mib()]))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mutants(folder: Path, count: int, chance: random.Random) -> str:
    """Every damaged photograph is done or told, none ends the run, and what is done can be read."""
    (folder / "seeds").mkdir()
    originals = seeds(folder / "seeds", np.random.default_rng(chance.randrange(2**32)))
    done = failed = 0
    peak = before = peak_mib()
    for first in range(0, count, 500):
        part = folder / "part"
        (part / "in").mkdir(parents=True)
        jobs = []
        for index in range(first, min(first + 500, count)):
            original = originals[index % len(originals)]
            source = part / "in" / f"{index}{original.suffix}"
            source.write_bytes(mutant(original.read_bytes(), chance))
            kind = original.suffix if original.suffix != ".gif" else ".png"
            jobs.append(Job(source, part / "out" / f"{index}{kind}"))
        running = fork.Process(target=deblur_mutants, args=(part, jobs))
        running.start()
        running.join(600)
        check(running.exitcode == 0, f"a run of damaged photographs ended with {running.exitcode}; see {part}")
        figures = json.loads((part / "summary.json").read_text())
        check(figures[0] + figures[1] == len(jobs), f"photographs neither done nor failed in {part}")
        there = [job.target for job in jobs if job.target.exists()]
        check(len(there) == figures[0], f"{len(there)} results, {figures[0]} told as done in {part}")
        for path in there:
            read_image(path)
        check(not list(part.rglob("*.part")), f"half written results in {part}")
        done, failed, peak = done + figures[0], failed + figures[1], max(peak, figures[2])
        shutil.rmtree(part)
    return f"{count} damaged photographs: {done} done, {failed} told; {peak - before:.0f} MiB more at most"


# Full disks


@contextmanager
def disk(folder: Path, blocks: int):
    """A disk of so many blocks of 4 KiB at `folder`; gives a function that makes it large."""
    folder.mkdir()
    size = f"size={blocks * BLOCK}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True).returncode == 0:
        try:
            yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        finally:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()
        return
    with ExitStack() as stack:
        stack.enter_context(room_for(blocks * BLOCK))
        yield stack.close
    shutil.rmtree(folder)


def disks(folder: Path, chance: random.Random) -> str:
    """Whatever the room, what is recorded as done is whole, and a resumed run does the rest."""
    source = folder / "photographs"
    generator = np.random.default_rng(chance.randrange(2**32))
    for index in range(3):
        for kind in ("png", "jpg", "tif", "bmp", "ppm", "webp"):
            save_image(photograph(generator, side=56), source / f"{index}.{kind}")
    sources, restore = list_images(source), lambda images: 1 - images
    jobs = [Job(path, folder / "whole" / path.name) for path in sources]
    run_jobs(jobs, restore, silent=True)
    whole = {job.target.name: job.target.read_bytes() for job in jobs}
    tried = full = blocks = 0
    while True:
        blocks, tried = blocks + 1, tried + 1
        with disk(folder / "disk", blocks) as grow:
            out = folder / "disk/out"
            jobs, manifest = [Job(path, out / path.name) for path in sources], Manifest(out)
            with redirect_stderr(io.StringIO()):
                failed = run_jobs(jobs, restore, manifest, silent=True).failed
            there = {job.target.name: job.target.read_bytes() for job in jobs if job.target.exists()}
            check(all(whole[name] == content for name, content in there.items()), f"half a result at {blocks} blocks")
            check(len(there) + len(failed) == len(jobs), f"a photograph neither done nor failed at {blocks} blocks")
            grow()
            manifest.complete(jobs)
            check(not manifest.given_up(), f"given up because the disk was full, at {blocks} blocks")
            rest = [job for job in jobs if not job.target.exists()]
            check(not run_jobs(rest, restore, manifest, silent=True).failed, f"not done afterwards at {blocks} blocks")
            check(all(job.target.read_bytes() == whole[job.target.name] for job in jobs), "a resumed result differs")
            check(len(manifest.read()) == len(jobs), f"lines are lacking at {blocks} blocks")
        full += bool(failed)
        if not failed:
            return f"{tried} disks of 1 to {blocks} blocks of 4 KiB, {full} full: all {len(jobs)} results in the end"


# Folders made to do harm


def folders(folder: Path) -> str:
    """Every one is refused in a line, within seconds."""
    save_pipeline(build_pipeline(TINY), folder / "whole")
    slowest = 0.0
    for name, (damage, _) in DAMAGE.items():
        shutil.copytree(folder / "whole", folder / name)
        damage(folder / name)
        started = time.monotonic()
        try:
            load(folder / name, "cpu")
        except ValueError:
            slowest = max(slowest, time.monotonic() - started)
        else:
            raise Lost(f"{folder / name} was taken for a model")
    return f"{len(DAMAGE)} model folders: each refused in a line, in {slowest:.1f} s at most"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50, help="of folder runs, trainings and adaptations together")
    parser.add_argument("--only", choices=["mutants", "disk", "folders", "deblur", "train", "adapt"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    each = -(-given.kills // 3)
    parts = {
        "mutants": lambda folder, chance: mutants(folder, given.mutants, chance),
        "disk": disks,
        "folders": lambda folder, _: folders(folder),
        "deblur": lambda folder, chance: kill_folders(folder, each, chance),
        "train": lambda folder, chance: kill_trainings(folder, each, chance),
        "adapt": lambda folder, chance: kill_adaptations(folder, each, chance),
    }
    lost = 0
    for name in [given.only] if given.only else parts:
        folder, started = Path(tempfile.mkdtemp(prefix=f"campaign-{name}-")), time.monotonic()
        try:
            found = parts[name](folder, random.Random(f"{given.seed} {name}"))
            shutil.rmtree(folder)
        except Lost as error:
            lost, found = lost + 1, f"LOST: {error}"
        print(f"{name}: {found} ({time.monotonic() - started:.0f} s)", flush=True)
    print("nothing was lost" if not lost else f"{lost} parts lost something")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
