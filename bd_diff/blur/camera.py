"""A camera model: blur in linear light, clipped highlights, sensor noise and JPEG compression."""

from dataclasses import asdict, dataclass

import torch
from torch import Generator, Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from bd_diff.blur.synthesis import blur_field

WHITE = 0.98  # (ours) display values from which pixels count as clipped


def to_light(images: Tensor, curve: float | str) -> Tensor:
    """Display values in [0, 1] to linear light in [0, 1]; the curve is "srgb" (IEC 61966-2-1) or a gamma exponent."""
    if curve == "srgb":
        curved = images.clamp_min(0.04045).add_(0.055).div_(1.055) ** 2.4
        return torch.where(images <= 0.04045, images / 12.92, curved)
    exponent = float(curve)
    return images if exponent == 1 else images.clamp_min(0) ** exponent


def to_display(light: Tensor, curve: float | str) -> Tensor:
    """The inverse of `to_light`."""
    if curve == "srgb":
        curved = (light.clamp_min(0.0031308) ** (1 / 2.4)).mul_(1.055).sub_(0.055)
        return torch.where(light <= 0.0031308, light * 12.92, curved)
    exponent = float(curve)
    return light if exponent == 1 else light.clamp_min(0) ** (1 / exponent)


@dataclass(frozen=True)
class Camera:
    """Turns a sharp image into a photograph of it.

    curve: how display values become the light that blur averages: "srgb", or a gamma exponent; 1 blurs the display
        values themselves (GoPro's blur_gamma has about 2.2, its blur 1).
    highlights: how many times brighter than white clipped pixels really were; 1 is no brighter. Blur then makes light
        streaks and saturated lamps of them (as in RSBlur, Rim et al. 2022).
    shot, read: Poisson-Gaussian noise of variance `shot * light + read^2` (Foi et al. 2008), on the scale of [0, 1].
    jpeg: JPEG quality, 1 to 100; 0 is no compression.
    """

    curve: float | str = 1.0
    highlights: float = 1.0
    shot: float = 0.0
    read: float = 0.0
    jpeg: int = 0

    def __post_init__(self):
        if self.curve != "srgb" and not (isinstance(self.curve, int | float) and self.curve > 0):
            raise ValueError(f"camera curve is {self.curve!r}; it must be 'srgb' or a gamma exponent above 0")
        if self.highlights < 1 or self.shot < 0 or self.read < 0 or not 0 <= self.jpeg <= 100:
            raise ValueError(f"{self} needs highlights of at least 1, noise of at least 0 and a quality of 0 to 100")

    def parameters(self) -> dict[str, str | float | int]:
        """What a JSON file stores; `Camera(**parameters)` is this camera again."""
        return asdict(self)

    def capture(self, images: Tensor, fields: Tensor, generator: Generator) -> Tensor:
        """Photograph sharp images `(B, 3, H, W)` in [0, 1] through kernels `(B, k, k)` or fields `(B, n, n, k, k)`.

        Returns images of the same shape in [0, 1]. Noise is drawn on the generator's device.
        """
        if fields.ndim == 3:
            fields = fields[:, None, None]
        return self.develop(blur_field(self.light(images), fields), generator)

    def light(self, images: Tensor) -> Tensor:
        """The light of sharp images `(B, 3, H, W)` in [0, 1], 1 is white; `highlights` are brighter."""
        light = to_light(images, self.curve)
        if self.highlights > 1:
            light = light * torch.where(images.amin(1, keepdim=True) >= WHITE, self.highlights, 1.0)
        return light

    def develop(self, light: Tensor, generator: Generator) -> Tensor:
        """The photograph `(B, 3, H, W)` in [0, 1] of light that came in: with noise, cut at white, compressed."""
        light = add_noise(light, self.shot, self.read, generator)
        return compress(to_display(light.clamp(0, 1), self.curve), self.jpeg)


def add_noise(light: Tensor, shot: float | Tensor, read: float | Tensor, generator: Generator) -> Tensor:
    """Light `(B, C, H, W)` plus noise of variance `shot * light + read^2`; shot and read are numbers or `(B,)`."""
    shot, read = (torch.as_tensor(value, device=light.device).reshape(-1, 1, 1, 1) for value in (shot, read))
    noise = torch.randn(light.shape, generator=generator, device=generator.device).to(light.device)
    deviation = (shot * light.clamp_min(0) + read**2).sqrt() if shot.any() else read
    return noise.mul_(deviation).add_(light)


@dataclass(frozen=True)
class RandomCamera:
    """The camera that training uses, with noise, curve and JPEG quality drawn for every photograph.

    noise: the largest standard deviation, on the scale of [0, 1]; each photograph's is noise * u^noise_skew, u uniform,
        so that a skew above 1 gives most photographs little noise.
    curve: as in `Camera`; the share `curve_share` is blurred in linear light, the rest in display values.
    jpeg: the share `jpeg_share` is compressed with a quality from this one to 95; 0 is no compression.
    """

    noise: float = 2 / 255
    curve: float | str = 1.0
    curve_share: float = 1.0
    jpeg: int = 0
    jpeg_share: float = 0.5
    noise_skew: float = 1.0

    def __post_init__(self):
        Camera(self.curve, read=self.noise, jpeg=self.jpeg)  # checks the values

    def capture(self, sharp: Tensor, fields: Tensor, generator: Generator) -> Tensor:
        """Photograph sharp images `(B, 3, H, W)` in [0, 1] through kernels `(B, k, k)` or fields `(B, n, n, k, k)`.

        Returns `(B, 3, H - k + 1, W - k + 1)` in [0, 1]: only pixels whose blur lies inside the sharp image.
        """
        if fields.ndim == 3:
            fields = fields[:, None, None]
        shape, device = (len(sharp), 1, 1, 1), generator.device
        lit = torch.ones(shape, dtype=torch.bool, device=device)
        if self.curve_share < 1:
            lit = torch.rand(shape, generator=generator, device=device) < self.curve_share
        lit = lit.to(sharp.device)
        blurry = blur_field(torch.where(lit, to_light(sharp, self.curve), sharp), fields, mode="valid")
        blurry = torch.where(lit, to_display(blurry, self.curve), blurry)
        if self.noise:
            sigma = self.noise * torch.rand(shape, generator=generator, device=device) ** self.noise_skew
            grain = torch.randn(blurry.shape, generator=generator, device=device)
            blurry = blurry + (sigma * grain).to(blurry.device)
        blurry = blurry.clamp(0, 1)
        if self.jpeg:
            quality = torch.randint(self.jpeg, 96, (len(sharp),), generator=generator)
            blurry = compress(blurry, quality * (torch.rand(len(sharp), generator=generator) < self.jpeg_share))
        return blurry


def compress(images: Tensor, quality: int | Tensor) -> Tensor:
    """Images `(B, 3, H, W)` in [0, 1] after JPEG compression; quality is one number or `(B,)`, 0 changes nothing."""
    qualities = torch.as_tensor(quality).reshape(-1).expand(len(images)).tolist()
    photographs = torch.empty_like(images)
    for photograph, image, q in zip(photographs, images, qualities, strict=True):
        photograph.copy_(through_jpeg(image, int(q)) if q else image)
    return photographs


def through_jpeg(image: Tensor, quality: int) -> Tensor:
    """One image `(3, H, W)` in [0, 1] encoded and decoded at a quality of 1 to 100."""
    pixels = (image * 255).round_().clamp_(0, 255).to("cpu", torch.uint8)
    return decode_jpeg(encode_jpeg(pixels, quality)).to(image).div_(255)
