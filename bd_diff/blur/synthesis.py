"""Blur families over severity: kernels drawn in batches for training, and single blurs that can be named and stored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bd_diff.blur import kernels
from bd_diff.blur.kernels import SIZE


@dataclass(frozen=True)
class Family:
    """One kind of blur: what its parameter means, where it runs from and to, and the kernel it makes.

    `make(parameter (B,), angle (B,), generator, size) -> (B, k, k)`. `reach` is how far a kernel goes from its
    middle, in pixels per unit of the parameter. A family with a `step` takes only the values easiest, easiest + step,
    and so on. One that is `drawn` depends on the generator, too: a seed names one of its kernels.
    """

    make: Callable[[Tensor, Tensor, Generator, int], Tensor]
    parameter: str
    easiest: float
    hardest: float
    reach: float
    step: float = 0.0
    drawn: bool = False

    def scale(self, share: Tensor, severity: float) -> Tensor:
        """Parameters `(B,)` from uniform shares in [0, 1): uniform from the easiest to `severity` of the way up."""
        span = severity * (self.hardest - self.easiest)
        if self.step:
            return self.easiest + self.step * (share * (span // self.step + 1)).floor()
        return self.easiest + span * share


FAMILIES = {
    "delta": Family(lambda p, a, g, size: kernels.delta(len(p), size, p.device), "nothing", 0, 0, reach=0),
    "gaussian": Family(lambda p, a, g, size: kernels.gaussian(p, size), "sigma in pixels", 0.5, 3, reach=5),
    "box": Family(lambda p, a, g, size: kernels.box(p, size), "width in pixels, odd", 3, 29, reach=0.5, step=2),
    "line": Family(lambda p, a, g, size: kernels.line(p, a, size), "length in pixels", 5, 25, reach=0.5),
    "shake": Family(lambda p, a, g, size: kernels.shake(p, g, size), "extent in pixels", 6, 26, 0.5, drawn=True),
    "disc": Family(lambda p, a, g, size: kernels.disc(p, size), "radius in pixels", 1, 8, reach=1),
    "hand_shake": Family(
        lambda p, a, g, size: kernels.hand_shake(p, g, size), "extent in pixels", 4, 24, 0.6, drawn=True
    ),
    "ghost": Family(kernels.ghost, "distance in pixels", 3, 18, reach=0.9, drawn=True),
    "astigmatism": Family(kernels.astigmatism, "sigma in pixels", 0.6, 3.5, reach=5, drawn=True),
}

DIRECTED = ("line", "ghost", "astigmatism")  # families whose kernels have an angle

FIELD = 3  # kernels along each side of the image where blur varies


def check_families(names) -> None:
    """Raise `ValueError` for a family that does not exist."""
    if unknown := sorted(set(names) - set(FAMILIES)):
        raise ValueError(f"there is no blur family {', '.join(unknown)}; the families are {', '.join(FAMILIES)}")


def draw_kernels(
    batch: int,
    generator: Generator,
    families: Mapping[str, float],
    severity: float = 1.0,
    size: int = SIZE,
    device=None,
) -> tuple[Tensor, Tensor]:
    """Kernels `(B, k, k)` and, per kernel, which of `families` it is, counted in the mapping's order `(B,)`.

    `families` maps a name to its share, e.g. `{"delta": 0.1, "line": 0.9}`; `severity` in [0, 1] is how much of each
    family's range of parameters is open (see `bd_diff.blur.curriculum`). Everything random is drawn on the generator's
    device, so a CPU generator gives the same kernels on any `device` (default: the generator's).

    Raises `ValueError` for an unknown family, a severity outside [0, 1] or shares that are not positive.
    """
    check_families(families)
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}; it must be between 0 and 1")
    if not families or min(families.values()) < 0 or sum(families.values()) <= 0:
        raise ValueError(f"shares of the blur families are {dict(families)}; give at least one, none below 0")
    shares = torch.tensor(list(families.values()), dtype=torch.float32, device=generator.device)
    family = torch.multinomial(shares, batch, replacement=True, generator=generator)
    share, angle = torch.rand(2, batch, generator=generator, device=generator.device)
    drawn = torch.empty(batch, size, size, device=generator.device)
    for index, name in enumerate(families):
        mine = (family == index).nonzero()[:, 0]
        if len(mine):
            parameter = FAMILIES[name].scale(share[mine], severity)
            drawn[mine] = FAMILIES[name].make(parameter, math.pi * angle[mine], generator, size)
    return drawn.to(device), family.to(device)


def draw_fields(
    batch: int, generator: Generator, families: Mapping[str, float], variation: float = 0.0, device=None
) -> Tensor:
    """Kernels over each image of a batch, `(B, n, n, k, k)` as `blur_field` takes them, of `SIZE` pixels.

    n is 1, a kernel for the whole image; with a `variation` it is `FIELD` in every second batch, whose blur differs
    over the image by up to that (see `Blur`). Raises `ValueError` for a variation outside [0, 1] and for families as
    `draw_kernels` does.
    """
    if not 0 <= variation <= 1:
        raise ValueError(f"variation is {variation}; it must be between 0 and 1")
    kernels, chosen = draw_kernels(batch, generator, families)
    if not variation or torch.rand((), generator=generator) < 0.5:
        return kernels[:, None, None].to(device)
    most = variation * (1 - torch.rand(batch, generator=generator))  # never 0
    blurs = [
        draw_blur(list(families)[index], generator, variation=share)
        for index, share in zip(chosen.tolist(), most.tolist(), strict=True)
    ]
    return torch.stack([blur.field(SIZE) for blur in blurs]).to(device)


@dataclass(frozen=True)
class Blur:
    """One blur, in full: whoever stores `parameters()` can make the same blur again and apply it to another image.

    `parameter` is the family's (see `FAMILIES`), `angle` in radians, `seed` fixes a path. `variation` is how the
    blur differs over the image: 0 is one kernel for all of it. Shakes: rolling the camera moves the middle of an edge
    by up to `variation` times what shaking it does. Other families: the parameter grows by that share from the
    centre to the edge that `angle` points at, and shrinks by it to the opposite one.

    Raises `ValueError` for a family that does not exist.
    """

    family: str
    parameter: float = 0.0
    angle: float = 0.0
    seed: int = 0
    variation: float = 0.0

    def __post_init__(self):
        check_families([self.family])

    @property
    def name(self) -> str:
        """Short and readable, for file names and tables: `line-13.0px-045deg`."""
        words = [self.family]
        if self.family != "delta":
            words.append(f"{self.parameter:.1f}px")
        if self.family in DIRECTED:
            words.append(f"{math.degrees(self.angle):03.0f}deg")
        if FAMILIES[self.family].drawn:
            words.append(f"seed{self.seed}")
        if self.variation:
            words.append(f"varying{self.variation:.2f}")
        return "-".join(words)

    def parameters(self) -> dict[str, str | float | int]:
        """What a JSON file stores; `Blur(**parameters)` is this blur again."""
        return asdict(self)

    @property
    def window(self) -> int:
        """Pixels a side, odd, of a window that holds the kernel at every place of the image; at least `SIZE`."""
        corner = 1 + math.sqrt(2) * self.variation
        return max(SIZE, 2 * math.ceil(FAMILIES[self.family].reach * self.parameter * corner + 1) + 1)

    def kernel(self, size: int | None = None) -> Tensor:
        """The kernel `(k, k)` at the middle of the image, on the CPU; k is `size`, or the `window`."""
        size = size or self.window
        generator = torch.Generator().manual_seed(self.seed)
        parameter, angle = torch.tensor([[self.parameter], [self.angle]], dtype=torch.float32)
        return FAMILIES[self.family].make(parameter, angle, generator, size)[0]

    def field(self, size: int | None = None, along: int = FIELD) -> Tensor:
        """Kernels `(n, n, k, k)` on a grid of places in the image; n is `along`, or 1 where the blur does not vary."""
        size = size or self.window
        if not self.variation:
            return self.kernel(size)[None, None]
        places = torch.linspace(-1, 1, along)
        down, right = torch.meshgrid(places, places, indexing="ij")
        if self.family in ("shake", "hand_shake"):
            return self.rolling_shake(down.flatten(), right.flatten(), size).reshape(along, along, size, size)
        family = FAMILIES[self.family]
        growth = 1 + self.variation * (right * math.cos(self.angle) + down * math.sin(self.angle)).flatten()
        parameter = (self.parameter * growth).clamp_min(min(1.0, family.easiest))
        angle = torch.full_like(parameter, self.angle)
        # One by one, so that what is drawn is the same everywhere.
        made = [
            family.make(*one, torch.Generator().manual_seed(self.seed), size)
            for one in zip(parameter.split(1), angle.split(1), strict=True)
        ]
        return torch.cat(made).reshape(along, along, size, size)

    def rolling_shake(self, down: Tensor, right: Tensor, size: int) -> Tensor:
        """Kernels `(n, k, k)` of one camera path that shifts and rolls, seen at positions `(n,)` in [-1, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        extent, rolled = torch.tensor([[self.parameter], [self.parameter * self.variation]])
        time = pens = None
        if self.family == "shake":
            (rows, columns), roll = kernels.walk(extent, generator)[0], kernels.walk(rolled, generator)[0, 0]
        else:
            path, time = kernels.hand_path(extent, generator)
            pens = kernels.draw_pens(1, generator)
            (rows, columns), roll = path[0], kernels.hand_path(rolled, generator)[0][0, 0]
            time, pens = time.expand(len(down), -1), pens.expand(len(down), -1, -1)
        # A small turn by r moves the point (down, right) by r * (right, -down).
        drawn = kernels.splat(rows + right[:, None] * roll, columns - down[:, None] * roll, size, time)
        return drawn if pens is None else kernels.thicken(drawn, pens)

    def apply(self, images: Tensor, size: int | None = None) -> Tensor:
        """Blur images `(B, C, H, W)`, all by this blur; the border is reflected."""
        field = self.field(size).to(images.device)
        return blur_field(images, field.expand(len(images), *field.shape))


def draw_blur(family: str, generator: Generator, severity: float = 1.0, variation: float = 0.0) -> Blur:
    """One blur of a family, its parameter uniform over the open part of the range, its angle over half a turn."""
    check_families([family])
    share, angle = torch.rand(2, generator=generator, dtype=torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    return Blur(family, float(FAMILIES[family].scale(share, severity)), float(angle) * math.pi, seed, variation)


def blur_field(images: Tensor, fields: Tensor, mode: str = "reflect") -> Tensor:
    """Blur images `(B, C, H, W)` by kernels that change over the image; for `mode` see `bd_diff.blur.kernels.blur`.

    `fields (B, n, n, k, k)` holds kernels on a grid from corner to corner; between them they are interpolated
    bilinearly, so that every pixel still has weights that sum to one. n = 1 is one kernel for the whole image.
    """
    rows, columns = fields.shape[1:3]
    reach = fields.shape[-1] // 2
    lost = 2 * reach if mode == "valid" else 0
    height, width = images.shape[-2] - lost, images.shape[-1] - lost
    # Interpolating kernels is the same as interpolating their images, since a convolution is linear in its kernel.
    grid = torch.eye(rows * columns, device=images.device).reshape(1, -1, rows, columns)
    weights = F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)[0]  # (n * n, H, W)
    if mode == "reflect" and min(height, width) <= reach:
        mode = "replicate"
    return sum(
        weight * kernels.blur(images, kernel, mode)
        for weight, kernel in zip(weights, fields.flatten(1, 2).unbind(1), strict=True)
    )
