"""Checks of what `BDDiffPipeline` is built from and called with, before anything is computed."""

from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor

from bd_diff.data.tiles import SMALLEST_TILE
from bd_diff.models.conditioning import guess_count
from bd_diff.models.samplers import check_scheduler
from bd_diff.reading.kernel_search import SMALLEST_WINDOW

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_components(pipeline) -> None:
    """Raise ValueError where the UNet has another number of input channels than the other components give it."""
    latents = pipeline.vae.config.latent_channels
    guesses = guess_count(pipeline.config.linear_light) if pipeline.blur_decoder is not None else 1
    if (found := pipeline.unet.config.in_channels) != (wanted := (1 + guesses) * latents):
        trained = "was trained with a blur_decoder; load it with that" if found > wanted else "does not fit"
        raise ValueError(
            f"the UNet takes {found} channels, but noise and {guesses} guess{'es' * (guesses > 1)} make {wanted}: "
            f"this pipeline {trained}"
        )


def check_settings(
    pipeline,
    num_inference_steps: int | None = None,
    strength: float = 1.0,
    tile: int | None = None,
    kernel_windows: int = 0,
    kernels: Any = None,
    deblurring: bool = True,
) -> None:
    """Raise ValueError for settings of a call (`BDDiffPipeline.__call__`) that do not work on any photograph.

    deblurring: the call has no `blur_image`.
    """
    steps = num_inference_steps
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ValueError(f"num_inference_steps is {steps!r}; it must be a whole number from 1 up")
    check_components(pipeline)
    check_scheduler(pipeline.scheduler, steps or pipeline.config.default_steps)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength!r}; it must be between 0 and 1")
    tile, multiple = pipeline.config.tile if tile is None else tile, pipeline.multiple
    if tile and (tile < SMALLEST_TILE or tile % multiple):
        raise ValueError(f"tile is {tile}; it must be 0 or a multiple of {multiple} from {SMALLEST_TILE} up")
    takes_kernels = deblurring and pipeline.blur_decoder is not None
    if kernel_windows and (kernel_windows < SMALLEST_WINDOW or not takes_kernels):
        raise ValueError(
            f"kernel_windows is {kernel_windows}; it must be 0 or at least {SMALLEST_WINDOW}, for deblurring only, "
            "by a pipeline with a blur_decoder"
        )
    if kernels is not None and (kernel_windows or not takes_kernels):
        raise ValueError(
            "kernels are for deblurring by one kernel each, without blur_image or kernel_windows, by a pipeline "
            "with a blur_decoder"
        )


def check_output(output_type: str, callback_tensors: Sequence[str], available: Sequence[str]) -> None:
    """Raise ValueError for an output type that does not exist, or a tensor that no callback can get."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; it must be pil, np, pt or latent")
    if unknown := [name for name in callback_tensors if name not in available]:
        raise ValueError(f"callbacks cannot get {unknown[0]}; they can get {', '.join(available)}")


def check_batch(
    photographs: Tensor,
    references: Tensor | None,
    hidden: Tensor | None,
    generator: Generator | Sequence[Generator] | None,
) -> None:
    """Raise ValueError where what belongs to a batch of photographs `(B, 3, H, W)` is not of its size.

    references: those of `blur_image`, 1 or B; hidden: a mask `(B, 1, H, W)`; generator: one, or a list of B.
    """
    count = len(photographs)
    if isinstance(generator, (list, tuple)) and len(generator) != count:
        raise ValueError(f"generator holds {len(generator)} for {count} images; give one or as many")
    if references is not None and len(references) not in (1, count):
        raise ValueError(f"blur_image holds {len(references)} images for {count} of image; give one or as many")
    if hidden is not None and hidden.shape != (count, 1, *photographs.shape[-2:]):
        raise ValueError(f"hidden is {tuple(hidden.shape)}; it must be a mask (B, 1, H, W) of image")
