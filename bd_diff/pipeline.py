"""BDDiffPipeline: image -> encoder -> two Q-Formers -> tokens -> UNet -> VAE -> image, called as in diffusers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from torch import Generator, Tensor

from bd_diff.conditioning import condition, deblur_guesses, to_pixels, transfer_guesses
from bd_diff.data.inputs import open_images, to_batch, to_images
from bd_diff.metrics import luminance
from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.image_encoder import ImageEncoder, ImageFeatures
from bd_diff.models.kernel_search import SMALLEST_WINDOW, best_window, reblur_residual, search_evidence
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.qformer import QFormer
from bd_diff.models.unet import NAFUNet

SMALLEST_SIDE = 8  # pixels


@dataclass
class BDDiffPipelineOutput(BaseOutput):
    """`images`: a list of PIL images, an array `(B, H, W, 3)` or a tensor `(B, 3, H, W)` in [0, 1], or latents."""

    images: list[PIL.Image.Image] | np.ndarray | Tensor


@dataclass
class BlurReading(BaseOutput):
    """What was read from images: `features`, blur `tokens` `(B, T, D)`; with a blur decoder, `kernels` `(B, k, k)`."""

    features: ImageFeatures
    tokens: Tensor
    kernels: Tensor | None


class BDDiffPipeline(DiffusionPipeline):
    """Deblurs photographs, or blurs one like another (BD-Diff, arXiv 2502.01522, with an explicit blur operator).

    Args:
        image_encoder, structure_qformer, blur_qformer: an image to structure tokens and blur tokens.
        blur_decoder: blur tokens to kernels; None leaves the explicit operator out, as in the paper.
        unet, vae, scheduler: the diffusion model; `in_channels` of the UNet is the latents plus the condition.
        default_steps: sampling steps where the call names none.
        residual: the UNet diffuses the difference to the first guess (small model) or the latents themselves.
        search: look for the kernel in the photograph's edges too (slower, needs 192 pixels a side; right about shake).
    """

    model_cpu_offload_seq = "image_encoder->blur_qformer->blur_decoder->structure_qformer->unet->vae"
    _optional_components = ["blur_decoder"]
    _callback_tensor_inputs = ["latents", "tokens"]

    def __init__(
        self,
        image_encoder: ImageEncoder,
        structure_qformer: QFormer,
        blur_qformer: QFormer,
        blur_decoder: BlurDecoder | None,
        unet: NAFUNet | UNet2DConditionModel,
        vae: PixelVAE | AutoencoderKL,
        scheduler: KarrasDiffusionSchedulers,
        default_steps: int = 1,
        residual: bool = True,
        search: bool = True,
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
        self.register_to_config(default_steps=default_steps, residual=residual, search=search)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(
        self,
        image,
        blur_image=None,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        fast: bool = False,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> BDDiffPipelineOutput | tuple:
        """Deblur `image`; with `blur_image`, blur `image` as `blur_image` is blurred instead.

        Args:
            image: PIL image, path, array `(H, W, 3)` or tensor `(3, H, W)` in [0, 1], or a list or batch of one size.
                PIL images and files may be grey, 16 bit, transparent, palette, CMYK or turned by EXIF.
            blur_image: the same; one for all, or as many as `image`. Its size may differ.
            num_inference_steps: 1 is the mean of all plausible results, more give a sharper one of them.
            strength: 0 gives the image back, 1 is the full result, between is a mixture in latent space.
            fast: leave out the kernel search, whatever the pipeline's `search` says.
            generator: of the starting noise; a list, one an image, makes a batch equal to its singles.
            latents: starting noise instead `(B, c, h, w)`, for images padded to a multiple of the networks' step.
            output_type: "pil", "np", "pt" or "latent"; "pil" keeps the mode, alpha, ICC profile and EXIF of its input.

        Raises ValueError when an argument cannot be used, saying which and why.
        """
        # 0. Check the arguments.
        given = open_images(image)
        pixels = self.check_inputs(
            given, num_inference_steps, strength, output_type, callback_on_step_end_tensor_inputs
        )
        references = None if blur_image is None else self.to_pixels_in(open_images(blur_image), "blur_image")
        if references is not None and len(references) not in (1, len(pixels)):
            raise ValueError(
                f"blur_image holds {len(references)} images for {len(pixels)} of image; give one or as many"
            )
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        device = self._execution_device

        # 1. Read structure and blur.
        if references is None:
            reading = self.encode_image(pixels, fast)  # tokens (B, T, D), kernels (B, k, k)
            features = reading.features
            blur_tokens = self.blur_qformer(features.blur, 0.0)  # (B, T, D): no blur
            guesses = deblur_guesses(pixels, reading.kernels)  # (B, G, 3, H, W)
        else:
            reading = self.encode_image(references, fast)
            features = self.image_encoder(pixels)
            blur_tokens = reading.tokens.expand(len(pixels), -1, -1)  # (B, T, D): the references' blur
            kernels = None if reading.kernels is None else reading.kernels.expand(len(pixels), -1, -1)
            guesses = transfer_guesses(pixels, kernels)  # (B, G, 3, H, W)
        structure = self.structure_qformer(features.structure)  # (B, S, D)
        tokens = torch.cat([structure, blur_tokens], 1)  # (B, S + T, D)

        # 2. Encode what the UNet sees beside the noise.
        height, width = pixels.shape[-2:]
        first, seen = condition(self.vae, self.pad(guesses).to(self.unet.dtype))  # (B, c, h, w), (B, G c, h, w)

        # 3. Prepare timesteps and noise.
        self.scheduler.set_timesteps(steps, device=device)
        latents = self.prepare_latents(first, generator, latents)  # (B, c, h, w)

        # 4. Denoise.
        with self.progress_bar(total=steps) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                scaled = self.scheduler.scale_model_input(latents, t)
                output = self.unet(torch.cat([scaled, seen], 1), t, encoder_hidden_states=tokens).sample
                latents = self.scheduler.step(output, t, latents).prev_sample
                if callback_on_step_end is not None:
                    values = {"latents": latents, "tokens": tokens}
                    wanted = {name: values[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, wanted)
                    latents, tokens = changed.get("latents", latents), changed.get("tokens", tokens)
                bar.update()
        if self.config.residual:
            latents = first + latents
        if strength < 1:
            source = condition(self.vae, self.pad(pixels[:, None]).to(self.unet.dtype))[0]
            latents = source.lerp(latents, strength)

        # 5. Decode.
        if output_type == "latent":
            images = latents
        else:
            images = to_pixels(self.vae, latents)[..., :height, :width].float()  # (B, 3, H, W)
            images = (images / 2 + 0.5).clamp(0, 1)
            if output_type == "pil":
                images = to_images(images, given)
            elif output_type == "np":
                images = images.movedim(1, -1).cpu().numpy()
        self.maybe_free_model_hooks()
        return BDDiffPipelineOutput(images=images) if return_dict else (images,)

    @classmethod
    def download(cls, pretrained_model_name: str, **settings) -> str:
        """The repository of a hub id, whole: diffusers' own listing would ask it for the source of our classes."""
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
        given = {name: settings[name] for name in names if settings.get(name) is not None}
        return snapshot_download(pretrained_model_name, ignore_patterns=["*.bin", "*.ckpt", "*.pth"], **given)

    @torch.no_grad()
    def estimate_kernel(self, image, fast: bool = False) -> Tensor:
        """The blur the model sees in each image, as kernels `(B, 33, 33)` that sum to one."""
        if self.blur_decoder is None:
            raise ValueError("this pipeline has no blur_decoder, so it sees blur as tokens and never as a kernel")
        kernels = self.encode_image(self.to_pixels_in(open_images(image), "image"), fast).kernels
        self.maybe_free_model_hooks()
        return kernels

    def check_inputs(self, given, steps, strength, output_type, callback_names) -> Tensor:
        """The images as pixels `(B, 3, H, W)` in [-1, 1], once every argument has been found usable."""
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise ValueError(f"num_inference_steps is {steps!r}; it must be a whole number from 1 up")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength!r}; it must be between 0 and 1")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type is {output_type!r}; it must be pil, np, pt or latent")
        if unknown := [name for name in callback_names if name not in self._callback_tensor_inputs]:
            raise ValueError(
                f"callbacks cannot get {unknown[0]}; they can get {', '.join(self._callback_tensor_inputs)}"
            )
        return self.to_pixels_in(given, "image")

    def to_pixels_in(self, given: list, name: str) -> Tensor:
        """Opened images as `(B, 3, H, W)` in [-1, 1] on the pipeline's device, float32."""
        return to_batch(given, name, SMALLEST_SIDE).to(self._execution_device) * 2 - 1

    def encode_image(
        self, pixels: Tensor, fast: bool = False, found: tuple[Tensor, Tensor] | None = None
    ) -> BlurReading:
        """Features, blur tokens and kernels of pixels `(B, 3, H, W)` in [-1, 1].

        With the search there are two readings of each image, with and without its findings; the one whose kernel
        explains the photograph better (`reblur_residual`) is kept. `found` are the findings (`search_evidence`) where
        they are already known.
        """
        reading = self.read_blur(pixels)
        if self.blur_decoder is None or fast or not self.config.search or min(pixels.shape[-2:]) < SMALLEST_WINDOW:
            return reading
        # One image at a time: each has its own best window, and a batch then equals its singles.
        windows = [best_window(light) for light in ((luminance(pixels) + 1) / 2).split(1)]
        if found is None:
            found = [torch.cat(maps) for maps in zip(*(search_evidence(window) for window in windows), strict=True)]
        searched = self.read_blur(pixels, *found)
        residuals = [
            torch.cat([reblur_residual(*pair) for pair in zip(windows, one.kernels.split(1), strict=True)])
            for one in (reading, searched)
        ]
        better = (residuals[1] < residuals[0])[:, None, None]
        return BlurReading(
            features=ImageFeatures(
                structure=reading.features.structure,
                blur=torch.where(better, searched.features.blur, reading.features.blur),
                maps=torch.where(better[..., None], searched.features.maps, reading.features.maps),
            ),
            tokens=torch.where(better, searched.tokens, reading.tokens),
            kernels=torch.where(better, searched.kernels, reading.kernels),
        )

    def read_blur(
        self, pixels: Tensor, hypothesis: Tensor | None = None, evidence: Tensor | None = None
    ) -> BlurReading:
        """One reading, with what the search found or without."""
        features = self.image_encoder(pixels, hypothesis, evidence)
        tokens = self.blur_qformer(features.blur)
        kernels = None if self.blur_decoder is None else self.blur_decoder(tokens, features.maps, hypothesis)
        return BlurReading(features=features, tokens=tokens, kernels=kernels)

    def prepare_latents(self, like: Tensor, generator, latents: Tensor | None) -> Tensor:
        """Starting noise of the shape of `like`, scaled for the scheduler."""
        if latents is None:
            latents = randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)
        elif latents.shape != like.shape:
            raise ValueError(f"latents are {tuple(latents.shape)}; this image needs {tuple(like.shape)}")
        return latents.to(like.device, like.dtype) * self.scheduler.init_noise_sigma

    def pad(self, guesses: Tensor) -> Tensor:
        """`(B, G, 3, H, W)` continued at the right and bottom border to a multiple of VAE times UNet reduction."""
        multiple = self.vae_scale_factor * self.unet_scale_factor
        height, width = guesses.shape[-2:]
        return F.pad(guesses, (0, -width % multiple, 0, -height % multiple, 0, 0), mode="replicate")

    @property
    def unet_scale_factor(self) -> int:
        """By how much the UNet reduces its input at its coarsest."""
        stages = self.unet.config.get("block_out_channels") or self.unet.config.encoder_blocks
        return 2 ** (len(stages) - ("block_out_channels" in self.unet.config))
