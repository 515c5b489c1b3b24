"""Image metrics `(B, 3, H, W) x (B, 3, H, W) -> (B,)` on values in [0, 1], with the conventions they are published in.

All are computed in float64 on the images as given. What is compared (8 bit or not, RGB or Y, aligned or not) is the
protocol's business: `bd_diff.evaluation.protocols`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.data.pixels import luminance
from bd_diff.evaluation.card_tables import IDENTICAL

REGISTERED_SHIFT = 8  # pixels; a quarter of the largest kernel (ours)


def check_pair(a: Tensor, b: Tensor) -> None:
    """Raise `ValueError` unless both are batches of images of one size."""
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(
            f"images of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared; both (B, C, H, W)"
        )


def y_channel(images: Tensor) -> Tensor:
    """MATLAB's rgb2ycbcr Y `(B, 1, H, W)`, from 16/255 to 235/255: what papers mean by "PSNR on Y"."""
    return (16 + 219 * luminance(images)) / 255


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB over all channels and pixels of an image; at most `IDENTICAL`.

    Equal to scikit-image's peak_signal_noise_ratio(..., data_range). With a `mask` `(B, 1, H, W)` of zeros and ones,
    over the pixels where it is one. Higher is better.
    """
    check_pair(a, b)
    error = (a.double() - b.double()).square()
    if mask is not None:
        error = error * mask / mask.mean((1, 2, 3), keepdim=True, dtype=torch.float64)
    error = error.mean((1, 2, 3)) / data_range**2
    return -10 * error.clamp_min(10 ** (-IDENTICAL / 10)).log10()


def psnr_registered(a: Tensor, b: Tensor) -> Tensor:
    """The best PSNR in dB over whole shifts of `a` of up to `REGISTERED_SHIFT` pixels either way, where both overlap.

    A kernel's place is not told by a photograph: a result may be right and lie a pixel beside its truth, which plain
    PSNR punishes more than blur. Higher is better. Raises `ValueError` for images that are too small to be shifted.
    """
    check_pair(a, b)
    reach, (height, width) = REGISTERED_SHIFT, a.shape[-2:]
    if min(height, width) <= 2 * reach:
        raise ValueError(f"registered PSNR needs sides of more than {2 * reach} pixels; these are {height}x{width}")
    inside = b[..., reach:-reach, reach:-reach]  # the same pixels of the truth for every shift
    return torch.stack(
        [
            psnr(a[..., down : down + inside.shape[-2], right : right + inside.shape[-1]], inside)
            for down in range(2 * reach + 1)
            for right in range(2 * reach + 1)
        ]
    ).amax(0)


def ssim(a: Tensor, b: Tensor, gaussian: bool = False, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over the pixels whose window lies inside, then over channels.

    By default scikit-image's structural_similarity(..., channel_axis, data_range): a 7x7 uniform window and sample
    covariances. `gaussian=True` is the paper's and MATLAB's: an 11x11 Gaussian of sigma 1.5, population covariances
    (torchmetrics' differs by averaging over the border too). With a `mask` `(B, 1, H, W)` of zeros and ones, the mean
    is over the windows whose middle is one. Higher is better, at most 1.

    Raises `ValueError` for images smaller than the window.
    """
    check_pair(a, b)
    size, sample = (11, 1.0) if gaussian else (7, 49 / 48)
    if min(a.shape[-2:]) < size:
        raise ValueError(f"SSIM needs images of at least {size}x{size} pixels; these are {a.shape[-2]}x{a.shape[-1]}")
    window = gaussian_window(a.device) if gaussian else torch.full((7,), 1 / 7, dtype=torch.float64, device=a.device)

    def local_mean(x: Tensor) -> Tensor:
        channels = x.flatten(0, 1)[:, None]
        smooth = F.conv2d(F.conv2d(channels, window.reshape(1, 1, 1, -1)), window.reshape(1, 1, -1, 1))
        return smooth.reshape(*x.shape[:2], *smooth.shape[-2:])

    similarity = similarity_map(a.double() / data_range, b.double() / data_range, local_mean, sample)
    if mask is None:
        return similarity.mean((1, 2, 3))
    edge = size // 2
    inside = mask[..., edge:-edge, edge:-edge].double()
    return ((similarity * inside).sum((2, 3)) / inside.sum((2, 3))).mean(1)


def ssim_volume(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of an image as one volume of height, width and colour: an 11x11x11 Gaussian, borders repeated, no cropping.

    What MATLAB's ssim does to a colour image, and what the GoPro and HIDE tables of NAFNet and its kin report. A few
    thousandths above the mean over channels. Higher is better, at most 1.
    """
    check_pair(a, b)
    window = gaussian_window(a.device)

    def local_mean(x: Tensor) -> Tensor:
        for axis in (1, 2, 3):
            last = x.movedim(axis, -1)
            padded = F.pad(last.reshape(1, -1, last.shape[-1]), (5, 5), mode="replicate")
            x = F.conv1d(padded.transpose(0, 1), window.reshape(1, 1, -1)).reshape(last.shape).movedim(-1, axis)
        return x

    return similarity_map(a.double(), b.double(), local_mean, 1.0).mean((1, 2, 3))


def gaussian_window(device) -> Tensor:
    """Wang et al.'s window along one side: 11 weights of a Gaussian of sigma 1.5."""
    offsets = torch.arange(11, dtype=torch.float64, device=device) - 5
    weights = torch.exp(-(offsets**2) / (2 * 1.5**2))
    return weights / weights.sum()


def similarity_map(a: Tensor, b: Tensor, local_mean: Callable[[Tensor], Tensor], sample: float) -> Tensor:
    """SSIM at each pixel of float64 images of range 1; `sample` corrects covariances for the size of the sample."""
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = sample * (local_mean(a * a) - mean_a**2)
    variance_b = sample * (local_mean(b * b) - mean_b**2)
    covariance = sample * (local_mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2  # the paper's K1 and K2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return alike / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))


def gradient_magnitude(images: Tensor) -> Tensor:
    """Length of the gradient `(B, H, W)` of grey images `(B, 1, H, W)` by Prewitt / 3, zeros outside the image."""
    prewitt = torch.tensor([[1.0, 0.0, -1.0]], dtype=images.dtype, device=images.device).expand(3, 3) / 3
    across_and_down = F.conv2d(images, torch.stack([prewitt, prewitt.T])[:, None], padding=1)
    return across_and_down.square().sum(1).sqrt()


def gmsd(a: Tensor, b: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of luminance; lower is better, 0 is identical.

    As the authors' code: 2x2 averages, Prewitt / 3, constant 170 on the scale of 255, deviation over n - 1. Of an odd
    side the last line is dropped.
    """
    check_pair(a, b)
    of_a, of_b = (gradient_magnitude(F.avg_pool2d(luminance(images.double()), 2)) for images in (a, b))
    constant = 170 / 255**2
    similarity = (2 * of_a * of_b + constant) / (of_a**2 + of_b**2 + constant)
    return similarity.flatten(1).std(1)


def gradient_energy_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Energy of the luminance differences between neighbours in `a` over that in `b`: 1 is as sharp as `b`.

    Below 1 is blurrier; above 1 sharper, or noisier. Two images without any gradient give 1.
    """
    check_pair(a, b)
    energies = []
    for images in (a, b):
        grey = luminance(images.double())
        energies.append(grey.diff(dim=-1).square().sum((1, 2, 3)) + grey.diff(dim=-2).square().sum((1, 2, 3)))
    return (energies[0] + 1e-12) / (energies[1] + 1e-12)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM (Wang et al. 2003), five scales, 11x11 Gaussian windows, by torchmetrics; higher is better."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    check_pair(a, b)
    if min(a.shape[-2:]) < 176:
        raise ValueError(
            f"MS-SSIM needs both sides of at least 176 pixels; these images are {a.shape[-2]}x{a.shape[-1]}"
        )
    return multiscale_structural_similarity_index_measure(a.double(), b.double(), data_range=1.0, reduction="none")


@cache
def perceptual_network(name: str) -> torch.nn.Module:
    """torchmetrics' LPIPS (AlexNet) or DISTS network; `ValueError` where its weights cannot be loaded."""
    try:
        if name == "LPIPS":
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            return LearnedPerceptualImagePatchSimilarity("alex").net
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork().eval()
    except Exception as error:  # a missing package, no network, a server that answers with something else
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} needs ImageNet weights that are downloaded on first use, and could not get them ({reason}); "
            f"connect once, put the file into {weights_folder()} by hand, or leave {name} out"
        ) from error


def weights_folder() -> str:
    """Where torch looks for downloaded weights before it downloads them; the variable TORCH_HOME moves it."""
    return f"{torch.hub.get_dir()}/checkpoints"


@torch.no_grad()
def lpips(a: Tensor, b: Tensor) -> Tensor:
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018), by torchmetrics; lower is better."""
    check_pair(a, b)
    network = perceptual_network("LPIPS").to(a.device)
    return network(a.float().clamp(0, 1), b.float().clamp(0, 1), normalize=True).reshape(-1).double()


@torch.no_grad()
def dists(a: Tensor, b: Tensor) -> Tensor:
    """DISTS (Ding et al. 2020), by torchmetrics, at the size of the images; lower is better."""
    check_pair(a, b)
    network = perceptual_network("DISTS").to(a.device)
    return network(a.float().clamp(0, 1), b.float().clamp(0, 1)).reshape(-1).double()


@cache
def reference_free_network(name: str) -> torch.nn.Module:
    """A metric of pyiqa; `ValueError` where it cannot be loaded."""
    try:
        import pyiqa

        return pyiqa.create_metric(name)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} needs the package pyiqa (pip install 'bd-diff[noref]') and weights that it downloads, and could "
            f"not get them ({reason}); leave {name} out"
        ) from error


@torch.no_grad()
def reference_free(name: str, images: Tensor, truths: Tensor) -> Tensor:
    """NIQE, MUSIQ or CLIP-IQA of `images` by pyiqa; the truths are not used."""
    check_pair(images, truths)
    return reference_free_network(name).to(images.device)(images.float().clamp(0, 1)).reshape(-1).double()


class FID:
    """Fréchet Inception distance (Heusel et al. 2017) between two sets of images, by torchmetrics; lower is better.

    It is a figure of the whole set and therefore not among `METRICS`: `update` with batches, then `compute`.
    """

    def __init__(self, device=None):
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance

            self.distance = FrechetInceptionDistance(2048, normalize=True).to(device)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                "FID needs torch-fidelity (pip install 'bd-diff[eval]') and Inception weights that it downloads on "
                f"first use, and could not get them ({reason}); connect once, put the file into {weights_folder()} "
                "by hand, or leave FID out"
            ) from error

    def update(self, results: Tensor, truths: Tensor) -> None:
        """Add restored images and true ones, both `(B, 3, H, W)` in [0, 1]."""
        self.distance.update(results.float().clamp(0, 1), real=False)
        self.distance.update(truths.float().clamp(0, 1), real=True)

    def compute(self) -> float:
        """The distance; over all processes where there are several."""
        return float(self.distance.compute())


@dataclass(frozen=True)
class Metric:
    """A metric: its function, its direction (which way is better), whether it downloads weights, and its unit."""

    compute: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool | None = True  # None: one is best
    downloads: bool = False
    unit: str = ""


METRICS = {
    "psnr": Metric(psnr, unit="dB"),
    "psnr_registered": Metric(psnr_registered, unit="dB"),
    "ssim": Metric(ssim),
    "ms_ssim": Metric(ms_ssim),
    "gmsd": Metric(gmsd, higher_is_better=False),
    "gradient_ratio": Metric(gradient_energy_ratio, higher_is_better=None),
    "lpips": Metric(lpips, higher_is_better=False, downloads=True),
    "dists": Metric(dists, higher_is_better=False, downloads=True),
    "niqe": Metric(partial(reference_free, "niqe"), higher_is_better=False, downloads=True),
    "musiq": Metric(partial(reference_free, "musiq"), downloads=True),
    "clipiqa": Metric(partial(reference_free, "clipiqa"), downloads=True),
}


def check_metrics(names) -> None:
    """Raise `ValueError` for a metric that does not exist."""
    if unknown := sorted(set(names) - set(METRICS)):
        raise ValueError(f"there is no metric {', '.join(unknown)}; the metrics are {', '.join(METRICS)}")
