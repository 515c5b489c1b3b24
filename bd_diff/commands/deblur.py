"""`bd-diff deblur`: photographs, folders and globs in; a file of the same kind out for each."""

import glob
import json
import signal
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bd_diff.commands.options import (
    ColourFix,
    ColourStrength,
    Device,
    Dtype,
    Fast,
    KernelFile,
    KernelWindows,
    Model,
    Overwrite,
    Seed,
    Steps,
    Strength,
    check_model,
    check_writable,
    colour_settings,
    load_pipeline,
    load_system,
)
from bd_diff.commands.talking import is_quiet


def deblur(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Photographs, folders, or globs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder; or a file, where the input is one photograph.")],
    model: Model = None,
    steps: Steps = None,
    seed: Seed = 0,
    strength: Strength = None,
    fast: Fast = False,
    device: Device = None,
    dtype: Dtype = None,
    colour_fix: ColourFix = None,
    colour_strength: ColourStrength = None,
    tile: Annotated[
        int | None, typer.Option(min=0, help="Side in pixels of the tiles of large photographs; 0 never cuts.")
    ] = None,
    kernel_windows: KernelWindows = None,
    kernel: KernelFile = None,
    maps: Annotated[
        bool, typer.Option("--map", help="Beside each result NAME-reblur.png: bright where it may be invented.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the subfolders of folders, too.")] = False,
    suffix: Annotated[str, typer.Option(help="Put between a result's name and its ending, such as -sharp.")] = "",
    kind: Annotated[
        str | None, typer.Option("--format", help="Write all as png, jpg, webp, tif ...; by default as they came.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP, AVIF and HEIC results.")] = None,
    limit_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse files of more pixels, which may be bombs; by default what fits into memory."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photographs of one size that are deblurred at once.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and write.")] = 2,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a run was stopped: leave out photographs that failed by themselves."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for scripts.")] = False,
) -> None:
    """Deblur photographs. A file that cannot be read is named, the others are done, and the exit code is 1.

    Started by torchrun or accelerate launch, the processes share the work.
    """
    colours = colour_settings(colour_fix, colour_strength)
    plan = plan_outputs(inputs, out, recursive, suffix, kind)
    check_model(model, dtype)
    if not any(source.exists() for source, _ in plan):
        raise ValueError(f"{plan[0][0]} does not exist")

    from accelerate.utils import gather_object
    from PIL import Image

    from bd_diff.blur.kernels import delta
    from bd_diff.data.claims import claim
    from bd_diff.data.colour import fix_colours
    from bd_diff.data.images import read_image, save_image
    from bd_diff.data.kernel_files import read_kernel
    from bd_diff.data.processes import all_processes
    from bd_diff.reading.reblur_map import draw_map, reblur_map
    from bd_diff.reading.verdict import NOTHING
    from bd_diff.restore import call_settings
    from bd_diff.serving.folder_run import Job, Manifest, remove_parts, run_jobs
    from bd_diff.serving.memory import most_pixels

    given_kernel = None if kernel is None else read_kernel(kernel)
    given: dict[str, Any] = {
        "num_inference_steps": steps,
        "strength": strength,
        "fast": fast,
        "tile": tile,
        "kernel_windows": kernel_windows,
        "kernels": given_kernel,
    }
    processes = all_processes()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    in_flight = (workers + 2 * batch_size) * processes.num_processes
    limit_pixels = limit_pixels or most_pixels(in_flight)
    Image.MAX_IMAGE_PIXELS = limit_pixels // 2  # Pillow refuses what is twice as large
    manifest = None if plan[0][1] == out else Manifest(out)
    by_name = all(Path(text).is_file() for text in inputs)  # these go beside other runs, each result written whole
    if manifest and not by_name and processes.is_main_process:
        claim(out)
    processes.wait_for_everyone()
    given_up = manifest.given_up() if resume and manifest else set()
    # The plan is shared out, not what is left of it: that is less already for a process that starts later.
    jobs = [Job(*pair) for pair in plan[processes.process_index :: processes.num_processes]]
    remove_parts(jobs)
    if resume and manifest:
        manifest.complete(jobs)
    share = [job for job in jobs if (overwrite or not job.target.is_file()) and str(job.target) not in given_up]
    needs_pipeline = maps or given_kernel is not None
    opened = load_pipeline if needs_pipeline else load_system
    restorer = opened(model, device or processes.device, dtype) if share else None
    if restorer and maps and restorer.pipeline.blur_decoder is None:
        raise ValueError(f"--map: {model} has no blur_decoder, so it sees no kernel to blur its results with")
    if restorer:
        restorer.check_settings(**call_settings(restorer, seed, **given))

    seen: deque[tuple] = deque()  # kernels and what they are called, of photographs that are still to be written
    blur: dict[Path, str] = {}
    tells = restorer is not None and getattr(getattr(restorer, "pipeline", None), "blur_decoder", None) is not None

    def restore(images, hidden=None):
        settings = call_settings(restorer, seed, len(images), hidden=hidden, **given)
        if tells:
            output = restorer.run(images, **settings)
            results = output.images
            seen.extend(zip(output.kernels.cpu(), output.blur, strict=True))
        else:
            results = restorer(images, **settings)
        return fix_colours(results, images, **colours) if colours else results

    def open_image(path: Path):
        try:
            return read_image(path)
        except ValueError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise ValueError(f"{error}; --limit-pixels raises the limit") from error
            raise

    def beside(job, part, result) -> None:
        kernel, blur[job.target] = (delta(1)[0], NOTHING) if part.unchanged else seen.popleft()
        if maps:
            save_map(job, part, result, kernel)

    def save_map(job, part, result, kernel) -> None:
        drawn = draw_map(part.whole_map(reblur_map(part.pixels[None], result[None], kernel[None])[0]))
        save_image(drawn, job.target.with_name(f"{job.target.stem}-reblur.png"))

    with terminable():
        summary = run_jobs(
            share,
            restore,
            manifest,
            batch_size,
            workers,
            quality,
            beside if tells else None,
            silent=as_json or not processes.is_main_process,
            open_image=open_image,
            blur=blur,
        )
    summaries = gather_object([summary])
    failed = {source: reason for one in summaries for source, reason in one.failed.items()}
    stopped = max(one.stopped for one in summaries)
    if processes.is_main_process and (as_json or not is_quiet()):
        report(len(plan), summaries, failed, out, as_json)
    if stopped or failed:
        raise typer.Exit(stopped or 1)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM stops what is inside as Ctrl-C does."""

    def stop(number: int, frame) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report(planned: int, summaries: list, failed: dict[str, str], out: Path, as_json: bool) -> None:
    """Say what became of the photographs, in words or as one JSON object."""
    from bd_diff.reading.verdict import DIFFERS, DOUBT, NOTHING, WIDE

    done, seconds = sum(one.done for one in summaries), max(one.seconds for one in summaries)
    stopped, left = any(one.stopped for one in summaries), sum(one.left for one in summaries)
    skipped = planned - done - len(failed) - left
    found: Counter[str] = sum((one.blur for one in summaries), Counter())
    unchanged = found[NOTHING]
    differing = sum(count for words, count in found.items() if words.startswith(DIFFERS))
    if as_json:
        figures = {"done": done, "skipped": skipped, "left": left, "failed": failed, "seconds": round(seconds, 3)}
        figures |= {"unchanged": unchanged, "doubtful": found[DOUBT], "wide": found[WIDE], "differs": differing}
        print(json.dumps(figures | {"images_per_second": round(done / seconds, 3) if done else 0.0}))
        return
    if skipped:
        print(f"{skipped} already there or given up before, skipped (--overwrite replaces results)")
    if done or failed:
        stayed = f", {unchanged} left as {'it was' if unchanged == 1 else 'they were'} ({NOTHING})" if unchanged else ""
        told = {DOUBT: found[DOUBT], WIDE: found[WIDE], "blur that differs over the picture": differing}
        reasons = "".join(f"; {count} with {reason}" for reason, count in told.items() if count)
        reasons += f"; {len(failed)} failed" if failed else ""
        print(f"{done - unchanged} deblurred{stayed}, in {out}{reasons}")
    if stopped:
        print(f"stopped, {left} are left; the same command with --resume goes on")


def plan_outputs(
    inputs: list[str], out: Path, recursive: bool = False, suffix: str = "", kind: str | None = None
) -> list[tuple[Path, Path]]:
    """Where each photograph's result goes: (source, target) pairs, checked against one another before any work.

    A file goes to `out/name`, one in a folder to `out/` and its path inside that folder, `suffix` before the ending;
    `kind` replaces the ending, and formats that cannot be written (GIF) become PNG. With a suffix, what folders and
    globs hold of earlier results is not planned again. Raises `ValueError` where a result would replace an input or
    another result, and for a `kind` that cannot be written.
    """
    from bd_diff.data.names import EXTENSIONS, can_write, list_images, warn_of_left_out

    names = []  # (source, its path below `out`)
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            names += [(source, source.relative_to(path)) for source in list_images(path, recursive)]
        elif glob.has_magic(text) and not path.exists():
            found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
            warn_of_left_out([source for source in found if source.is_file()], text)
            found = [source for source in found if source.is_file() and source.suffix.lower() in EXTENSIONS]
            if not found:
                raise ValueError(f"{text} matches no images")
            names += [(source, Path(source.name)) for source in found]
        else:
            names.append((path, Path(path.name)))
    names = list(dict.fromkeys(names))
    named = {Path(text) for text in inputs}
    if len(inputs) == 1 and len(names) == 1 and can_write(out) and not out.is_dir():
        plan = [(names[0][0], out)]
    else:
        if kind and not can_write(f"name.{kind}"):
            raise ValueError(f"--format {kind} cannot be written; use png, jpg, webp, tif, avif, bmp or ppm")
        plan = []
        for source, name in names:
            ending = f".{kind}" if kind else name.suffix if can_write(name) else ".png"
            plan.append((source, out / name.with_name(f"{name.stem}{suffix}{ending}")))
    if suffix:
        made = {target.resolve() for _, target in plan}
        plan = [(source, target) for source, target in plan if source in named or source.resolve() not in made]
    sources = {source.resolve(): source for source, _ in plan}
    targets: dict[Path, Path] = {}
    for source, target in plan:
        if target.resolve() in sources:
            raise ValueError(f"{target} is an input, which would be lost; choose another --out")
        if target in targets:
            raise ValueError(f"{source} and {targets[target]} would both become {target}; deblur them one by one")
        targets[target] = source
    check_writable(plan[0][1].parent)
    return plan
