"""Makes folders of a blur domain from sharp photographs, with a manifest from which every image can be made again."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Generator

from bd_diff.blur.camera import Camera
from bd_diff.blur.domains import find_domain, photograph
from bd_diff.blur.synthesis import Blur
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.writing import replacing

MANIFEST = "manifest.jsonl"


def write_domain(
    paths: Iterable[Path],
    out: Path,
    domain: str,
    paired: bool = True,
    severity: float = 1.0,
    seed: int = 0,
    skip_bad: bool = False,
) -> tuple[int, list[str]]:
    """Write `out/blurry` and `out/sharp` in PNG, and a line of `out/manifest.jsonl` per blurry image.

    Not paired: every other photograph goes to `out/unpaired`, blurred, and the others to `out/sharp`, as they are.
    Image i is drawn from (seed, i). Returns how many photographs were written, and the errors of those that could not
    be read. Raises `ValueError` for the first unreadable photograph, unless `skip_bad`, and for two photographs whose
    names differ only in the ending.
    """
    chosen, bad, lines, names = find_domain(domain), [], [], set()
    for index, path in enumerate(paths):
        if path.stem in names:
            raise ValueError(f"two photographs are called {path.stem} but for their ending; rename one")
        names.add(path.stem)
        try:
            sharp = to_tensor(read_image(path))
        except ValueError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
            continue
        if paired or index % 2:
            save_image(to_image(sharp), out / "sharp" / f"{path.stem}.png")
        if paired or not index % 2:
            generator = Generator().manual_seed(seed * 1_000_003 + index)
            blur, camera = chosen.draw(generator, severity)
            noise_seed = int(torch.randint(2**31, (), generator=generator))
            file = f"{'blurry' if paired else 'unpaired'}/{path.stem}.png"
            save_image(to_image(again(sharp, blur, camera, noise_seed)), out / file)
            lines.append(
                {
                    "file": file,
                    "source": path.name,
                    "domain": domain,
                    "name": blur.name,
                    "seed": noise_seed,
                    "blur": blur.parameters(),
                    "camera": camera.parameters(),
                }
            )
    with replacing(out / MANIFEST) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(names) - len(bad), bad


def again(sharp: torch.Tensor, blur: Blur, camera: Camera, seed: int) -> torch.Tensor:
    """Make the blurry image `(3, H, W)` of a line of the manifest again, from its sharp photograph."""
    return photograph(sharp, blur, camera, Generator().manual_seed(seed))
