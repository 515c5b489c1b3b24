"""Restoration at the scale at which the blur was read: faster, and less noisy, than by a kernel made larger."""

import torch
from torch import Generator, Tensor

from bd_diff.blur.field import BlurField
from bd_diff.models.conditioning import to_latents
from bd_diff.reading.pyramid import enlarged_change, reduced


def restore_reduced(
    pipeline,
    photographs: Tensor,
    blurs: list[BlurField | Tensor],
    scales: Tensor | None,
    shares: Tensor,
    hidden: Tensor | None,
    generator: Generator | list[Generator] | None,
    latents: Tensor | None,
    **settings,
) -> Tensor:
    """Photographs `(B, 3, H, W)` in [0, 1], each restored by itself, at the scale at which its blur was read.

    Made smaller by `scales` `(B,)`, they are deblurred by `blurs`, kernels `(1, k, k)` or a field of that scale; how
    that changed them is enlarged and added to the photographs. `shares` `(B, 1, 1, 1)` of the result are taken;
    `settings` are those of a call.
    """
    images = []
    for index, scale in enumerate([1.0] * len(photographs) if scales is None else scales.tolist()):
        photograph = photographs[index, None]
        small = reduced(photograph, scale)
        *_, rows, columns = pipeline.latent_shape(pipeline.grid(*small.shape[-2:], tile=0), 1)
        restored = pipeline(
            small,
            kernels=blurs[index],
            strength=float(shares[index]),
            hidden=None if hidden is None else reduced(hidden[index, None].to(small), scale) > 0,
            generator=generator[index] if isinstance(generator, list) else generator,
            latents=None if latents is None else latents[index, None, :, :rows, :columns],
            output_type="pt",
            **settings,
        ).images
        images.append(restored if scale == 1 else enlarged_change(small, restored, photograph).clamp_(0, 1))
    return images[0] if len(images) == 1 else torch.cat(images)


def encode_padded(pipeline, images: Tensor) -> Tensor:
    """Latents of images `(B, 3, H, W)` in [0, 1], continued to a multiple of the networks' step."""
    grid = pipeline.grid(*images.shape[-2:], tile=0)
    rows, columns = (grid.height - images.shape[-2], grid.width - images.shape[-1])
    padded = torch.nn.functional.pad(images, (0, columns, 0, rows), "replicate")
    return to_latents(pipeline.vae, (padded * 2 - 1).to(pipeline.unet.dtype))
