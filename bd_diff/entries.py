"""What can be evaluated: the models of the project, folders of results, and baselines that need no training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from bd_diff.blur.kernels import blur
from bd_diff.colour import fix_colours
from bd_diff.data.folders import Sample
from bd_diff.data.images import EXTENSIONS, read_image, to_tensor
from bd_diff.data.kernel_files import read_kernel
from bd_diff.models.blur_operator import extend, wiener

WIENER_NOISE = 0.01  # the middle of the three levels of `bd_diff.models.blur_operator.wiener`
RICHARDSON_LUCY_STEPS = 30


@dataclass(frozen=True)
class Entry:
    """A row of a table: `restore(sample) -> (3, H, W)` in [0, 1]; `weights` is the SHA-256 of what it was made from."""

    name: str
    restore: Callable[[Sample], Tensor]
    weights: str | None = None
    settings: dict = field(default_factory=dict)


def open_entry(
    name: str,
    kernel: Path | None = None,
    seed: int = 0,
    kernel_from: str | None = None,
    use_true_kernel: bool = False,
    **settings,
) -> Entry:
    """The entry called `input`, `wiener` or `richardson-lucy`, a folder of results, or a model (folder or hub id).

    The two deconvolutions take the kernel of the file `kernel`, or the one that the BD-Diff model `kernel_from` sees
    (with `fast=True`, without its search), or the true one where the data knows it. BD-Diff takes the kernel of a file
    too, or with `use_true_kernel` the true one. `settings` are those of a model's call. Raises `ValueError` for a
    kernel or settings that the entry has no use for.
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
        return Entry(name, lambda sample: sample.blurry)
    if name in deconvolutions:
        find, weights = kernel_source(kernel, kernel_from, **settings)
        return Entry(name, lambda sample: deconvolutions[name](sample, find(sample)), weights, settings)
    if not is_model:
        return open_results(Path(name))
    find, _ = kernel_source(kernel, None) if kernel or use_true_kernel else (None, None)
    known = {"kernel": digest([kernel])} if kernel else {"kernel": "true"} if use_true_kernel else {}
    return open_model(name, seed, settings, find, known)


def kernel_source(
    kernel: Path | None, kernel_from: str | None, fast: bool = False
) -> tuple[Callable[[Sample], Tensor], str | None]:
    """`sample -> kernel (1, k, k)`, and the SHA-256 of the file or weights it comes from."""
    if kernel:
        given = read_kernel(kernel)[None]
        return lambda sample: given, digest([kernel])
    if kernel_from:
        from bd_diff.commands.options import load_pipeline
        from bd_diff.model_folder import find_folder

        folder = find_folder(kernel_from)
        pipeline = load_pipeline(str(folder)).pipeline
        weights = digest(sorted(folder.rglob("*.safetensors")))
        return lambda sample: pipeline.estimate_kernel(sample.blurry[None], fast).cpu(), weights
    return true_kernel, None


def holds_results(folder: Path) -> bool:
    """Whether this is a folder of images and not of a model."""
    return folder.is_dir() and not (folder / "model_index.json").exists() and not (folder / "config.json").exists()


def open_model(
    name: str,
    seed: int,
    settings: dict,
    find_kernel: Callable[[Sample], Tensor] | None = None,
    known: dict[str, str] | None = None,
) -> Entry:
    """A model behind the one interface of `bd_diff.restore`; every image gets the same starting noise.

    The setting `colours` is the keyword arguments of `bd_diff.colour.fix_colours`, the others are those of a call.
    `find_kernel` gives BD-Diff the kernel of a sample, which `known` tells of.
    """
    from bd_diff.commands.options import call_settings, load_pipeline, load_system
    from bd_diff.model_folder import find_folder

    folder = find_folder(name)
    restorer = (load_pipeline if find_kernel else load_system)(str(folder))
    call = {name: value for name, value in settings.items() if name != "colours"}
    colours = settings.get("colours", {"fix": "none"})

    def restore(sample: Sample) -> Tensor:
        given = {"kernels": find_kernel(sample)} if find_kernel else {}
        result = restorer(sample.blurry[None], **call_settings(restorer, seed, **call, **given)).float().cpu()
        return fix_colours(result, sample.blurry[None], **colours)[0]

    about = {"seed": seed, **settings, **(known or {})}
    return Entry(folder.name, restore, digest(sorted(folder.rglob("*.safetensors"))), about)


def open_results(folder: Path) -> Entry:
    """Results that something else wrote, found by a sample's name: `scene/1.png`, `scene_1.png` or `1.png`."""

    def restore(sample: Sample) -> Tensor:
        names = (sample.name, sample.name.replace("/", "_"), Path(sample.name).name)
        for path in (folder / f"{name}{ending}" for name in names for ending in EXTENSIONS):
            if path.is_file():
                return to_tensor(read_image(path))
        raise ValueError(
            f"{folder} has no result for {sample.name}; it would be called {names[0]}.png or {names[1]}.png"
        )

    return Entry(folder.name, restore)


def true_kernel(sample: Sample) -> Tensor:
    """The kernel `(1, k, k)` that blurred the sample, where that is known."""
    if sample.kernel is None:
        raise ValueError(f"the kernel of {sample.name} is not known; give one with --kernel or --kernel-from")
    return sample.kernel[None]


def deconvolve_wiener(sample: Sample, kernel: Tensor) -> Tensor:
    """Wiener deconvolution by a kernel `(1, k, k)`."""
    return wiener(sample.blurry[None], kernel, (WIENER_NOISE,))[0, 0].clamp(0, 1)


def deconvolve_richardson_lucy(sample: Sample, kernel: Tensor) -> Tensor:
    """Richardson (1972) and Lucy (1974): 30 multiplicative steps, on an image reflected beyond its borders."""
    reach = kernel.shape[-1] // 2
    blurry = extend(sample.blurry[None], reach, reach, reach, reach).clamp_min(1e-4)
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
