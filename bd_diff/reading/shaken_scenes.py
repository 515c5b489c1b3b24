"""Things that moved by themselves before a camera that shook.

The kernel that the corners tell (`corner_search`) is that of the background, but was seen with what moved there. So
the places that it explains best (`turned_copies`) improve it, and are found again, in turns. What it explains no better
than its turned copies do has not this blur: it has the kernel that is found there (`own_blur`), or stays as it is
(ours).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta, same_size
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.own_blur import PATCH, find_thing
from bd_diff.reading.pyramid import enlarged, kernel_of, reduced, spread
from bd_diff.reading.refinement import refine, seen
from bd_diff.reading.refuted import LONGEST
from bd_diff.reading.turned_copies import CELL, RIGHT, SURE, against_copies

# All ours, measured on photographs of the training.
TURNS = 4  # of kernel and places
MOST = 0.6  # share of the image that improves the kernel
GROWN = 1.5  # of the kernel's spread: better ones had 0.9 to 1.2 of it, one that was lost in regular lines 2.9
LOW, HIGH = 0.95, 1.0  # share of what its copies leave from which on a kernel counts less, and not at all
WRONG = 0.975  # mean share of a patch from which on there is a thing in it


@torch.no_grad()
def around_things(
    pipeline, pixels: Tensor, reading: BlurReading, contradicted: bool = True
) -> tuple[BlurReading, BlurField | Tensor]:
    """The reading of one image `(1, 3, H, W)` in [-1, 1], with a kernel that is improved where it holds, and the field
    of that kernel and of the own one of a thing that moved (`own_blur`), or of no blur where it does not hold; the
    kernel itself, `(1, k, k)`, where there is no such thing. Where it holds nowhere, the reading is in doubt. In images
    longer than `LONGEST` at the reading's scale things are looked for at a smaller one, but not in narrow panoramas;
    the kernel stays, and things as they are. No things are looked for unless corners `contradicted` the kernel that was
    found: places that hardly show their blur look like things.
    """
    first, scale = kernel_of(reading), 1.0 if reading.scale is None else float(reading.scale)
    more = min(1.0, LONGEST / (max(pixels.shape[-2:]) * scale))
    images = reduce_noise((reduced(pixels, scale * more) + 1) / 2)
    if min(images.shape[-2:]) < PATCH * CELL:
        return reading, first
    kernel, linear = improved(pipeline, images, first, is_linear(reading)) if more == 1 else (first, False)
    if kernel is not first:
        kernel = pipeline.tell(BlurReading(kernel)).kernels
        reading = replace(reading, kernels=kernel, linear=torch.full((1,), linear, device=pixels.device))
    if not contradicted:
        return reading, kernel
    share = against_copies(luminance(images), kernel if more == 1 else enlarged(kernel, more))
    if share is None and kernel is first:
        return reading, kernel
    wrong = share is None or bool(share.quantile(SURE) > RIGHT)
    if more == 1:
        reading = replace(reading, doubtful=torch.full((1,), wrong, device=pixels.device))
    if share is None or wrong:
        return reading, kernel
    elsewhere = ((share - LOW) / (HIGH - LOW)).clamp(0, 1)[0]  # (1, h, w)
    if more == 1 and (thing := find_thing(pipeline, images, kernel, elsewhere)) is not None:
        own = pipeline.tell(BlurReading(thing.kernel)).kernels
        there = F.avg_pool2d(thing.cells[None].float(), 3, 1, 1, count_include_pad=False)
        return reading, BlurField(torch.cat(same_size([kernel, own])), torch.cat([1 - there, there]))
    if F.avg_pool2d(share, PATCH, 1).max() < WRONG:
        return reading, kernel
    nothing = delta(1, kernel.shape[-1], kernel.device)
    return reading, BlurField(torch.cat([kernel, nothing]), torch.cat([1 - elsewhere, elsewhere]))


def improved(pipeline, images: Tensor, kernel: Tensor, linear: bool) -> tuple[Tensor, bool]:
    """A better kernel `(1, k, k)` for an image `(1, 3, H, W)` in [0, 1], from those places where it leaves least of
    what its copies leave (`against_copies`), and whether it is of linear light; both as they are where that becomes no
    less. From display values and from light: what was blurred is the light, which judges, but clipped ones mislead.
    What has become much wider is another kernel, and no better one.
    """
    lights = seen(images, linear=True)
    every = [(kernel, linear, against_copies(lights, kernel))]
    for in_light in (False, True):
        better, _, left = every[0]
        for _ in range(TURNS):
            if left is None:
                break
            best = (left <= left.quantile(MOST)).float()
            where = F.interpolate(best, size=images.shape[-2:]) > 0.5
            better = refine(pipeline, images, better, in_light, where=where)
            if spread(better) > GROWN * spread(kernel):
                break
            left = against_copies(lights, better)
            every.append((better, in_light, left))
    return min(every, key=lambda one: 1.0 if one[2] is None else float(one[2].quantile(MOST)))[:2]
