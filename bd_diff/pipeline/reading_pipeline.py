"""How a pipeline reads blur: image -> image encoder -> kernel -> blur Q-Former -> tokens -> blur decoder -> kernel."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import same_size
from bd_diff.models.known_blur import KnownBlur, Tile
from bd_diff.models.unet import READ, quick_unet
from bd_diff.pipeline.tiled_pipeline import TiledPipeline
from bd_diff.reading.blur_reading import BlurReading, is_linear, search_blur, stack, unstack
from bd_diff.reading.corner_search import ask_corners
from bd_diff.reading.differing_blur import read_field
from bd_diff.reading.kernel_search import SMALLEST_WINDOW
from bd_diff.reading.lens import with_lens
from bd_diff.reading.moving_things import stood_still, with_moving_things
from bd_diff.reading.pyramid import kernel_of, read_at_scales
from bd_diff.reading.refuted import where_it_is
from bd_diff.reading.shaken_scenes import around_things
from bd_diff.reading.verdict import is_nothing


class ReadingPipeline(TiledPipeline):
    """The part of `BDDiffPipeline` that reads blur, told as tokens where there is a blur decoder."""

    image_encoder: Any
    blur_qformer: Any
    blur_decoder: Any
    unet: Any
    denoise: Callable
    decode: Callable[..., Tensor]

    def read_at_scales(self, pixels: Tensor, fast: bool = False) -> BlurReading:
        """`encode_image`, at the scales at which blur is read best (`bd_diff.reading.pyramid`)."""
        if self.blur_decoder is None:
            return self.read_blur(pixels)
        search = self.config.search and not fast
        return self.tell(stack([with_lens(self, one, read_at_scales(self, one, search)) for one in pixels.split(1)]))

    def read_fields(self, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, list[BlurField | Tensor]]:
        """Where the blur of images `(B, 3, H, W)` in [-1, 1] differs over them (`bd_diff.reading.differing_blur`), and
        where they contradict it (`bd_diff.reading.corner_search`, `bd_diff.reading.refuted`); what moved before a
        camera that shook (`bd_diff.reading.shaken_scenes`) or stood still (`bd_diff.reading.moving_things`).

        Returns the reading with the kernels at their middles, in doubt where it was not and corners contradict it, and
        of each image a field or its kernel `(1, k, k)`.
        """
        blurs, asked = [], []
        everywhere = self.config.lens is not None  # a lens blurs all of a photograph
        for image, one in zip(pixels.split(1), unstack(reading), strict=True):
            if not everywhere and (is_nothing(kernel_of(one)) or stood_still(self, image, one)):
                one, blur = with_moving_things(self, image, one)
            else:
                found = one
                one, differs = ask_corners(self, image, found)
                blur = read_field(self, image, one, differs)
                if differs and not isinstance(blur, BlurField) and not one.doubtful and not everywhere:
                    one, blur = around_things(self, image, one, contradicted=one is not found)
                    turned = read_field(self, image, one, differs)
                    blur = turned if isinstance(turned, BlurField) else blur
                if not everywhere and not one.doubtful and not is_nothing(kernel_of(one)):
                    blur = where_it_is(
                        self, image, blur, 1.0 if one.scale is None else float(one.scale), is_linear(one)
                    )
            asked.append(one)
            blurs.append(blur)
        middles = [one.middle[None] if isinstance(one, BlurField) else one for one in blurs]
        return replace(stack(asked), kernels=torch.cat(same_size(middles))), blurs

    def encode_image(
        self, pixels: Tensor, fast: bool = False, found: tuple[Tensor, Tensor] | None = None
    ) -> BlurReading:
        """Estimate the blur of pixels `(B, 3, H, W)` in [-1, 1]: tokens, and the kernels that these are decoded to.

        The kernel search runs unless `fast`, `config.search` is off, or a side is below `SMALLEST_WINDOW` pixels
        (`bd_diff.reading.blur_reading.search_blur`). It reads each image by itself, so that the result for an image
        does not depend on the others in the batch.

        found: hypotheses and evidence of the search (`search_evidence`), if it has already run.
        """
        if self.blur_decoder is None:
            return self.read_blur(pixels)
        if fast or not self.config.search or min(pixels.shape[-2:]) < SMALLEST_WINDOW:
            return self.tell(self.read_blur(pixels))
        if found is None:
            return self.tell(stack([search_blur(self, one) for one in pixels.split(1)]))
        findings = zip(*(maps.split(1) for maps in found), strict=True)
        return self.tell(stack([search_blur(self, *one) for one in zip(pixels.split(1), findings, strict=True)]))

    def read_blur(
        self, pixels: Tensor, hypothesis: Tensor | None = None, evidence: Tensor | None = None
    ) -> BlurReading:
        """Read the blur of pixels `(B, 3, H, W)` in [-1, 1] by the image encoder once, without a search: kernels, not
        told as tokens yet; without a blur decoder tokens alone.

        hypothesis, evidence: the best kernel `(B, k, k)` and the evidence `(B, 2, k, k)` of a search, if it has run.
        """
        features = self.image_encoder(pixels, hypothesis, evidence, read=("blur",))
        if self.blur_decoder is None:
            return BlurReading(tokens=self.blur_qformer(features.blur))
        return BlurReading(kernels=features.kernels, search_confidence=features.confidence)

    def tell(self, reading: BlurReading) -> BlurReading:
        """A reading as blur tokens `(B, N, D)`, with the kernels that are decoded from these and nothing else."""
        assert reading.kernels is not None  # there is a blur decoder
        tokens = self.blur_qformer(self.image_encoder.encode_kernel(reading.kernels))
        kernels = self.blur_decoder(tokens, reading.kernels.shape[-1])
        return replace(reading, tokens=tokens, kernels=kernels)

    def deblur_window(self, pixels: Tensor, kernels: Tensor) -> Tensor:
        """Deblur pixels `(B, 3, H, W)` in [-1, 1] by kernels `(B, k, k)` in one step; returns the same shape and range.

        The starting noise is zero, its mean, so that the result is not random.
        """
        return self.deblur_by(pixels, KnownBlur(kernels, self.config.linear_light))

    def deblur_by(self, pixels: Tensor, blur: KnownBlur) -> Tensor:
        """`deblur_window` by a blur that may differ over the pixels."""
        height, width = pixels.shape[-2:]
        grid = self.grid(height, width, tile=0)
        tile = Tile(pixels, (...,), grid.tile, blur.guesses(pixels), blur)
        noise = torch.zeros(self.latent_shape(grid, len(pixels)), device=pixels.device, dtype=self.unet.dtype)
        unet = quick_unet(self.unet, (height, width), READ)
        _, latents = self.denoise(tile, self.blur_qformer.no_blur(len(pixels)), noise, 1, unet=unet)
        return self.decode(latents, tile.guesses)[..., :height, :width].float().clamp(-1, 1)
