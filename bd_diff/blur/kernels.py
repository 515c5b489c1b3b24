"""Blur kernels `(B, k, k)` from their parameters, and the convolution that applies them.

Every kernel is non-negative and sums to one; k is odd. Parameters are tensors `(B,)`, in pixels or radians.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.convolution import convolve
from bd_diff.blur.convolution import transfer_function as transfer_function

SIZE = 33  # pixels a side: holds a shake of 26 px and a Gaussian of sigma 3 beyond 5 sigma


def grid(size: int, device=None) -> tuple[Tensor, Tensor]:
    """Row and column offsets of each pixel of a kernel from its centre, in pixels: two tensors `(k, k)`."""
    offsets = torch.arange(size, dtype=torch.float32, device=device) - size // 2
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    return rows, columns


def normalize(kernels: Tensor) -> Tensor:
    """Scale each kernel to sum to one."""
    return kernels / kernels.sum((-2, -1), keepdim=True).clamp_min(1e-8)


def delta(batch: int, size: int = SIZE, device=None) -> Tensor:
    """The kernel that leaves an image as it is."""
    kernels = torch.zeros(batch, size, size, device=device)
    kernels[:, size // 2, size // 2] = 1
    return kernels


def gaussian(sigma: Tensor, size: int = SIZE) -> Tensor:
    """Isotropic Gaussian, sampled at pixel centres."""
    rows, columns = grid(size, sigma.device)
    return normalize(torch.exp(-(rows**2 + columns**2) / (2 * sigma.reshape(-1, 1, 1) ** 2)))


def box(width: Tensor, size: int = SIZE) -> Tensor:
    """Square box `width` pixels wide (odd widths up to `size`): X-DECODE's blur."""
    rows, columns = grid(size, width.device)
    return normalize((torch.maximum(rows.abs(), columns.abs()) < width.reshape(-1, 1, 1) / 2).float())


def disc(radius: Tensor, size: int = SIZE) -> Tensor:
    """Kernels `(B, k, k)` of defocus: discs of radius `(B,)` in pixels, whose edge falls linearly over one pixel."""
    rows, columns = grid(size, radius.device)
    return normalize((radius.reshape(-1, 1, 1) + 0.5 - torch.hypot(rows, columns)).clamp(0, 1))


def splat(rows: Tensor, columns: Tensor, size: int = SIZE, time: Tensor | None = None) -> Tensor:
    """Kernel of a path: points `(B, n)`, offsets from the centre, shared bilinearly among their four pixels; those that
    leave the window are lost. `time` `(B, n)` is how long the camera stays at each, by default equally long.
    """
    reach = size // 2
    kernels = torch.zeros(rows.shape[0], size * size, device=rows.device)
    inside = torch.maximum(rows.abs(), columns.abs()) <= reach
    inside = inside if time is None else inside * time
    rows, columns = (points.clamp(-reach, reach - 1e-3) + reach for points in (rows, columns))
    top, left = rows.floor(), columns.floor()
    for row, row_share in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, column_share in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            kernels.scatter_add_(1, (row * size + column).long(), row_share * column_share * inside)
    return normalize(kernels.reshape(-1, size, size))


def line(length: Tensor, angle: Tensor, size: int = SIZE) -> Tensor:
    """Linear motion over `length` pixels (1 is no blur), `angle` radians from the horizontal."""
    steps = torch.linspace(-0.5, 0.5, 4 * size, device=length.device)
    along = (length - 1).reshape(-1, 1) * steps
    return splat(along * angle.sin().reshape(-1, 1), along * angle.cos().reshape(-1, 1), size)


def walk(extent: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Smooth random paths `(B, 2, n)`, rows and columns about their mean, that reach `extent` / 2 pixels from it.

    The velocity is a first-order autoregression pulled weakly back to the start, as in the random trajectories of
    Kupyn et al. (DeblurGAN, 2018). Drawn on the generator's device, so a CPU generator gives the same path anywhere.
    """
    batch, steps = extent.shape[0], 64
    noise = torch.randn(steps + 1, batch, 2, generator=generator, device=generator.device if generator else None)
    velocity, position, positions = 0.5 * noise[0], torch.zeros(batch, 2, device=noise.device), []
    for push in noise[1:]:
        velocity = 0.85 * velocity + 0.5 * push - 0.02 * position
        position = position + velocity
        positions.append(position)
    path = torch.stack(positions, -1).to(extent.device)  # (B, 2, steps)
    path = path - path.mean(-1, keepdim=True)
    path = path / path.abs().amax((1, 2), keepdim=True).clamp_min(1e-6) * extent.reshape(-1, 1, 1) / 2
    return F.interpolate(path, scale_factor=8, mode="linear", align_corners=True)


def shake(extent: Tensor, generator: torch.Generator | None = None, size: int = SIZE) -> Tensor:
    """Camera shake: the kernel of a random `walk`."""
    rows, columns = walk(extent, generator).unbind(1)
    return splat(rows, columns, size)


def hand_path(extent: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Paths `(B, 2, n)` of a camera held by hand, about their centroid, and the time spent at each point `(B, n)`.

    Smoother than a `walk`, as the paths behind measured kernels are (Levin et al., "Understanding and evaluating blind
    deconvolution algorithms", 2009): a drift and a few sways whose amplitude falls with their frequency, as the spectra
    of hand tremor do. The speed varies by a factor of a few, and every second path has a point where the camera rests
    for up to half of the exposure. Like a `walk` it reaches `extent` / 2 pixels. The constants are ours.
    """
    batch, points, sways = extent.shape[0], 256, 5
    device = generator.device if generator else None
    moment = torch.linspace(0, 1, points, device=device)
    frequency = 0.5 * torch.arange(1, sways + 1, device=device)  # cycles an exposure
    amplitude = torch.randn(batch, 3, sways, generator=generator, device=device) / frequency**1.5
    phase = 2 * math.pi * torch.rand(batch, 3, sways, 1, generator=generator, device=device)
    waves = torch.sin(2 * math.pi * frequency[:, None] * moment + phase)
    curves = (amplitude[..., None] * waves).sum(2)  # (B, 3, n): rows, columns, slowness
    slowness = torch.softmax(0.4 * curves[:, 2], -1)
    where, share = torch.rand(2, batch, 1, generator=generator, device=device)
    rest = torch.softmax(-((moment - where) / 0.01).square(), -1)
    time = slowness.lerp(rest, (share - 0.5).clamp_min(0))
    path = curves[:, :2]
    path = path - (path * time[:, None]).sum(-1, keepdim=True)
    longest = path.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
    return (path / longest).to(extent.device) * extent.reshape(-1, 1, 1) / 2, time.to(extent.device)


def hand_shake(extent: Tensor, generator: torch.Generator | None = None, size: int = SIZE) -> Tensor:
    """Camera shake as measured: a smooth `hand_path`, thick (see `draw_pens`)."""
    path, time = hand_path(extent, generator)
    thin = splat(path[:, 0], path[:, 1], size, time)
    return thicken(thin, draw_pens(len(extent), generator, extent.device))


def draw_pens(batch: int, generator: torch.Generator | None = None, device=None) -> Tensor:
    """Small kernels `(B, 17, 17)` as thick as a lens and a sensor draw a path: a Gaussian of deviation 0.3 to 2 pixels
    or, even chances, a disc of the same deviation (half its radius).
    """
    thinnest, thickest = 0.3, 2.0
    drawn = torch.rand(2, batch, generator=generator, device=generator.device if generator else None)
    share, kind = drawn.to(device)
    deviation = thinnest + (thickest - thinnest) * share
    size = 2 * math.ceil(4 * thickest) + 1
    return torch.where((kind < 0.5)[:, None, None], gaussian(deviation, size), disc(2 * deviation, size))


def thicken(kernels: Tensor, pens: Tensor) -> Tensor:
    """Kernels `(B, k, k)`, each drawn by its pen `(B, p, p)`; what leaves the window is lost."""
    padded = F.pad(kernels[:, None], (pens.shape[-1] // 2,) * 4)
    return normalize(convolve(padded, pens)[:, 0].clamp_min(0))


def ghost(distance: Tensor, angle: Tensor, generator: torch.Generator | None = None, size: int = SIZE) -> Tensor:
    """A double image: the camera rests at two points, `distance` pixels apart, and is seen moving between them little
    or not at all; about the centroid, thick (see `draw_pens`).
    """
    device = generator.device if generator else None
    drawn = torch.rand(2, len(angle), 1, generator=generator, device=device).to(angle.device)
    share, moving = 0.3 + 0.4 * drawn[0], (drawn[1] - 0.5).clamp_min(0)
    steps = torch.linspace(0, 1, 4 * size, device=angle.device)
    time = moving / len(steps) + (1 - moving) * torch.where(steps == 0, 1 - share, torch.where(steps == 1, share, 0.0))
    along = (steps - (steps * time).sum(-1, keepdim=True)) * distance[:, None]
    thin = splat(along * angle.sin()[:, None], along * angle.cos()[:, None], size, time)
    return thicken(thin, draw_pens(len(angle), generator, angle.device))


def astigmatism(sigma: Tensor, angle: Tensor, generator: torch.Generator | None = None, size: int = SIZE) -> Tensor:
    """A lens that does not focus alike in all directions: an elliptic Gaussian, `sigma` along its longer axis at
    `angle` and 0.3 to 1 times that across, in a halo of up to a third of the light that falls off exponentially, in 2
    to 6 pixels, as light scattered in lenses does.
    """
    device = generator.device if generator else None
    ratio, share, fall = torch.rand(3, len(sigma), generator=generator, device=device).to(sigma.device)[..., None, None]
    rows, columns = grid(size, sigma.device)
    sigma, angle = sigma.reshape(-1, 1, 1), angle.reshape(-1, 1, 1)
    along, across = columns * angle.cos() + rows * angle.sin(), rows * angle.cos() - columns * angle.sin()
    core = normalize(torch.exp(-0.5 * (along.square() + (across / (0.3 + 0.7 * ratio)).square()) / sigma.square()))
    halo = normalize(torch.exp(-torch.hypot(rows, columns) / (2 + 4 * fall)))
    return core.lerp(halo, share / 3)


def blur(images: Tensor, kernels: Tensor, mode: str = "reflect") -> Tensor:
    """Convolve each image `(B, C, H, W)` with its own kernel `(B, k, k)`.

    The border is reflected (`"replicate"` for images not larger than k // 2); `"valid"` gives only the pixels whose
    whole neighbourhood was seen, `(B, C, H - k + 1, W - k + 1)`.
    """
    reach = kernels.shape[-1] // 2
    if mode != "valid":
        images = F.pad(images, (reach,) * 4, mode=mode)
    return convolve(images, kernels)


def centre(kernels: Tensor, whole_pixels: bool = False) -> Tensor:
    """Shift each kernel so that its centroid is the middle pixel; what leaves the window is lost."""
    size = kernels.shape[-1]
    rows, columns = grid(size, kernels.device)
    mass = kernels.sum((-2, -1)).clamp_min(1e-8)
    shift = torch.stack([(kernels * columns).sum((-2, -1)) / mass, (kernels * rows).sum((-2, -1)) / mass], -1)
    if whole_pixels:
        shift = shift.round()
    positions = torch.stack([columns, rows], -1) + shift[:, None, None]
    moved = F.grid_sample(kernels[:, None], positions / (size // 2), align_corners=True, padding_mode="zeros")
    return normalize(moved[:, 0])


def same_size(kernels: list[Tensor]) -> list[Tensor]:
    """Kernels `(..., k, k)` of different odd sizes with margins of zeros, to the largest of these."""
    size = max(one.shape[-1] for one in kernels)
    return [F.pad(one, ((size - one.shape[-1]) // 2,) * 4) for one in kernels]


def shape_of(kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a kernel `(k, k)`: standard deviation in pixels, and its elongation as (cosine, sine) of twice its direction.

    The elongation is 0 for a round kernel and 1 for a line: a direction counts as far as there is one.
    """
    rows, columns = grid(kernel.shape[-1], kernel.device)
    rows, columns = rows - (rows * kernel).sum(), columns - (columns * kernel).sum()
    down, right, both = ((a * b * kernel).sum() for a, b in ((rows, rows), (columns, columns), (-rows, columns)))
    total = (down + right).clamp_min(1e-6)
    return total.sqrt(), (right - down) / total, 2 * both / total
