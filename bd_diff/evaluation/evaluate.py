"""Evaluates any method on any data under any protocol, one row per image; the test cases of the project's table."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from bd_diff.blur.camera import Camera, add_noise
from bd_diff.blur.kernels import SIZE, blur
from bd_diff.blur.operator import extend
from bd_diff.blur.synthesis import Blur
from bd_diff.data.folders import Folder, HubData, Sample, Shards, read_item
from bd_diff.data.images import to_tensor
from bd_diff.data.pairs import Pair, as_pair
from bd_diff.data.photographs import Photographs
from bd_diff.data.pixels import as_floats
from bd_diff.evaluation.methods import Method
from bd_diff.evaluation.metrics import FID, IDENTICAL
from bd_diff.evaluation.protocols import Protocol, eight_bit

TABLE_FAMILIES = {"gaussian": 1.8, "line": 13.0, "shake": 16.0, "sharp": 0.0}  # sigma, length, extent in pixels
TABLE_NOISE = 1 / 255
TABLE_CAMERAS = {  # by protocol; None blurs display values and adds noise of TABLE_NOISE
    "blur-families": None,
    "blur-families-noise": Camera(read=8 / 255),
    "blur-families-jpeg": Camera(read=TABLE_NOISE, jpeg=75),
    "blur-families-light": Camera("srgb", read=5e-4),
    "blur-families-highlights": Camera("srgb", highlights=4.0, read=5e-4),
}

Case = tuple[str, Callable[[], Sample]]  # a sample's name, and what reads it


class FamilyPair(NamedTuple):
    """A synthetic case: sharp and blurry `(3, H, W)` in [0, 1] at 8 bit, and the kernel `(k, k)` between them."""

    family: str
    sharp: Tensor
    blurry: Tensor
    kernel: Tensor


def family_pairs(images: Sequence[Tensor], seed: int = 0, size: int = 256) -> list[FamilyPair]:
    """The cases of the protocol `blur-families`: each image under each family, the images of one family together.

    `images` are `(3, H, W)`, uint8 or floats in [0, 1]. Of each the centre, `size` pixels a side (or the whole side,
    where it is shorter), is blurred: Gaussian of sigma 1.8, linear motion over 13 pixels at a random angle, a random
    camera shake of 16 pixels; noise of sigma 1/255; 8 bit. Up to 16 pixels around the crop are blurred into it, as in
    a real photograph (reflected where the photograph ends). Family `sharp` is the crop itself, untouched.

    Case (family, image i) depends on the seed, the family and i, not on how many images there are.
    """
    return [
        family_pair(family, image, case_seed(seed, family, index), size)
        for family in TABLE_FAMILIES
        for index, image in enumerate(images)
    ]


def case_seed(seed: int, family: str, index: int) -> int:
    """The seed of one case of `family_pairs`."""
    return (seed * 1000 + list(TABLE_FAMILIES).index(family)) * 100_000 + index


def family_pair(family: str, image: Tensor, seed: int, size: int, camera: Camera | None = None) -> FamilyPair:
    """One case of `family_pairs`; a `camera` takes the photograph in place of the protocol's noise."""
    image = as_floats(image).cpu()
    window = centre_window(image, size, margin=SIZE // 2)
    inside = (..., slice(SIZE // 2, -(SIZE // 2)), slice(SIZE // 2, -(SIZE // 2)))
    sharp = eight_bit(window[inside])
    if family == "sharp":
        return FamilyPair(family, sharp, sharp, Blur("delta").kernel())
    generator = Generator().manual_seed(seed)
    angle = math.pi * float(torch.rand((), generator=generator))
    path_seed = int(torch.randint(2**31, (), generator=generator))
    kernel = Blur(family, TABLE_FAMILIES[family], angle, path_seed).kernel()
    if camera:
        blurry = camera.capture(window[None], kernel[None], generator)[inside]
    else:
        blurry = add_noise(blur(window[None], kernel[None], mode="valid"), 0.0, TABLE_NOISE, generator)
    return FamilyPair(family, sharp, eight_bit(blurry[0]), kernel)


def centre_window(image: Tensor, size: int, margin: int) -> Tensor:
    """The centre of `(3, H, W)`, up to `size` a side, with `margin` pixels around it, reflected beyond the image."""
    height, width = (min(side, size) for side in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    around = extend(image[None], margin, margin, margin, margin)[0]
    return around[..., top : top + height + 2 * margin, left : left + width + 2 * margin]


def family_cases(
    folder: str | Path,
    names: str | Path | None = None,
    seed: int = 0,
    size: int = 256,
    limit: int | None = None,
    camera: Camera | None = None,
) -> Iterator[Case]:
    """The cases of `family_pairs` for the photographs in a folder or in shards, read one by one.

    names: a text file with the names of those to take. limit: only the first so many photographs. camera: takes the
    photographs in place of the protocol's noise. Raises `ValueError` for a name that is not in the folder.
    """
    photographs = Photographs(folder, only=names)
    stems = [Path(name).stem for name in photographs.names[:limit]]

    def read(family: str, index: int) -> Sample:
        image = to_tensor(photographs.read(photographs.sources[index]))
        pair = family_pair(family, image, case_seed(seed, family, index), size, camera)
        return Sample(f"{family}/{stems[index]}", pair.blurry, pair.sharp, family, pair.kernel)

    return (
        (f"{family}/{stem}", partial(read, family, index))
        for family in TABLE_FAMILIES
        for index, stem in enumerate(stems)
    )


def paired_cases(data: Folder | HubData | Shards) -> Iterator[Case]:
    """The pairs of a folder or data set. Raises `ValueError` if it has none."""
    if not isinstance(data, Folder):
        return data.readers()
    pairs = [item for item in data.items if item.blurry and item.sharp]
    if not pairs:
        raise ValueError(
            f"{data.root} holds no pairs (layout {data.layout}, split {data.split}); evaluate sharp photographs with "
            "--protocol blur-families"
        )
    return ((item.name, partial(read_item, item)) for item in pairs)


def evaluate(
    method: Method,
    cases: Iterable[Case],
    protocol: Protocol,
    extra: tuple[str, ...] = ("gmsd",),
    skip_bad: bool = False,
    fid: FID | None = None,
    keep: Callable[[Pair, Tensor], None] | None = None,
) -> tuple[list[dict], list[str]]:
    """Score every case. Returns rows in the order of the cases, and the errors of those that could not be read.

    A row has index, name, group, height, width, seconds, the protocol's psnr and ssim of result and input
    (`psnr_input`), their difference (`gain`), the `extra` metrics, and a digest of the two images. `keep(pair,
    result)` is called for every result. Of several processes (torchrun, accelerate) each scores its share, and all get
    all rows, so that means are the same as of one process.

    Raises `ValueError` for an image that cannot be read (unless `skip_bad`), and for a result of another size than its
    truth or with NaN.
    """
    from accelerate.utils import gather_object

    from bd_diff.data.processes import all_processes

    state, rows, bad = all_processes(), [], []
    for index, (name, read) in enumerate(cases):
        if index % state.num_processes != state.process_index:
            continue
        try:
            pair = as_pair(read())
        except ValueError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
            continue
        started = time.perf_counter()
        result = method.restore(pair).cpu()
        seconds = time.perf_counter() - started
        if result.shape != pair.sharp.shape or not result.isfinite().all():
            raise ValueError(
                f"the result of {method.name} for {name} is of shape {tuple(result.shape)}, smallest value "
                f"{float(result.min())}; expected finite values of shape {tuple(pair.sharp.shape)}"
            )
        rows.append({"index": index, **score(pair, result, protocol, extra), "seconds": seconds})
        if fid is not None:
            fid.update(result[None], pair.sharp[None])
        if keep is not None:
            keep(pair, result)
    rows, bad = (gather_object(found) for found in (rows, bad))
    if not rows:
        raise ValueError(f"there is nothing to evaluate; {bad[0] if bad else 'the data holds no pairs'}")
    return sorted(rows, key=lambda row: row["index"]), bad


def score(pair: Pair, result: Tensor, protocol: Protocol, extra: tuple[str, ...]) -> dict:
    """The scores of one result `(3, H, W)` as a row of the table: name, group and size of the pair, then the protocol's
    metrics of the result, and of the blurry input for comparison.
    """
    before, after = protocol.score(pair.blurry, pair.sharp), protocol.score(result, pair.sharp, extra)
    content = hashlib.sha256()
    for image in (pair.blurry, pair.sharp):
        content.update((image * 255).round().byte().numpy().tobytes())
    return {
        "name": pair.name,
        "group": pair.group,
        "height": result.shape[1],
        "width": result.shape[2],
        "psnr_input": before["psnr"],
        "ssim_input": before["ssim"],
        "gain": after["psnr"] - before["psnr"],
        **after,
        "digest": content.hexdigest(),
    }


def summarize(rows: list[dict]) -> dict[str, dict]:
    """Means and the worst image of each group.

    Several groups are also summed up as `all`, which leaves out inputs that were sharp already.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    if len(groups) > 1:
        groups["all"] = [row for row in rows if row["psnr_input"] < IDENTICAL] or rows
    return {name: summary(members) for name, members in groups.items()}


def by_gain(row: dict) -> tuple[float, float]:
    """The key that images are sorted by: their gain and, where gains are equal, the PSNR of the input."""
    return row["gain"], row["psnr_input"]


def summary(rows: list[dict]) -> dict:
    """Count, exact means of the figures, and the image with the smallest gain."""
    figures = [key for key, value in rows[0].items() if isinstance(value, float)]
    worst = min(rows, key=by_gain)
    return {
        "count": len(rows),
        **{key: math.fsum(row[key] for row in rows) / len(rows) for key in figures},
        "worst": {"name": worst["name"], "gain": worst["gain"], "psnr": worst["psnr"]},
    }
