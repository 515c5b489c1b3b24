"""Methods to evaluate: the models of the project, folders of results, and baselines that need no training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bd_diff.blur.kernels import blur
from bd_diff.blur.operator import extend, wiener
from bd_diff.data.colour import fix_colours
from bd_diff.data.images import EXTENSIONS, read_image, to_tensor
from bd_diff.data.kernel_files import read_kernel
from bd_diff.data.pairs import Pair
from bd_diff.models.model_folder import ADAPTER, find_folder
from bd_diff.restore import call_settings, load, require_pipeline

WIENER_NOISE = 0.01  # the middle of the three levels of `bd_diff.blur.operator.wiener`
RICHARDSON_LUCY_STEPS = 30


@dataclass(frozen=True)
class Method:
    """A deblurring method: `restore(pair) -> (3, H, W)` in [0, 1]; `weights` is the SHA-256 of its files."""

    name: str
    restore: Callable[[Pair], Tensor]
    weights: str | None = None
    settings: dict = field(default_factory=dict)


def open_method(
    name: str,
    kernel: Path | None = None,
    seed: int = 0,
    kernel_from: str | None = None,
    use_true_kernel: bool = False,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    **settings,
) -> Method:
    """The method called `input`, `wiener` or `richardson-lucy`, a folder of results, or a model (folder or hub id).

    The two deconvolutions use the kernel in the file `kernel`, or the one that the BD-Diff model `kernel_from`
    estimates (with `fast=True`, without its search), or else the data's true kernel. BD-Diff uses the kernel in a file
    too, or with `use_true_kernel` the true one. A model is loaded to `device` as `dtype`; `settings`
    are those of its call. Raises `ValueError` for a kernel or settings that the method does not take.
    """
    deconvolutions = {"wiener": deconvolve_wiener, "richardson-lucy": deconvolve_richardson_lucy}
    settings = {key: value for key, value in settings.items() if value is not None and value is not False}
    is_model = name not in {"input", *deconvolutions} and not holds_results(Path(name))
    if unused := set(settings) - ({"fast"} if kernel_from else set()) if not is_model else set():
        raise ValueError(f"{name} has no setting {', '.join(sorted(unused))}; only models have")
    if (
        kernel_from
        and name not in deconvolutions
        or (kernel or use_true_kernel)
        and not (is_model or name in deconvolutions)
    ):
        raise ValueError(f"{name} takes no kernel; wiener, richardson-lucy and, but for --kernel-from, BD-Diff do")
    if name == "input":
        return Method(name, lambda pair: pair.blurry)
    if name in deconvolutions:
        find, weights = kernel_source(kernel, kernel_from, device=device, dtype=dtype, **settings)
        settings |= {"kernel_from": kernel_from} if kernel_from else {}
        return Method(name, lambda pair: deconvolutions[name](pair, find(pair)), weights, settings)
    if not is_model:
        return open_results(Path(name))
    find_kernel = kernel_source(kernel, None)[0] if kernel or use_true_kernel else None
    source = {"kernel": digest([kernel])} if kernel else {"kernel": "true"} if use_true_kernel else {}
    return open_model(name, seed, settings, find_kernel, source, device, dtype)


def kernel_source(
    kernel: Path | None,
    kernel_from: str | None,
    fast: bool = False,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Callable[[Pair], Tensor], str | None]:
    """`pair -> kernel (1, k, k)`, and the SHA-256 of the file or weights it comes from."""
    if kernel:
        given = read_kernel(kernel)[None]
        return lambda pair: given, digest([kernel])
    if kernel_from:
        folder = find_folder(kernel_from)
        pipeline = require_pipeline(load(folder, device, dtype), kernel_from).pipeline
        weights = digest(sorted(folder.rglob("*.safetensors")))
        return lambda pair: pipeline.estimate_kernel(pair.blurry[None], fast).cpu(), weights
    return true_kernel, None


def holds_results(folder: Path) -> bool:
    """Whether this is a folder of images and not of a model."""
    return folder.is_dir() and not any(
        (folder / name).exists() for name in ("model_index.json", "config.json", ADAPTER)
    )


def open_model(
    name: str,
    seed: int,
    settings: dict,
    find_kernel: Callable[[Pair], Tensor] | None = None,
    kernel_source: dict[str, str] | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Method:
    """A model loaded by `bd_diff.restore`; every image gets the same starting noise.

    The setting `colours` is the keyword arguments of `bd_diff.data.colour.fix_colours`, the others are those of a call.
    `find_kernel` gives BD-Diff the kernel of a pair; `kernel_source` names it in the settings.
    """
    folder = find_folder(name)
    restorer = load(folder, device, dtype)
    if find_kernel:
        require_pipeline(restorer, name)
    call = {name: value for name, value in settings.items() if name != "colours"}
    colours = settings.get("colours", {"fix": "none"})

    def restore(pair: Pair) -> Tensor:
        given: dict = {"kernels": find_kernel(pair)} if find_kernel else {}
        result = restorer(pair.blurry[None], **call_settings(restorer, seed, **call, **given)).float().cpu()
        return fix_colours(result, pair.blurry[None], **colours)[0]

    made_of = sorted([*folder.rglob("*.safetensors"), *folder.glob(ADAPTER)])  # which has the hash of its base
    return Method(model_name(name), restore, digest(made_of), {"seed": seed, **settings, **(kernel_source or {})})


def model_name(folder_or_id: str) -> str:
    """What a model is called in result cards: its hub id, or the name of its folder.

    Training writes `<run.folder>/pipeline`; that is called as `run.folder` is, or every model were a `pipeline`.
    """
    folder = Path(folder_or_id)
    if not folder.is_dir():
        return folder_or_id
    folder = folder.resolve()
    return folder.parent.name if folder.name == "pipeline" else folder.name


def open_results(folder: Path) -> Method:
    """Results that something else wrote, found by a pair's name: `scene/1.png`, `scene_1.png` or `1.png`."""

    def restore(pair: Pair) -> Tensor:
        names = (pair.name, pair.name.replace("/", "_"), Path(pair.name).name)
        for path in (folder / f"{name}{ending}" for name in names for ending in EXTENSIONS):
            if path.is_file():
                return to_tensor(read_image(path))
        raise ValueError(f"{folder} has no result for {pair.name}; it would be called {names[0]}.png or {names[1]}.png")

    return Method(folder.name, restore)


def true_kernel(pair: Pair) -> Tensor:
    """The kernel `(1, k, k)` that blurred the image, where that is known."""
    if pair.kernel is None:
        raise ValueError(f"the kernel of {pair.name} is not known; give one with --kernel or --kernel-from")
    return pair.kernel[None]


def deconvolve_wiener(pair: Pair, kernel: Tensor) -> Tensor:
    """Wiener deconvolution by a kernel `(1, k, k)`."""
    return wiener(pair.blurry[None], kernel, (WIENER_NOISE,))[0, 0].clamp(0, 1)


def deconvolve_richardson_lucy(pair: Pair, kernel: Tensor) -> Tensor:
    """Richardson (1972) and Lucy (1974): 30 multiplicative steps, on an image reflected beyond its borders."""
    reach = kernel.shape[-1] // 2
    blurry = extend(pair.blurry[None], reach, reach, reach, reach).clamp_min(1e-4)
    estimate = blurry
    for _ in range(RICHARDSON_LUCY_STEPS):
        ratio = blurry / blur(estimate, kernel, "replicate").clamp_min(1e-4)
        estimate = (estimate * blur(ratio, kernel.flip(-2, -1), "replicate")).clamp_min(1e-4)
    return estimate[0, :, reach:-reach, reach:-reach].clamp(0, 1)


def digest(paths: list[Path]) -> str:
    """SHA-256 of the files' contents, in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()
