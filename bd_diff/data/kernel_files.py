"""Kernels that were measured: from a PNG, TIFF, NPY or FITS file, or as arrays, to `(k, k)` tensors that sum to one.

A kernel blurs by true convolution: y(p) = sum over q of k(q) x(p - q), q counted from the kernel's middle. So a point
of light is pictured as the kernel lies in its file, row 0 on top: what a star or a bead shows is the kernel. The middle
of a side of n values is value n // 2, counted from 0, as `numpy.fft.fftshift` and MATLAB's `psf2otf` have it: that of
an odd side is its middle value; a symmetric kernel of even side moves the picture by half a pixel to the upper left.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bd_diff.blur.kernels import delta, normalize, same_size
from bd_diff.data.images import read_image, to_tensor
from bd_diff.data.names import FITS
from bd_diff.data.pixels import luminance

LARGEST = 129  # pixels a side
ARRAYS = (".npy", ".tif", ".tiff", *FITS)  # read as they are; other files as photographs


def read_kernel(path: str | os.PathLike) -> Tensor:
    """The kernel `(k, k)` in a file, k odd and at least 3, non-negative, sum one, the file's middle in its middle.

    Values are taken as they are, in proportion to light: 8 or 16 bit PNG, TIFF and NPY of any number (of colours the
    luminance), the first image of a FITS file (with the extra `fits`). Sides may be even and different; margins of
    zeros on all sides are cut off. Raises ValueError, naming the file, for what is no kernel: nothing but zeros,
    negative values, NaN or infinity, more than two dimensions, more than `LARGEST` pixels a side.
    """
    path = Path(path)
    if path.suffix.lower() not in ARRAYS:
        return as_kernel(luminance(to_tensor(read_image(path))[None])[0, 0], str(path))
    if not path.is_file():
        raise ValueError(f"{path} {'is a folder, not a kernel' if path.is_dir() else 'does not exist'}")
    if path.suffix.lower() in FITS and find_spec("astropy") is None:
        raise ValueError(f"{path} is a FITS file; pip install 'bd-diff[fits]' to read it")
    try:
        values = read_array(path)
    except Exception as error:  # the readers raise anything on damaged files; each means the same to the user
        raise ValueError(f"{path} cannot be read as a kernel: {' '.join(str(error).split())}") from error
    values = without_batch(values)
    if values.ndim == 3 and values.shape[-1] in (3, 4) and path.suffix.lower() not in FITS and is_real(values):
        return as_kernel(
            luminance(torch.from_numpy(values[..., :3].astype(np.float64)).movedim(-1, 0)[None])[0, 0], str(path)
        )
    return as_kernel(values, str(path))


def read_array(path: Path) -> np.ndarray:
    """The numbers of an NPY, TIFF or FITS file."""
    if path.suffix.lower() == ".npy":
        with open(path, "rb") as file:
            try:
                return np.lib.format.read_array(file, allow_pickle=False)
            except ValueError as error:  # in words about pickles
                raise ValueError("it is damaged, or no NPY file of numbers") from error
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        return tifffile.imread(path)
    from astropy.io import fits  # Pillow 12.3 mistakes the order of the bytes

    with fits.open(path, memmap=False) as parts:
        images = [part.data for part in parts if part.is_image and part.data is not None]
    if not images:
        raise ValueError("it holds no image")
    return images[0]


def without_batch(values: np.ndarray) -> np.ndarray:
    """Values without leading axes of one, as a batch of one kernel has them."""
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    return values


def is_real(values: np.ndarray) -> bool:
    """Whether these are real numbers or booleans."""
    return values.dtype.kind in "buif"


def as_kernel(values, name: str) -> Tensor:
    """Values `(h, w)`, an array or a tensor, as a kernel `(k, k)` (see `read_kernel`); errors begin with `name`."""
    if isinstance(values, Tensor):  # NumPy has no bfloat16
        values = (values.double() if values.is_floating_point() else values).detach().cpu()
    values = without_batch(np.asarray(values))
    if values.ndim != 2 or not values.size or not is_real(values):
        raise ValueError(f"{name} is {values.dtype} of shape {values.shape}; a kernel is one table of real numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values; a kernel has none")
    if values.min() < 0:
        raise ValueError(f"{name} holds negative values, down to {values.min():.3g}; a kernel has none")
    if not values.any():
        raise ValueError(f"{name} is all zero; a kernel needs some light")
    height, width = values.shape
    rows, columns = (np.flatnonzero(values.any(axis)) for axis in (1, 0))
    reach = max(
        *(abs(int(row) - height // 2) for row in (rows[0], rows[-1])),
        *(abs(int(column) - width // 2) for column in (columns[0], columns[-1])),
        1,
    )
    if 2 * reach + 1 > LARGEST:
        raise ValueError(
            f"{name} reaches {reach} pixels from its middle, value {width // 2} of row {height // 2}; "
            f"kernels may reach {LARGEST // 2}, crop it around its middle"
        )
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    top, left = reach - height // 2, reach - width // 2
    kernel[rows[0] + top : rows[-1] + top + 1, columns[0] + left : columns[-1] + left + 1] = values[
        rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1
    ]
    return normalize(torch.from_numpy(kernel / kernel.max())).float()


def as_kernels(given, count: int) -> Tensor:
    """Kernels `(count, k, k)` of one size, 33 or more, from one for all or as many as there are images: a path, an
    array, a tensor or nested lists of numbers, `(h, w)` or `(B, h, w)`, or a list of paths, arrays and tensors. Raises
    ValueError for what is no kernel.
    """
    if isinstance(given, str | os.PathLike):
        found = [read_kernel(given)]
    elif isinstance(given, list | tuple) and not all(isinstance(one, list | tuple) for one in given):
        found = [
            read_kernel(one) if isinstance(one, str | os.PathLike) else as_kernel(one, f"kernels[{index}]")
            for index, one in enumerate(given)
        ]
    elif np.ndim(given) == 3:
        found = [as_kernel(one, f"kernels[{index}]") for index, one in enumerate(given)]
    else:
        found = [as_kernel(given, "kernels")]
    if len(found) not in (1, count):
        raise ValueError(f"kernels holds {len(found)} for {count} images; give one or as many")
    return torch.stack(same_size([*found, delta(1)[0]])[:-1]).expand(count, -1, -1)
