"""The components of a pipeline from a configuration: which class each is, and how it is built."""

import difflib
import inspect
import re
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.clip_encoder import ClipImageEncoder
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.patch_qformer import PatchQFormer
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.qformer import QFormer
from bd_diff.models.unet import NAFUNet

COMPONENTS = {
    "image_encoder": ImageEncoder,
    "structure_qformer": QFormer,
    "blur_qformer": PatchQFormer,  # QFormer where there is no blur decoder
    "blur_decoder": BlurDecoder,
    "unet": NAFUNet,
    "vae": PixelVAE,
    "scheduler": DDIMScheduler,
}
OWN_CLASSES = {kind.__name__: kind for kind in (*COMPONENTS.values(), ClipImageEncoder)}


def build_components(sections: dict[str, Any], **ready) -> dict[str, Any]:
    """The constructor arguments of an untrained pipeline: its components and plain settings.

    Each section holds the keyword arguments of its component's constructor; `class` in a section names another class of
    this package or of diffusers; `pipeline` holds the plain settings. Components in `ready` are taken as they are; a
    section `blur_decoder` that is None leaves it out, and blur tokens are then those of a `QFormer`. Raises ValueError
    for unknown names.
    """
    if unknown := sorted(set(sections) - {*COMPONENTS, "pipeline"}):
        raise ValueError(
            f"networks: there is no component {unknown[0]}; the sections are {', '.join(COMPONENTS)}, pipeline"
        )
    explicit = sections.get("blur_decoder", {}) is not None
    components = {}
    for name, default in COMPONENTS.items():
        if name == "blur_qformer" and not explicit:
            default = QFormer
        if name in ready:
            components[name] = ready[name]
            continue
        if name == "blur_decoder" and not explicit:
            components[name] = None
            continue
        arguments = dict(sections.get(name) or {})
        kind = arguments.pop("class", None)
        cls = default if kind is None else OWN_CLASSES.get(kind) or getattr(diffusers, kind, None)
        if cls is None:
            raise ValueError(
                f"networks.{name}: there is no class {kind} in diffusers, nor among {', '.join(OWN_CLASSES)}"
            )
        components[name] = construct(cls, arguments, f"networks.{name}")
    return components | (sections.get("pipeline") or {})


def construct(cls: type, values: dict[str, Any], where: str) -> Any:
    """`cls(**values)`: the constructor is the schema; a name it does not have is an error that names the nearest."""
    constructor = cls.__init__  # type: ignore[misc]  # of a class, though the types cannot say so
    parameters = [name for name in inspect.signature(constructor).parameters if name != "self"]
    for name in values:
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(parameters)}"
            raise ValueError(f"{where}: {cls.__name__} has no {name}; {hint}")
        if isinstance(values[name], str) and re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", values[name]):
            raise ValueError(f"{where}: {name} is the text {values[name]!r}; write 1.0e-4, YAML reads 1e-4 as text")
    return cls(**values)
