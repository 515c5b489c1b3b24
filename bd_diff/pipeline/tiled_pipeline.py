"""How a pipeline cuts images into tiles, and what their latents are."""

from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from bd_diff.data.inputs import to_batch
from bd_diff.data.tiles import Grid, even_tile
from bd_diff.pipeline.saved_pipeline import SavedPipeline

SMALLEST_SIDE = 8  # pixels
TILE_OVERLAP = 64  # pixels that neighbouring tiles share; 96 take an eighth longer and gain 0.1 dB at most (ours)


class TiledPipeline(SavedPipeline):
    """The part of `BDDiffPipeline` that knows sizes."""

    def grid(self, height: int, width: int, tile: int) -> Grid:
        """How an image of this size is cut into tiles of at most `tile` pixels a side, after padding to `multiple`.

        It is a single tile where `tile` is 0, or the longer side at most 4/3 of it.
        """
        height, width = (side + -side % self.multiple for side in (height, width))
        longest = max(height, width)
        whole = tile == 0 or longest <= 4 * tile // 3
        if whole:
            return Grid(height, width, longest, 0)
        high, wide = (even_tile(side, tile, TILE_OVERLAP, self.multiple) for side in (height, width))
        return Grid(height, width, (high, wide), TILE_OVERLAP)

    def prepare_latents(self, grid: Grid, batch: int, generator, latents: Tensor | None) -> Tensor:
        """Starting noise `(B, c, h, w)` for the whole image, scaled for the scheduler."""
        device, shape = self._execution_device, self.latent_shape(grid, batch)
        if latents is None:
            generator = list(generator) if isinstance(generator, tuple) else generator
            latents = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        elif latents.shape != shape:
            raise ValueError(f"latents are {tuple(latents.shape)}; this image needs {shape}")
        latents, sigma = latents.to(device, self.unet.dtype), float(self.scheduler.init_noise_sigma)
        return latents if sigma == 1 else latents * sigma  # a large photograph's noise is not copied

    def latent_shape(self, grid: Grid, batch: int) -> tuple[int, int, int, int]:
        """The shape `(B, c, h, w)` of the latents of the whole, padded image."""
        scale = self.vae_scale_factor
        return batch, self.unet.config.out_channels, grid.height // scale, grid.width // scale

    @property
    def multiple(self) -> int:
        """Images are padded to sides that are multiples of this: VAE and UNet together downscale by it."""
        return self.vae_scale_factor * self.unet_scale_factor

    @property
    def unet_scale_factor(self) -> int:
        """The factor by which the UNet downscales its input."""
        stages = self.unet.config.get("block_out_channels") or self.unet.config.encoder_blocks
        return 2 ** (len(stages) - ("block_out_channels" in self.unet.config))

    def to_photographs(self, given: list, name: str) -> Tensor:
        """Images from `open_images` as one float32 batch `(B, 3, H, W)` in [0, 1] on the pipeline's device.

        A float32 tensor that is there already is not copied. Raises ValueError, calling the argument `name`, for images
        that cannot be used, see `to_batch`.
        """
        return to_batch(given, name, SMALLEST_SIDE).to(self._execution_device)
