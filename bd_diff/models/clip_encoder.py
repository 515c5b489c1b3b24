"""Structure from a frozen CLIP vision tower, blur at native resolution: the image encoder at Stable Diffusion scale."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from bd_diff.models.image_encoder import ImageEncoder, ImageFeatures

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP, Radford et al. 2021
# OpenCLIP builds its vision towers together with a text tower, which is thrown away: let it be small.
NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


class ClipImageEncoder(ModelMixin, ConfigMixin):
    """An `ImageEncoder` whose structure features come from CLIP; the blur ones are `ImageEncoder`'s own.

    CLIP sees an image at 224 pixels a side: it recognises the content and cannot see a blur of five pixels.

    Args:
        tower: its size, as `transformers.CLIPVisionConfig` or as `vision_cfg` of OpenCLIP's configurations.
        library: "transformers" or "open_clip".
        source: where the tower's weights come from, see `load_tower`; None keeps those it has.
        feature_channels, map_channels: of the blur features, see `ImageEncoder`.
    """

    borrowed = ("vision",)
    vision: Any  # CLIPVisionModel or OpenCLIP's VisionTransformer
    mean: Tensor
    std: Tensor

    @register_to_config
    def __init__(
        self,
        tower: dict[str, Any],
        library: str = "transformers",
        source: str | None = None,
        feature_channels: int = 128,
        map_channels: int = 32,
    ):
        super().__init__()
        self.vision = build_tower(library, tower).requires_grad_(False)
        self.blur = ImageEncoder(feature_channels=feature_channels, map_channels=map_channels)
        del self.blur.structure
        self.side = tower["image_size"]
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    forward = ImageEncoder.forward  # with structure `(B, N, width)`

    @torch.no_grad()
    def encode_structure(self, pixels: Tensor) -> Tensor:
        """The tower's patches `(B, N, width)` before its last layer, of the whole picture at the tower's size."""
        images = F.interpolate(pixels / 2 + 0.5, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        images = ((images - self.mean) / self.std).to(pixels.dtype)
        if self.config.library == "transformers":
            return self.vision(images, output_hidden_states=True).hidden_states[-2][:, 1:]
        found = self.vision.forward_intermediates(images, indices=[-2], intermediates_only=True, output_fmt="NLC")
        return found["image_intermediates"][0]

    def encode_blur(self, maps, spectrum, hypothesis=None, evidence=None) -> ImageFeatures:
        return self.blur.encode_blur(maps, spectrum, hypothesis, evidence)

    def encode_kernel(self, kernels: Tensor) -> Tensor:
        return self.blur.encode_kernel(kernels)

    def load_tower(self) -> None:
        """Fill the tower from `source`: for transformers a folder or hub id; for OpenCLIP `NAME:PRETRAINED`, such as
        `ViT-H-14:laion2b_s32b_b79k`, or a .safetensors file of the tower. Raises ValueError where that does not fit.
        """
        source = self.config.source
        try:
            if self.config.library == "transformers":
                state = CLIPVisionModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True).state_dict()
            elif Path(source).is_file():
                state = {name.removeprefix("visual."): tensor for name, tensor in load_file(source).items()}
            else:
                import open_clip

                name, _, pretrained = source.partition(":")
                state = open_clip.create_model(name, pretrained=pretrained).visual.state_dict()
            self.vision.load_state_dict(state)
        except Exception as error:  # no network, no such model, another size: each has its own class there
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the vision tower cannot be loaded from {source}: {reason}") from error


def build_tower(library: str, size: dict[str, Any]) -> nn.Module:
    """A vision tower with random weights. Raises ValueError for an unknown library or size."""
    if library == "transformers":
        return CLIPVisionModel(CLIPVisionConfig(**size))
    if library != "open_clip":
        raise ValueError(f"image_encoder: there is no library {library!r}; choose transformers or open_clip")
    import open_clip

    return open_clip.CLIP(embed_dim=size["width"], vision_cfg=dict(size), text_cfg=NO_TEXT).visual
