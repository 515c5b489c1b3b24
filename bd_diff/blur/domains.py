"""Named blur domains: distributions of blur and camera, to train on one and to test on another.

No target domain shares both a blur family and the camera with `source`, so a model trained on `source` has not seen it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from bd_diff.blur.camera import Camera
from bd_diff.blur.synthesis import Blur, draw_blur


@dataclass(frozen=True)
class Domain:
    """A distribution of blur and camera: shares of the blur families, and ranges of the other parameters.

    variation: how far blur differs over an image, up to this (see `Blur`). curve: of the camera. highlights, shot,
    read, jpeg: ranges (from, to) from which each image's camera is drawn; noise and highlights evenly in the logarithm.
    Noise is on the scale of light, where 1e-3 in the dark is 4 % of the display's range at a curve of 2.2.
    """

    description: str
    families: Mapping[str, float]
    variation: float = 0.0
    curve: float | str = 1.0
    highlights: tuple[float, float] = (1.0, 1.0)
    shot: tuple[float, float] = (0.0, 0.0)
    read: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[int, int] = (0, 0)

    def draw(self, generator: Generator, severity: float = 1.0) -> tuple[Blur, Camera]:
        """The blur and the camera of one photograph, from a CPU generator."""
        shares = torch.tensor(list(self.families.values()), dtype=torch.float64)
        family = list(self.families)[int(torch.multinomial(shares, 1, generator=generator))]
        vary, *light, quality = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        blur = draw_blur(family, generator, severity, self.variation * (0.5 + 0.5 * vary))
        highlights, shot, read = (
            between(*ends, share) for ends, share in zip((self.highlights, self.shot, self.read), light, strict=True)
        )
        jpeg = round(self.jpeg[0] + quality * (self.jpeg[1] - self.jpeg[0]))
        return blur, Camera(self.curve, highlights, shot, read, jpeg)


def between(low: float, high: float, share: float) -> float:
    """The value at `share` of the way from `low` to `high`, evenly in the logarithm; `low` if both are equal."""
    return low if low == high else math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


DOMAINS = {
    "source": Domain(
        "Gaussian and linear motion of display values, a little noise: what everybody trains on",
        families={"gaussian": 0.5, "line": 0.5},
        read=(0.5 / 255, 4 / 255),
    ),
    "night-shake": Domain(
        "camera shake in linear light with lamps far brighter than white, shot noise, JPEG: phones at night",
        families={"shake": 1.0},
        curve=2.2,
        highlights=(2.0, 20.0),
        shot=(2e-4, 2e-3),
        read=(5e-4, 3e-3),
        jpeg=(70, 95),
    ),
    "rolling-shake": Domain(
        "camera shake with roll, different in every corner, averaged along the sRGB curve: long exposures by hand",
        families={"shake": 1.0},
        variation=0.8,
        curve="srgb",
        read=(2e-4, 1e-3),
    ),
    "defocus": Domain(
        "out of focus, more to one side of the image, with sensor noise: a lens set to the wrong distance",
        families={"disc": 1.0},
        variation=0.4,
        curve=2.2,
        shot=(1e-4, 1e-3),
        read=(5e-4, 2e-3),
    ),
    "extreme": Domain(
        "X-DECODE's box blur of 3 to 29 pixels, no noise",
        families={"box": 1.0},
    ),
}
DOMAINS["steady-shake"] = replace(
    DOMAINS["rolling-shake"], description="rolling-shake on the same paths without the roll", variation=0.0
)


def find_domain(name: str) -> Domain:
    """The domain of this name. Raises `ValueError` with the existing names for an unknown one."""
    if name not in DOMAINS:
        raise ValueError(f"there is no blur domain {name!r}; the domains are {', '.join(DOMAINS)}")
    return DOMAINS[name]


def photograph(image: Tensor, blur: Blur, camera: Camera, generator: Generator) -> Tensor:
    """One sharp image `(3, H, W)` in [0, 1], blurred and photographed by the camera; same shape."""
    return camera.capture(image[None], blur.field()[None].to(image.device), generator)[0]
