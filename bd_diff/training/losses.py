"""Losses between images `(B, 3, H, W)` in [0, 1] or kernels, and the hinge losses of a GAN: means; lower is better."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from bd_diff.blur.kernels import transfer_function
from bd_diff.blur.operator import natural_power

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sobel(images: Tensor, target: Tensor) -> Tensor:
    """Mean |S_x(y) - S_x(y')| + |S_y(y) - S_y(y')| with the 3x3 Sobel filters, where they fit inside the image."""
    rows = images.new_tensor([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])
    filters = torch.stack([rows, rows.T])[:, None]
    edges = F.conv2d((images - target).flatten(0, 1)[:, None], filters)  # (B C, 2, H - 2, W - 2)
    return edges.abs().sum(1).mean()


def fourier(images: Tensor, target: Tensor) -> Tensor:
    """Mean |F(y) - F(y')|, F the orthonormal 2-D FFT, so that the weight does not depend on the image's size."""
    return torch.fft.fft2((images - target).float(), norm="ortho").abs().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator, mean relu(1 - D(real)) + mean relu(1 + D(fake)), a scalar.

    real, fake: its raw scores, of any shape, of real and of generated images.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Hinge loss of a generator, -mean D(fake), a scalar; fake: the discriminator's raw scores of generated images."""
    return -fake.mean()


def vgg16_features() -> nn.Module:
    """VGG16 up to relu3_3 with torchvision's ImageNet weights, from its cache or else from the network.

    Raises OSError, with what to do, where the weights cannot be had.
    """
    weights = models.VGG16_Weights.IMAGENET1K_V1
    try:
        network = models.vgg16(weights=weights)
    except (OSError, RuntimeError) as error:  # no network; a file whose hash is not the published one
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise OSError(
            f"the perceptual loss needs VGG16's weights: place {weights.url} at {place}, or set its weight to 0"
        ) from error
    return network.features[:16]


class Perceptual(nn.Module):
    """L1 between features of an ImageNet network (VGG16's relu3_3 by default), which is frozen.

    features: ImageNet-normalised images -> features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module | None = None):
        super().__init__()
        self.features = (vgg16_features() if features is None else features).eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        def features(these: Tensor) -> Tensor:
            return self.features((these - self.mean) / self.std)

        return F.l1_loss(features(images), features(target))


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mae": F.l1_loss,
    "mse": F.mse_loss,
    "sobel": sobel,
    "fourier": fourier,
}


def weighted_sum(weights: Mapping[str, float], losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses named in `weights` (at least one), each times its weight."""
    first, *others = (weight * losses[name] for name, weight in weights.items())
    return sum(others, start=first)


class WeightedLosses(nn.Module):
    """The sum of losses by name, `mae`, `mse`, `sobel`, `fourier` and `perceptual`, each with a weight.

    A loss of weight 0 is neither built nor computed: without the perceptual one no weights of VGG16 are needed.
    Returns `{"loss": sum, name: unweighted value, ...}`. Raises ValueError for an unknown name or a negative weight.
    """

    def __init__(self, weights: Mapping[str, float], perceptual: Callable[[], nn.Module] = Perceptual):
        super().__init__()
        available = [*PIXEL_LOSSES, "perceptual"]
        if unknown := sorted(set(weights) - set(available)):
            raise ValueError(f"there is no loss {unknown[0]!r}; the losses are {', '.join(available)}")
        if min(weights.values(), default=0) < 0 or not any(weights.values()):
            raise ValueError(f"loss weights are {dict(weights)}; give at least one above 0 and none below")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if "perceptual" in self.weights:
            self.perceptual = perceptual()

    def forward(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        losses = {
            name: PIXEL_LOSSES[name](images, target) if name in PIXEL_LOSSES else self.perceptual(images, target)
            for name in self.weights
        }
        return {"loss": weighted_sum(self.weights, losses), **losses}


def kernel_loss(estimated: Tensor, true: Tensor) -> Tensor:
    """How differently two kernels `(B, k, k)` blur, as a scalar (ours).

    Root mean square of the difference of the transfer functions, weighted like natural spectra, so that what matters is
    what they do to photographs; the same of the magnitudes, which a kernel mirrored by mistake gets right; and half the
    L1 distance of both kernels smoothed by one pixel.
    """
    side = 2 * (true.shape[-1] - 1)  # 64 for kernels of 33 pixels
    A, B = (transfer_function(kernels, side, side) for kernels in (estimated, true))
    weight = natural_power(side, device=true.device)
    difference = ((A - B).abs().square() * weight / weight.mean()).mean((1, 2)).add(1e-8).sqrt()
    milder = weight.sqrt() / weight.sqrt().mean()
    magnitude = ((A.abs() - B.abs()).square() * milder).mean((1, 2)).add(1e-8).sqrt()
    offsets = torch.arange(-3.0, 4.0, device=true.device)
    profile = torch.exp(-offsets.square() / 2)
    profile = profile / profile.sum()
    smoothed = F.conv2d((estimated - true)[:, None], (profile[:, None] * profile)[None, None], padding=3)
    return (difference + magnitude + 0.5 * smoothed.abs().sum((1, 2, 3))).mean()
