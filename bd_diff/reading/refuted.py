"""Where a photograph refutes the blur that was found in it: a thing that moved by itself, or one that stood still.

What a network that knows photographs makes of it under that blur, blurred again, must be the photograph. Where the blur
is another one it is not: what is sharp has detail that the blur would have taken away, and what moved has edges where
it leaves none. There the photograph stays as it is, and so it does in windows in which, read by themselves, there is no
blur (ours).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta, shape_of
from bd_diff.data.noise import noise_level
from bd_diff.data.pixels import luminance
from bd_diff.models.conditioning import reblurred
from bd_diff.models.known_blur import KnownBlur
from bd_diff.reading.confidence import NOISE
from bd_diff.reading.differing_blur import AT_ONCE, Places
from bd_diff.reading.kernel_search import gradients_inside
from bd_diff.reading.pyramid import FITS, enlarged, kernel_of, reach, reduced
from bd_diff.reading.verdict import is_nothing

CELL = 16  # pixels a side of the cells of the map; each is seen with its eight neighbours
FAINT = 2e-4  # mean gradient below which a cell shows nothing
LONGEST = 768  # pixels
LOW, HIGH = 0.5, 0.7  # share of the gradients that is missed from which a blur counts less, and not at all (ours,
# measured on training photographs: a blur that is everywhere misses more hardly anywhere)
LITTLE = 0.005  # mean of the map up to which it says nothing: of one blur it is up to 0.002, with a thing 0.07 and more
NARROWER = 0.75  # see `unblurred` (likewise: windows of one blur read 0.84 times that of the whole, or more)


@torch.no_grad()
def missed(pipeline, pixels: Tensor, blur: BlurField | Tensor, in_light: bool = False) -> Tensor:
    """The share of its gradients in which one image `(1, 3, H, W)` in [-1, 1] differs from what is deblurred without
    data consistency and blurred again, in display values or in linear light, by kernels `(1, k, k)` or a field: a map
    `(1, 1, h, w)` of cells, about 0 where the blur is right, 1 where nothing of the detail is explained. Noise does not
    count; it is 0.5 where there is no detail.
    """
    height, width = pixels.shape[-2:]
    linear = pipeline.config.linear_light
    known = (
        KnownBlur(blur, linear)
        if isinstance(blur, Tensor)
        else KnownBlur(blur.kernels[:, None], linear, blur.shares_in(height, width, slice(None), slice(None)))
    )
    deblurred = pipeline.deblur_by(pixels, known)
    blurred = known.everywhere(lambda images, kernels: reblurred(images, kernels, in_light)[:, None], deblurred)[:, 0]
    seen, unseen = luminance((pixels + 1) / 2), luminance((blurred - pixels) / 2)
    noise = NOISE * noise_level(seen).view(-1, 1, 1, 1)
    cells = height // CELL, width // CELL

    def detail(light: Tensor) -> Tensor:
        there = F.adaptive_avg_pool2d(gradients_inside(light).abs().mean(1, keepdim=True), cells)
        around = F.avg_pool2d(there, 3, 1, 1, count_include_pad=False)
        return (around - noise).clamp_min(0)

    return (detail(unseen) + FAINT) / (detail(seen) + 2 * FAINT)


def believed(left: Tensor) -> Tensor:
    """How much a blur counts where so much is `missed` under it: from 1 at `LOW` to 0 at `HIGH`."""
    return ((HIGH - left) / (HIGH - LOW)).clamp(0, 1)


@torch.no_grad()
def unblurred(pipeline, pixels: Tensor, blur: BlurField | Tensor) -> Tensor:
    """In which windows (`Places`) of one image `(1, 3, H, W)` in [-1, 1] there is hardly any of the blur, kernels
    `(1, k, k)` or a field: those that, read by themselves without the search, have none, or less than `NARROWER` times
    its standard deviation where it `fits`: of wider blur the reading without the search tells less. A map
    `(1, rows, columns)` of ones and zeros; one zero where the image is too small to have windows.
    """
    places = Places.over(*pixels.shape[-2:])
    if places is None:
        return pixels.new_zeros(1, 1, 1)
    windows = places.cut(pixels, range(places.count))
    own = torch.cat([kernel_of(pipeline.read_blur(some)) for some in windows.split(AT_ONCE)])
    if isinstance(blur, BlurField):
        shares = blur.shares_in(places.rows, places.columns, slice(None), slice(None)).flatten(1)
        given = torch.einsum("rs,rij->sij", shares, blur.kernels)
    else:
        given = blur.expand(len(own), -1, -1)
    none = is_nothing(own)
    if fits(blur):
        narrow = [shape_of(one)[0] < NARROWER * shape_of(other)[0] for one, other in zip(own, given, strict=True)]
        none |= torch.stack(narrow)
    return none.to(pixels).view(1, places.rows, places.columns)


def fits(blur: BlurField | Tensor, scale: float = 1.0) -> bool:
    """Whether kernels `(1, k, k)`, or all of a field, are at most `FITS` wide in an image 1 / `scale` larger."""
    kernels = blur.kernels if isinstance(blur, BlurField) else blur
    return max(reach(one[None]) for one in kernels) <= FITS * scale


@torch.no_grad()
def where_it_is(
    pipeline, pixels: Tensor, blur: BlurField | Tensor, scale: float = 1.0, in_light: bool = False
) -> BlurField | Tensor:
    """The blur of one image `(1, 3, H, W)` in [-1, 1], kernels `(1, k, k)` or a field, with no blur where the image
    refutes it (`missed`) or shows none (`unblurred`); as it is where the image hardly does so anywhere (`LITTLE`), and
    in small images, in which no fields are read. Kernels are those of the image made smaller by `scale`, and of display
    values or linear light (`in_light`). In large ones it is made smaller than that, to `LONGEST`.
    """
    if Places.over(*pixels.shape[-2:]) is None:
        return blur
    kernels, field = (blur.kernels, blur) if isinstance(blur, BlurField) else (blur, None)

    def seen(larger: float) -> BlurField | Tensor:
        """The blur in an image that is so many times larger."""
        own = kernels if larger == 1 else enlarged(kernels, larger)
        return replace(field, kernels=own) if field else own

    more = min(1.0, LONGEST / (max(pixels.shape[-2:]) * scale))
    left = missed(pipeline, reduced(pixels, scale * more), seen(more), in_light)
    refuted = 1 - believed(left)[0]  # (1, h, w)
    nearest = 1.0 if fits(blur, scale) else scale  # reducing takes detail away
    none = unblurred(pipeline, reduced(pixels, nearest), seen(nearest / scale))
    refuted = refuted.maximum(F.interpolate(none[None], size=refuted.shape[-2:], mode="bilinear")[0])
    if refuted.mean() < LITTLE:
        return blur
    rows, columns = refuted.shape[-2:]
    shares = field.shares_in(rows, columns, slice(None), slice(None)) if field else torch.ones_like(refuted)
    nothing = delta(1, kernels.shape[-1], kernels.device)
    return BlurField(torch.cat([kernels, nothing]), torch.cat([shares * (1 - refuted), refuted]))
