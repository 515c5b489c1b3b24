"""Short names of image encoders: the section `networks.image_encoder` of a configuration for each of them."""

import difflib
from pathlib import Path
from typing import Any

NAMES = {
    "clip": "clip:openai/clip-vit-large-patch14",
    "openclip": "openclip:ViT-H-14:laion2b_s32b_b79k",
}
CHOICES = f"small, {', '.join(NAMES)}, clip:FOLDER_OR_HUB_ID, openclip:NAME:TAG_OR_FILE"
CLIP_SIZES = ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers",
              "num_attention_heads", "hidden_act")  # fmt: skip


def image_encoder_section(choice: str) -> dict[str, Any]:
    """The section `networks.image_encoder` of a configuration for one of `CHOICES`.

    "small" reads structure from pixels and is trained; the others are frozen vision towers of transformers or OpenCLIP,
    whose size is looked up. Raises ValueError for an unknown name, and for a tower whose size or weights are not found.
    """
    if choice == "small":
        return {}
    library, _, source = NAMES.get(choice, choice).partition(":")
    if library not in NAMES or not source:
        raise ValueError(f"there is no image encoder {choice!r}; choose from {CHOICES}")
    section = {"class": "ClipImageEncoder", "source": source}
    if library == "clip":
        return section | {"library": "transformers", "tower": clip_tower(source)}
    return section | {"library": "open_clip", "tower": openclip_tower(*source.partition(":")[::2])}


def clip_tower(source: str) -> dict[str, Any]:
    """Sizes of the vision tower of a CLIP model of transformers; `source` is a folder or hub id."""
    from transformers import CLIPVisionConfig

    try:
        config = CLIPVisionConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"image encoder clip: there is no CLIP in {source} ({reason})") from error
    return {name: getattr(config, name) for name in CLIP_SIZES}


def openclip_tower(name: str, weights: str) -> dict[str, Any]:
    """Sizes of the vision tower of an OpenCLIP model, after checking that its weights exist, by tag or file."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 1)
        hint = f"did you mean {near[0]}?" if near else "see open_clip.list_models()"
        raise ValueError(f"image encoder openclip: there is no model {name}; {hint}")
    tower = config["vision_cfg"]
    if "timm_model_name" in tower or not isinstance(tower["layers"], int) or config.get("quick_gelu"):
        raise ValueError(f"image encoder openclip: {name} is no plain vision transformer with GELU; take ViT-H-14, say")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"image encoder openclip: for {name} there are no weights {weights or 'named'}; "
            f"give a file or one of {', '.join(tags)}"
        )
    return tower
