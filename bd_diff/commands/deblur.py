"""`bd-diff deblur`: photographs, folders and globs in; a file of the same kind out for each."""

import glob
import sys
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import (
    Fast,
    Model,
    Overwrite,
    Seed,
    Steps,
    call_settings,
    check_writable,
    load_pipeline,
    load_system,
)


def deblur(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Photographs, folders, or globs.")],
    out: Annotated[Path, typer.Option(help="A folder; or a file, where the input is one photograph.")],
    model: Model = None,
    steps: Steps = None,
    seed: Seed = 0,
    strength: Annotated[float | None, typer.Option(min=0, max=1, help="0 gives the photograph back, 1 is all.")] = None,
    fast: Fast = False,
    tile: Annotated[
        int | None, typer.Option(min=0, help="Side in pixels of the tiles of large photographs; 0 never cuts.")
    ] = None,
    kernel_windows: Annotated[
        int, typer.Option(min=0, help="Where blur varies: side of windows that get a kernel each, such as 256.")
    ] = 0,
    maps: Annotated[
        bool, typer.Option("--map", help="Beside each result NAME-reblur.png: bright where it may be invented.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the subfolders of folders, too.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Deblur photographs. A file that cannot be read is named, the others are done, and the exit code is 1."""
    plan = plan_outputs(inputs, out, recursive)
    todo = [(source, target) for source, target in plan if overwrite or not target.exists()]
    skipped = len(plan) - len(todo)
    if skipped:
        print(f"{skipped} already there, skipped (--overwrite replaces them)")
    if not todo:
        return

    import torch
    from tqdm import tqdm

    from bd_diff.data.images import read_image, save_image, to_image, to_tensor
    from bd_diff.reblur_map import draw_map, reblur_map

    restorer = load_pipeline(model) if maps else load_system(model)
    failed = 0
    for source, target in tqdm(todo, unit="image", disable=None):
        try:
            photograph = read_image(source)
            settings = call_settings(
                restorer,
                seed,
                num_inference_steps=steps,
                strength=strength,
                fast=fast,
                tile=tile,
                kernel_windows=kernel_windows or None,
            )
            (result,) = restorer(to_tensor(photograph)[None], **settings)
            save_image(to_image(result, like=photograph), target)
            if maps:
                blurry, kernel = to_tensor(photograph)[None], restorer.pipeline.estimate_kernel(photograph, fast)
                drawn = draw_map(reblur_map(blurry, result[None].cpu(), kernel.cpu())[0])
                save_image(drawn, target.with_name(f"{target.stem}-reblur.png"))
        except (ValueError, OSError, torch.OutOfMemoryError) as error:
            failed += 1
            about = "" if str(source) in str(error) else f"{source}: "
            tqdm.write(f"error: {about}{' '.join(str(error).split())}", file=sys.stderr)
    print(f"{len(todo) - failed} deblurred, in {out}" + (f"; {failed} failed" if failed else ""))
    if failed:
        raise typer.Exit(1)


def plan_outputs(inputs: list[str], out: Path, recursive: bool = False) -> list[tuple[Path, Path]]:
    """Where each photograph's result goes: (source, target) pairs, checked against one another before any work.

    A file goes to `out/name`, one in a folder to `out/` and its path inside that folder; formats that cannot be written
    (GIF) become PNG. Raises `ValueError` where a result would replace an input or another result.
    """
    from bd_diff.data.images import EXTENSIONS, can_write, list_images

    names = []  # (source, its path below `out`)
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            names += [(source, source.relative_to(path)) for source in list_images(path, recursive)]
        elif glob.has_magic(text) and not path.exists():
            found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
            found = [source for source in found if source.is_file() and source.suffix.lower() in EXTENSIONS]
            if not found:
                raise ValueError(f"{text} matches no images")
            names += [(source, Path(source.name)) for source in found]
        else:
            names.append((path, Path(path.name)))
    names = list(dict.fromkeys(names))
    if len(inputs) == 1 and len(names) == 1 and can_write(out) and not out.is_dir():
        plan = [(names[0][0], out)]
    else:
        plan = [(source, out / (name if can_write(name) else name.with_suffix(".png"))) for source, name in names]
    sources = {source.resolve(): source for source, _ in plan}
    targets = {}
    for source, target in plan:
        if target.resolve() in sources:
            raise ValueError(f"{target} is an input, which would be lost; choose another --out")
        if target in targets:
            raise ValueError(f"{source} and {targets[target]} would both become {target}; deblur them one by one")
        targets[target] = source
    check_writable(plan[0][1].parent)
    return plan
