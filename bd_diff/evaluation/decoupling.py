"""Whether structure and blur are disentangled: linear probes, structure distance, blur swaps, re-blur map quality."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from bd_diff.blur.kernels import shape_of
from bd_diff.blur.operator import reblur
from bd_diff.blur.synthesis import Blur, draw_blur
from bd_diff.data.crops import seeded
from bd_diff.data.pixels import as_floats, luminance
from bd_diff.evaluation.evaluate import centre_window
from bd_diff.evaluation.linear_probe import accuracy, r_squared
from bd_diff.evaluation.metrics import psnr
from bd_diff.evaluation.protocols import eight_bit
from bd_diff.reading.reblur_map import correlation, error_map, reblur_map

PROBED = ("gaussian", "line", "shake")
SIDE = 256  # pixels a side, at most, of the windows that are read

Progress = Callable[[Sequence], Sequence]


def windows_of(photographs: Sequence[Tensor]) -> list[Tensor]:
    """The central windows `(1, 3, h, w)` of photographs, floats in [0, 1], no side above 256 pixels."""
    scaled = [as_floats(image) for image in photographs]
    return [centre_window(image, SIDE, 0)[None] for image in scaled]


def noisy(images: Tensor, generator: Generator) -> Tensor:
    """The images with noise of sigma 1/255, at 8 bit."""
    return eight_bit((images + torch.randn(images.shape, generator=generator) / 255).clamp(0, 1))


@torch.no_grad()
def token_probes(
    pipeline, photographs: Sequence[Tensor], samples: int = 240, seed: int = 0, progress: Progress = lambda items: items
) -> dict[str, float]:
    """Linear probes from blur tokens, fitted on two thirds of the samples and tested on the others.

    They should predict the blur: R2 of the kernel's size and of its direction (lines only), accuracy of the family.
    They should not predict the content: R2 of brightness, contrast and colour (of photographs outside the fit), and
    accuracy of naming the photograph (fitted under other blurs). Chance stands beside each accuracy.
    """
    windows = windows_of(photographs)
    rows = []
    for index in progress(range(samples)):
        generator = seeded(seed, index)
        family, which = index % len(PROBED), (index // len(PROBED)) % len(windows)
        blur, window = draw_blur(PROBED[family], generator), windows[which]
        blurry = noisy(reblur(window, blur.kernel()[None]), generator)
        tokens = pipeline.encode_image((blurry * 2 - 1).to(pipeline.device), fast=True).tokens
        size, across, slant = shape_of(blur.kernel())
        content = torch.stack([luminance(window).mean(), luminance(window).std(), *window.mean((0, 2, 3))])
        rows.append((tokens.flatten().cpu(), size.log(), torch.stack([across, slant]), family, which, content))
    tokens, size, direction, family, which, content = (
        torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*rows, strict=True)
    )
    order = torch.randperm(samples, generator=seeded(seed))
    fitted, judged = order[: 2 * samples // 3], order[2 * samples // 3 :]
    lines = family == PROBED.index("line")
    seen = which < max(1, 2 * len(windows) // 3)

    def r2(targets: Tensor, learn: Tensor, test: Tensor) -> float:
        targets = targets.reshape(samples, -1).double()
        return r_squared(tokens[learn], targets[learn], tokens[test], targets[test])

    return {
        "size R2": r2(size, fitted, judged),
        "direction R2": r2(direction, fitted[lines[fitted]], judged[lines[judged]]),
        "family accuracy": accuracy(tokens[fitted], family[fitted], tokens[judged], family[judged]),
        "family chance": 1 / len(PROBED),
        "content R2": r2((content - content.mean(0)) / content.std(0), seen.nonzero()[:, 0], (~seen).nonzero()[:, 0]),
        "photograph accuracy": accuracy(tokens[fitted], which[fitted], tokens[judged], which[judged]),
        "photograph chance": 1 / len(windows),
    }


@torch.no_grad()
def structure_distance(pipeline, photographs: Sequence[Tensor], seed: int = 0) -> dict[str, float]:
    """Distance of a photograph's structure tokens to those of its blurred copy, and to those of another photograph,
    relative to their norm. Structure tokens should ignore blur: the first should be much smaller than the second.
    """
    windows, own, other = windows_of(photographs), [], []

    def tokens(image: Tensor) -> Tensor:
        pixels = (image * 2 - 1).to(pipeline.device)
        return pipeline.structure_qformer(pipeline.image_encoder.encode_structure(pixels)).flatten()

    sharp = [tokens(window) for window in windows]
    for index, window in enumerate(windows):
        generator = seeded(seed, index, 1)
        kernel = draw_blur(PROBED[index % len(PROBED)], generator).kernel()[None]
        length = sharp[index].norm()
        own.append(float((tokens(noisy(reblur(window, kernel), generator)) - sharp[index]).norm() / length))
        other.append(float((sharp[(index + 1) % len(windows)] - sharp[index]).norm() / length))
    return {"blurred": sum(own) / len(own), "another photograph": sum(other) / len(other)}


@torch.no_grad()
def swap_inside_a_blur(pipeline, photographs: Sequence[Tensor], seed: int = 0, fast: bool = False) -> dict[str, float]:
    """PSNR in dB between two blur transfers onto one photograph: from references of the same blur, and of two blurs.

    The reference's content must not matter, only its blur: the first should be high, and far above the second.
    """
    windows, same, different = windows_of(photographs), [], []
    if len(windows) < 3:
        raise ValueError(f"the swap test needs 3 photographs, not {len(windows)}")
    for index, window in enumerate(windows):
        generator = seeded(seed, index, 2)
        family, wrong = (PROBED[(index + step) % len(PROBED)] for step in (0, 1))
        kernel, other = draw_blur(family, generator).kernel(33), draw_blur(wrong, generator).kernel(33)
        first, second = (windows[(index + step) % len(windows)] for step in (1, 2))

        def moved(reference: Tensor, kernel: Tensor, window=window, generator=generator) -> Tensor:
            shown = noisy(reblur(reference, kernel[None]), generator)
            noise = torch.Generator().manual_seed(seed)
            return pipeline(window, blur_image=shown, fast=fast, generator=noise, output_type="pt").images.cpu()

        result = moved(first, kernel)
        same.append(float(psnr(result, moved(second, kernel))))
        different.append(float(psnr(result, moved(second, other))))
    return {"same blur": sum(same) / len(same), "other blur": sum(different) / len(different)}


@torch.no_grad()
def token_swaps(
    pipeline, photographs: Sequence[Tensor], seed: int = 0, fast: bool = False, progress: Progress = lambda items: items
) -> dict[str, dict[str, float]]:
    """What deblurring gains, in dB PSNR, by which tokens: an ablation, for each blur family.

    `own`: by the photograph's own tokens. `blur of another`: by the kernel that is decoded of the blur tokens of the
    next photograph, which has another blur of the family. `shuffled blur`: of its own blur tokens in random order.
    `structure of another`, `no structure`: by its own kernel and the structure tokens of the next photograph, or zeros.
    """
    windows, rows = windows_of(photographs), {}
    for family in progress(PROBED):
        pairs = []
        for index, window in enumerate(windows):
            generator = seeded(seed, index, 4)
            pairs.append((noisy(reblur(window, draw_blur(family, generator).kernel()[None]), generator), window))
        readings = [pipeline.encode_image((blurry * 2 - 1).to(pipeline.device), fast) for blurry, _ in pairs]
        structures = [
            pipeline.structure_qformer(pipeline.image_encoder.encode_structure((blurry * 2 - 1).to(pipeline.device)))
            for blurry, _ in pairs
        ]
        found: dict[str, list[float]] = {}
        for index, (blurry, window) in enumerate(pairs):
            own, other = readings[index], readings[(index + 1) % len(pairs)]
            order = torch.randperm(own.tokens.shape[1], generator=seeded(seed, index, 5)).to(own.tokens.device)
            another = structures[(index + 1) % len(pairs)]
            kernels = {
                "own": own.kernels,
                "blur of another": other.kernels,
                "shuffled blur": pipeline.blur_decoder(own.tokens[:, order], own.kernels.shape[-1]),
            }
            structure = {"structure of another": another, "no structure": torch.zeros_like(another)}

            def gained(kernels: Tensor, blurry=blurry, window=window) -> float:
                noise = torch.Generator().manual_seed(seed)
                result = pipeline(blurry, kernels=kernels, generator=noise, output_type="pt").images.cpu()
                return float(psnr(result, window) - psnr(blurry, window))

            gains = {name: gained(one) for name, one in kernels.items()}
            for name, tokens in structure.items():
                hook = pipeline.structure_qformer.register_forward_hook(lambda *_, tokens=tokens: tokens)
                gains[name] = gained(own.kernels)
                hook.remove()
            for name, gain in gains.items():
                found.setdefault(name, []).append(gain)
        rows[family] = {name: sum(values) / len(values) for name, values in found.items()}
    return rows


@torch.no_grad()
def map_correlation(
    pipeline, photographs: Sequence[Tensor], seed: int = 0, fast: bool = False, progress: Progress = lambda items: items
) -> dict[str, float]:
    """Mean rank correlation, over pixels, between the re-blur map and the true error, for each blur family.

    `edges` is the correlation of the result's own gradients with the error, the baseline that the map should exceed.
    """
    rows: dict[str, list[float]] = {name: [] for name in (*PROBED, "edges")}
    parameters = {"gaussian": 1.8, "line": 13.0, "shake": 16.0}
    for index, window in enumerate(progress(windows_of(photographs))):
        for family in PROBED:
            generator = seeded(seed, index, 3)
            drawn = draw_blur(family, generator)
            kernel = Blur(family, parameters[family], drawn.angle, drawn.seed).kernel()
            blurry = noisy(reblur(window, kernel[None]), generator)
            noise = torch.Generator().manual_seed(seed)
            output = pipeline(blurry, fast=fast, generator=noise, output_type="pt")
            result, seen = output.images.cpu(), output.kernels.cpu()
            error = error_map(result, window)
            rows[family].append(float(correlation(reblur_map(blurry, result, seen), error)))
            rows["edges"].append(float(correlation(error_map(result, result.roll(1, -1)), error)))
    return {name: sum(values) / len(values) for name, values in rows.items()}
