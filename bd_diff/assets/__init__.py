"""What ships inside the package: the model that is taken by default, and sharp photographs to adapt it with."""

from importlib.resources import files
from pathlib import Path


def asset(name: str) -> Path:
    """The folder of the model, "bd-diff-tiny", or of the photographs, "sharp". Raises `ValueError` where it is not on
    the disk: the package was copied without it, or is run from an archive.
    """
    folder = Path(str(files(__name__).joinpath(name)))
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing from this installation; install bd-diff again with pip")
    return folder
