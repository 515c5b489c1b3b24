"""What several commands take from the command line in the same way."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.assets import asset

Model = Annotated[str | None, typer.Option(help="Model folder or Hugging Face id; by default the one that ships.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Diffusion steps, for models over Stable Diffusion; by default the model's own."),
]
Seed = Annotated[int, typer.Option(help="Same seed, same image.")]
Fast = Annotated[bool, typer.Option("--fast", help="Learned estimate of the kernel only: faster, less exact.")]
Strength = Annotated[float | None, typer.Option(min=0, max=1, help="0 returns the photograph, 1 the full result.")]
KernelWindows = Annotated[
    int | None, typer.Option(min=0, help="Where blur varies: side of windows that get a kernel each, such as 256.")
]
KernelFile = Annotated[
    Path | None,
    typer.Option(
        help="The blur, where it is known: PNG, TIFF, NPY or FITS, at most 129 pixels a side around its middle."
    ),
]
ColourFix = Annotated[
    str | None, typer.Option(help="Set colours back to the photograph's: wavelet or adain; by default none.")
]
ColourStrength = Annotated[float | None, typer.Option(min=0, max=1, help="Of the colour fix; 1 is all of it.")]
BaseConfig = Annotated[str | None, typer.Option(help="Folder or hub id whose configuration describes a single file.")]
Vae = Annotated[
    str | None,
    typer.Option(help="Folder or hub id of a refined VAE (train/refine_vae.py), or of a small one such as TAESD."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...; by default the GPU where there is one.")]
Dtype = Annotated[
    str | None, typer.Option(help="Of weights and pixels: float32 (the default), bfloat16 or float16, for GPUs.")
]
DTYPES = ("float32", "bfloat16", "float16")
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]


def colour_settings(fix: str | None, strength: float | None) -> dict:
    """Keyword arguments of `fix_colours`, none where no fix is wanted. Raises `ValueError` for an unknown fix."""
    if fix is not None:
        from bd_diff.data.colour import FIXES

        if fix not in FIXES:
            raise ValueError(f"--colour-fix is {fix}; it must be one of {', '.join(FIXES)}")
    if strength is not None and fix in (None, "none"):
        raise ValueError("--colour-strength goes with --colour-fix wavelet or adain")
    return {} if fix in (None, "none") else {"fix": fix, "strength": 1.0 if strength is None else strength}


def load_system(model: str | None, device=None, dtype: str | None = None):
    """The restorer of a system at `model`, by default of the model that ships.

    Raises `ValueError` for a model that is not there, before torch is imported, and for a device or dtype that cannot
    be used.
    """
    home = model or asset("bd-diff-tiny")
    check_model(model, dtype)

    from bd_diff.restore import load

    return load(home, find_device(device), find_dtype(dtype))


def load_pipeline(model: str | None, device=None, dtype: str | None = None):
    """The restorer of BD-Diff at `model`, as `load_system`; another system is a `ValueError`."""
    restorer = load_system(model, device, dtype)

    from bd_diff.restore import require_pipeline

    return require_pipeline(restorer, model or str(asset("bd-diff-tiny")))


def check_model(model: str | None, dtype: str | None = None) -> None:
    """Raise `ValueError` for a dtype that is not known, and unless `model` is a folder with a model in it or may be an
    id of the hub. It takes no torch.
    """
    check_dtype(dtype)
    if model in (None, "bd-diff-tiny"):
        asset("bd-diff-tiny")
        return
    assert model is not None
    folder, files = Path(model), ("model_index.json", "config.json", "adapter.json")
    is_id = not folder.exists() and len(folder.parts) == 2 and not folder.is_absolute() and not model.startswith(".")
    if not is_id and not any((folder / name).is_file() for name in files):
        raise ValueError(f"{model} is not a model folder: it has neither a model_index.json nor a config.json")


def find_dtype(name: str | None):
    """The dtype of this name, None for None. Raises `ValueError` for one that is not known."""
    check_dtype(name)
    if name is None:
        return None

    import torch

    return getattr(torch, name)


def check_dtype(name: str | None) -> None:
    """Raise `ValueError` for a dtype that is not known. It takes no torch."""
    if name is not None and name not in DTYPES:
        raise ValueError(f"--dtype is {name}; it must be one of {', '.join(DTYPES)}")


def find_device(name):
    """The device of this name, None for None. Raises `ValueError` where it cannot be used."""
    if name is None:
        return None

    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend has its own
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None


def check_output(path: Path, sources: list[Path], overwrite: bool) -> None:
    """Raise before any work is done if `path` is one of the sources, already there, or not to be written."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file, such as {path / 'result.png'}")
    if any(path.exists() and source.exists() and path.samefile(source) for source in sources):
        raise ValueError(f"{path} is the input itself; choose another --out")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is already there; pass --overwrite to replace it")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raise if `folder`, which may not be there yet, cannot be written to."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, so {folder} cannot be a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {there}: {error.strerror}") from error
