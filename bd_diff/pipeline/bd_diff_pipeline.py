"""BDDiffPipeline: image -> encoder -> two Q-Formers -> tokens -> UNet -> VAE -> image, called as in diffusers."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Generator, Tensor
from tqdm import tqdm

from bd_diff.blur.field import BlurField
from bd_diff.data.inputs import hidden_in, open_images, staying, to_images, whole
from bd_diff.data.kernel_files import as_kernels
from bd_diff.data.part import Part
from bd_diff.data.tiles import CONTEXT
from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.clip_encoder import ClipImageEncoder
from bd_diff.models.conditioning import (
    condition,
    guess_count,
    keep_in_reach,
    to_latents,
    to_pixels,
    transfer_guesses,
)
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.known_blur import KnownBlur, Tile
from bd_diff.models.patch_qformer import PatchQFormer
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.qformer import QFormer
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.models.samplers import take_step
from bd_diff.models.unet import NAFUNet, quick_unet
from bd_diff.pipeline.argument_checks import check_batch, check_components, check_output, check_settings
from bd_diff.pipeline.pipeline_output import BDDiffPipelineOutput
from bd_diff.pipeline.reading_pipeline import ReadingPipeline
from bd_diff.pipeline.reduced_scale import encode_padded, restore_reduced
from bd_diff.reading.kernel_windows import window_kernels
from bd_diff.reading.lens import lens_kernel
from bd_diff.reading.pyramid import at_full_size, kernel_of
from bd_diff.reading.verdict import as_nothing, is_nothing

Image = str | os.PathLike | PIL.Image.Image | np.ndarray | Tensor
Images = Image | Sequence[Image]


class BDDiffPipeline(ReadingPipeline):
    """Deblurs photographs, or blurs one like another (BD-Diff, arXiv 2502.01522, with an explicit blur operator).
    A photograph in which no blur is found comes back as it is.

    Args:
        image_encoder, structure_qformer, blur_qformer: an image to structure tokens and blur tokens.
        blur_decoder: blur tokens to kernels; None leaves the explicit operator out, as in the paper.
        unet, vae, scheduler: the diffusion model; `in_channels` of the UNet is the latents plus the condition.
        default_steps: sampling steps where the call names none.
        most_steps: more than these make results worse, and the command line and the page refuse them; 0 is no bound.
        residual: the UNet diffuses the difference to the first guess (small model) or the latents themselves.
        search: look for the kernel in the photograph's edges too (slower, needs 192 pixels a side; right about shake).
        refinements: rounds in which kernel and picture improve each other after the search, where it found a shake.
        tile: side in pixels of the tiles that large images are restored in; images up to a third larger are not cut.
        caution: how much of the photograph stays in a result where the readings of its blur contradict each other.
        linear_light: the UNet sees deconvolutions in linear light, too.
        consistency: weight of every prediction against what explains the photograph under the kernel
            (`bd_diff.blur.operator.data_consistency`); 0 leaves predictions as they are.
        transfer_gain: share of the UNet's change to the explicit re-blur in transfer; at 0 the UNet does not run there.
        base: where UNet and VAE came from (`id`) and the hash of their tensors (`sha256`), see
            `bd_diff.stable_diffusion.base_model`.
        lens: `{"kernel": rows of numbers}`, the one kernel of a camera's photographs that `bd-diff adapt` found: it is
            taken for every photograph that it explains (`bd_diff.reading.lens`).
    """

    model_cpu_offload_seq = "image_encoder->blur_qformer->blur_decoder->structure_qformer->unet->vae"
    _optional_components = ["blur_decoder"]
    _callback_tensor_inputs = ["latents", "tokens"]

    def __init__(
        self,
        image_encoder: ImageEncoder | ClipImageEncoder,
        structure_qformer: QFormer,
        blur_qformer: PatchQFormer | QFormer,
        blur_decoder: BlurDecoder | None,
        unet: NAFUNet | UNet2DConditionModel,
        vae: PixelVAE | AutoencoderKL | AutoencoderTiny,
        scheduler: KarrasDiffusionSchedulers,
        default_steps: int = 1,
        residual: bool = True,
        search: bool = True,
        refinements: int = 0,
        tile: int = 768,
        caution: float = 0.5,
        linear_light: bool = False,
        consistency: float = 0.0,
        transfer_gain: float = 1.0,
        most_steps: int = 0,
        base: dict[str, str] | None = None,
        lens: dict[str, list[list[float]]] | None = None,
    ):
        super().__init__()
        self.register_modules(
            image_encoder=image_encoder,
            structure_qformer=structure_qformer,
            blur_qformer=blur_qformer,
            blur_decoder=blur_decoder,
            unet=unet,
            vae=vae,
            scheduler=scheduler,
        )
        self.register_to_config(
            default_steps=default_steps,
            residual=residual,
            search=search,
            refinements=refinements,
            tile=tile,
            caution=caution,
            linear_light=linear_light,
            consistency=consistency,
            transfer_gain=transfer_gain,
            most_steps=most_steps,
            base=base,
            lens=lens,
        )
        if lens is not None:
            lens_kernel(lens)  # raises ValueError where it holds none
        if consistency and scheduler.config.get("prediction_type") != "sample":
            raise ValueError("consistency needs a scheduler that predicts the sample; set it to 0")
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.check_channels()

    @torch.no_grad()
    def __call__(
        self,
        image: Images,
        blur_image: Images | None = None,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        fast: bool = False,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        tile: int | None = None,
        kernel_windows: int = 0,
        kernels=None,
        hidden: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> BDDiffPipelineOutput | tuple:
        """Deblur `image`; with `blur_image`, blur `image` as `blur_image` is blurred instead.

        Args:
            image: PIL image, path, array `(H, W, 3)` or `(H, W)` in [0, 1] or of uint8, tensor `(3, H, W)` in [0, 1],
                or a list or batch of one size. PIL images and files may be grey, 16 bit, transparent, palette, CMYK or
                turned by EXIF.
            blur_image: the same; one for all, or as many as `image`. Its size may differ.
            num_inference_steps: 1 is the mean of all plausible results, more give a sharper one of them.
            strength: 0 gives the image back, 1 is the full result, between is a mixture in latent space. Where the blur
                is in doubt, `config.caution` of the image remains at 1, too.
            fast: leave out the kernel search, whatever the pipeline's `search` says.
            generator: of the starting noise; a list, one an image, makes a batch equal to its singles.
            latents: starting noise instead `(B, c, h, w)`, for images padded to a multiple of the networks' step.
            tile: instead of the pipeline's own; 0 never cuts. Blur is read from the whole image and noise drawn for the
                whole; callbacks are called for every tile.
            kernel_windows: side in pixels of windows that overlap by half and get a kernel each, where blur varies over
                the photograph (256 is a good one); 0 is one kernel for all of it.
            kernels: the blur, where it is known: a file, an array or a tensor `(h, w)` for all images, or as many as
                there are, up to 129 pixels a side (see `bd_diff.data.kernel_files`); or a
                `bd_diff.blur.field.BlurField` for all images. Nothing is searched then.
            hidden: where tensors are no photograph but a fill, a mask `(B, 1, H, W)`: there it is made again, blurred
                as the photograph is. Of paths and PIL images it is known.
            output_type: "pil", "np", "pt" or "latent"; "pil" keeps the mode, alpha, ICC profile and EXIF of its input.
                Of paths and PIL images, borders, captions and what is under transparency stay as they are (`Part`).

        Raises ValueError when an argument cannot be used, saying which and why.
        """
        # 0. Check the arguments.
        deblurring = blur_image is None
        check_settings(self, num_inference_steps, strength, tile, kernel_windows, kernels, deblurring)
        check_output(output_type, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        given = open_images(image, deblur=deblurring)
        photographs = self.to_photographs(given, "image")
        references = None
        if blur_image is not None:
            references = self.to_photographs(open_images(blur_image, deblur=False), "blur_image")
        hidden = hidden_in(given) if hidden is None else hidden
        check_batch(photographs, references, hidden, generator)
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps

        # 1. Read the blur from the whole image, unless it is known.
        count, (height, width) = len(photographs), photographs.shape[-2:]
        seen = ((photographs if references is None else references) * 2).sub_(1)
        doubtful: Tensor | None = None
        differs: Tensor | None = None
        field = kernels.to(seen.device) if isinstance(kernels, BlurField) else None
        blurs: list[BlurField | Tensor] = []  # of each image at the scale at which it was read
        if kernels is None:
            reading = self.encode_image(seen, fast) if kernel_windows else self.read_at_scales(seen, fast)
            doubtful = reading.doubtful if references is None else None
            searched = self.config.search and not fast and not kernel_windows
            if deblurring and doubtful is not None and searched:
                reading, blurs = self.read_fields(seen, reading)
                doubtful = reading.doubtful
                differs = torch.tensor([isinstance(one, BlurField) for one in blurs], device=seen.device)
            kernels = None if reading.kernels is None else at_full_size(reading).expand(count, -1, -1)  # (B, k, k)
            if deblurring and kernels is not None:
                kernels, (doubtful, differs) = as_nothing(staying(given), kernels, doubtful, differs)
        else:
            known = kernels if field is None else field.middle
            kernels, reading = as_kernels(known, count).to(seen.device), None
        shares = photographs.new_full((count, 1, 1, 1), strength)  # of the result, the rest is the image
        if references is None:
            blur_tokens = self.blur_qformer.no_blur(count)  # (B, T, D)
            if not kernel_windows and doubtful is not None:
                shares = shares * (1 - self.config.caution * doubtful[:, None, None, None])
        else:
            assert reading is not None and reading.tokens is not None  # kernels are given in deblurring alone
            blur_tokens = reading.tokens.expand(count, -1, -1)  # (B, T, D): the references' blur

        if deblurring and reading is not None and kernels is not None and not kernel_windows:
            stays = is_nothing(kernels, doubtful, differs)  # (B,)
            shares = shares * ~stays[:, None, None, None]
            if stays.all():
                self._num_timesteps = 0
                images = encode_padded(self, photographs) if output_type == "latent" else photographs.clone()
                return self.finish(images, given, output_type, kernels, doubtful, differs, return_dict)

        del seen  # a large photograph's copy
        reduces = reading is not None and reading.scale is not None and reading.scale.min() < 1
        if deblurring and reading is not None and (reduces or (differs is not None and differs.any())):
            images = restore_reduced(
                self,
                photographs,
                blurs or list(kernel_of(reading).split(1)),
                reading.scale,
                shares,
                hidden,
                generator,
                latents,
                num_inference_steps=steps,
                tile=tile,
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            )
            images = encode_padded(self, images) if output_type == "latent" else images
            return self.finish(images, given, output_type, kernels, doubtful, differs, return_dict)

        # 2. Prepare noise, for the whole image too.
        context = CONTEXT if kernels is None else max(CONTEXT, 3 * (kernels.shape[-1] // 2))
        grid = self.grid(height, width, self.config.tile if tile is None else tile)
        noise = self.prepare_latents(grid, count, generator, latents)  # (B, c, h, w)
        unet = quick_unet(self.unet, grid.tile)
        as_latents = output_type == "latent"
        images = torch.zeros_like(noise) if as_latents else photographs.new_zeros(count, 3, grid.height, grid.width)
        noise = noise.to(unet.dtype)
        with self.show_progress(steps * len(grid)) as bar:

            def on_step(i: int, t: Tensor, latents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
                bar.update()
                if callback_on_step_end is None:
                    return latents, tokens
                values = {"latents": latents, "tokens": tokens}
                changed = callback_on_step_end(
                    self, i, t, {name: values[name] for name in callback_on_step_end_tensor_inputs}
                )
                return changed.get("latents", latents), changed.get("tokens", tokens)

            for index in range(len(grid)):
                region, inside = grid.around(index, context)
                around = (photographs[region] * 2).sub_(1)
                if references is None:
                    local, of_each = kernels, None
                    if kernel_windows:
                        local, of_each = window_kernels(self, around, kernel_windows, fast)
                    elif field is not None:
                        local = field.kernels[:, None].expand(-1, count, -1, -1)  # (R, B, k, k)
                        of_each = field.shares_in(height, width, *region[1:])  # (R, h, w)
                    blur = KnownBlur(local, self.config.linear_light, of_each)
                    if hidden is not None:
                        around = blur.filled(around, hidden[region].to(around.device))
                    own = Tile(around, inside, grid.tile, blur.guesses(around), blur)
                else:
                    own = Tile(around, inside, grid.tile, transfer_guesses(around, kernels))
                guesses = own.guesses  # (B, G, 3, h, w)
                (latents,) = grid.cut(noise, [index]).to(self.unet.dtype)  # (B, c, h, w)
                first, latents = self.denoise(own, blur_tokens, latents, steps, on_step, kernels is not None, unet)
                if shares.min() < 1:
                    # The image is the first guess in deblurring, the last one in transfer; a refined VAE filtered it.
                    image_of = guesses[:, 0 if references is None else -1].to(self.unet.dtype)
                    as_it_is = references is None and not isinstance(self.vae, RefinedVAE)
                    source = first if as_it_is else to_latents(self.vae, image_of)
                    latents = source.lerp(latents, shares.to(latents.dtype))
                # 6. Decode, and put the tiles together.
                part = latents if as_latents else self.decode(latents, guesses, deblurring=references is None)
                grid.paste(images, part[None].to(images.dtype), [index])

        if not as_latents:
            images = images[..., :height, :width].div_(2).add_(0.5).clamp_(0, 1)
        return self.finish(images, given, output_type, kernels, doubtful, differs, return_dict)

    def finish(
        self,
        images: Tensor,
        given: list,
        output_type: str,
        kernels: Tensor | None,
        doubtful,
        differs,
        return_dict: bool,
    ) -> BDDiffPipelineOutput | tuple:
        """The output of a call from images `(B, 3, H, W)` in [0, 1], or latents, of what was `given`."""
        if output_type not in ("latent", "pil") and any(isinstance(one, Part) for one in given):
            images = torch.stack([one.to(images) for one in whole(images, given)])
        produced: list[PIL.Image.Image] | np.ndarray | Tensor = images
        if output_type == "pil":
            produced = to_images(images, given)
        elif output_type == "np":
            produced = images.movedim(1, -1).cpu().numpy()
        self.maybe_free_model_hooks()
        output = BDDiffPipelineOutput(images=produced, kernels=kernels, doubtful=doubtful, differs=differs)
        return output if return_dict else (produced,)

    def show_progress(self, total: int) -> tqdm:
        """diffusers' progress bar, for more steps than one."""
        return self.progress_bar(total=total) if total > 1 else tqdm(total=total, disable=True)

    def denoise(
        self,
        tile: Tile,
        blur_tokens: Tensor,
        latents: Tensor,
        steps: int,
        on_step: Callable = lambda i, t, latents, tokens: (latents, tokens),
        solve: bool = False,
        unet: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Latents `(B, c, h, w)` of the first guess and of the result, from a tile, blur tokens `(B, T, D)` and noise.
        With `solve` and `config.consistency`, every prediction in deblurring is moved to where it explains the
        photograph. unet: instead of the pipeline's own.
        """
        unet = self.unet if unet is None else unet
        deblurring = tile.blur is not None
        gain = 1.0 if deblurring else self.config.transfer_gain
        if not gain:
            first = to_latents(self.vae, tile.guesses[:, 0].to(self.unet.dtype))
            return first, first
        solve = solve and deblurring and self.config.consistency > 0
        # 3. Read structure.
        structure = self.image_encoder(tile.own, read=("structure",)).structure
        tokens = torch.cat([self.structure_qformer(structure), blur_tokens], 1)  # (B, S + T, D)
        # 4. Encode what the UNet sees beside the noise.
        guesses, count = tile.guesses.to(self.unet.dtype), guess_count(self.config.linear_light)
        first, seen = condition(self.vae, guesses, count, unet.dtype)  # (B, c, h, w), (B, G c, h, w)
        start = first if self.config.residual else torch.zeros_like(first)
        # 5. Denoise.
        self.scheduler.set_timesteps(steps, device=latents.device)
        self._num_timesteps = len(self.scheduler.timesteps)
        for i, t in enumerate(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(latents, t)
            output = unet(torch.cat([scaled.to(seen.dtype), seen], 1), t, encoder_hidden_states=tokens).sample
            output = output.to(latents.dtype)
            if solve:
                estimates = self.decode(start + output, guesses)  # (B, 3, h, w)
                solved = tile.explain(estimates, self.config.consistency)  # (B, 3, h, w)
                output = to_latents(self.vae, solved.to(latents.dtype)) - start
            latents = take_step(self.scheduler, output, t, latents, last=i == self.num_timesteps - 1)
            latents, tokens = on_step(i, t, latents, tokens)
        result = start + latents
        return first, result if gain == 1 else first.lerp(result, gain)

    def decode(self, latents: Tensor, guesses: Tensor, deblurring: bool = True) -> Tensor:
        """Pixels `(B, 3, H, W)` in [-1, 1] of a result; what is deblurred may have its detail from the image."""
        detailed = deblurring and isinstance(self.vae, RefinedVAE)
        pixels = to_pixels(self.vae, latents, guesses[:, 0] if detailed else None)
        return keep_in_reach(pixels, guesses) if self.config.residual else pixels

    @torch.no_grad()
    def estimate_kernel(self, image: Images, fast: bool = False) -> Tensor:
        """The blur the model sees in each image, as kernels `(B, k, k)` that sum to one; `k` is 33, or more if wide."""
        if self.blur_decoder is None:
            raise ValueError("this pipeline has no blur_decoder, so it sees blur as tokens and never as a kernel")
        photographs = self.to_photographs(open_images(image, deblur=False), "image")
        kernels = at_full_size(self.read_at_scales(photographs * 2 - 1, fast))
        self.maybe_free_model_hooks()
        return kernels

    @property
    def num_timesteps(self) -> int:
        """How often the UNet ran for the last image or tile, as other pipelines of diffusers have it."""
        return self._num_timesteps

    def check_channels(self) -> None:
        """Raise ValueError where the UNet has another number of input channels than the other components give it."""
        check_components(self)

    def check_settings(self, **settings) -> None:
        """Raise ValueError for settings of a call that do not work on any photograph; see `argument_checks`."""
        check_settings(self, **settings)
