"""Kernels from files and arrays: the right values at the right place, and nothing that is no kernel."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from bd_diff.blur.kernels import blur
from bd_diff.data.kernel_files import LARGEST, as_kernel, as_kernels, read_kernel

UNEVEN = np.array([[0, 1, 0, 0, 0], [0, 2, 8, 0, 0], [0, 0, 0, 4, 0]], dtype=np.float64)  # 3 rows, 5 columns


def write_fits(path, values):
    """The plainest FITS file (NASA's standard 4.0): one header block, then big-endian numbers."""
    kinds = {"uint8": 8, "int16": 16, "float32": -32, "float64": -64}
    cards = ["SIMPLE  = " + "T".rjust(20), f"BITPIX  = {kinds[values.dtype.name]:20d}", f"NAXIS   = {values.ndim:20d}"]
    cards += [f"NAXIS{axis + 1}  = {side:20d}" for axis, side in enumerate(reversed(values.shape))]
    header = "".join(card.ljust(80) for card in [*cards, "END"]).encode()
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(header + b" " * (-len(header) % 2880) + data + b"\0" * (-len(data) % 2880))


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".fits":
        write_fits(path, values)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("k.png", "uint8"),
        ("k.png", "uint16"),
        ("k.tif", "uint8"),
        ("k.tif", "uint16"),
        ("k.tif", "float32"),
        ("k.tif", "float64"),
        ("k.npy", "float64"),
        ("k.npy", "int32"),
        ("k.fits", "int16"),
        ("k.fits", "float32"),
        ("k.fits", "float64"),
    ],
)
def test_every_kind_of_file_gives_its_values_in_order(tmp_path, name, kind):
    if name.endswith("fits"):
        pytest.importorskip("astropy")
    write(tmp_path / name, UNEVEN.astype(kind))
    kernel = read_kernel(tmp_path / name)
    assert kernel.shape == (3, 3) and kernel.dtype == torch.float32
    assert torch.allclose(kernel * 15, torch.tensor([[1.0, 0, 0], [2, 8, 0], [0, 0, 4]]))


def test_colours_count_by_their_luminance(tmp_path):
    colours = np.zeros((3, 3, 3), dtype=np.float32)
    colours[1, 1], colours[1, 2] = (1, 1, 1), (0, 1, 0)
    tifffile.imwrite(tmp_path / "k.tif", colours, photometric="rgb")
    Image.fromarray((colours * 255).astype(np.uint8)).save(tmp_path / "k.png")
    np.save(tmp_path / "k.npy", colours)
    for name in ("k.tif", "k.png", "k.npy"):
        kernel = read_kernel(tmp_path / name)
        assert float(kernel[1, 2] / kernel[1, 1]) == pytest.approx(0.587)


def test_a_batch_of_one_narrow_kernel_is_no_picture_of_colours(tmp_path):
    upright = np.zeros((1, 3, 3), dtype=np.float32)
    upright[0, :, 1] = 0.2, 0.6, 0.2
    np.save(tmp_path / "k.npy", upright)
    assert torch.allclose(read_kernel(tmp_path / "k.npy"), torch.from_numpy(upright[0]))


def test_a_point_beside_the_middle_moves_the_picture_there():
    values = np.zeros((5, 7))
    values[0, 5] = 3  # two above and two to the right of the middle, value (2, 3)
    star = torch.zeros(1, 1, 21, 21)
    star[..., 10, 10] = 1
    moved = blur(star, as_kernel(values, "k")[None])
    assert moved.flatten().argmax() == 8 * 21 + 12 and float(moved.max()) == pytest.approx(1)


def test_a_point_of_light_is_pictured_as_the_kernel_lies_in_its_file():
    star = torch.zeros(1, 1, 21, 21)
    star[..., 10, 10] = 1
    pictured = blur(star, as_kernel(UNEVEN, "k")[None])[0, 0]
    assert torch.allclose(pictured[9:12, 8:13] * 15, torch.from_numpy(UNEVEN).float(), atol=1e-6)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("width", [2, 5, 6])
def test_the_middle_of_a_side_is_its_half_rounded_down(height, width):
    values = np.zeros((height, width))
    values[height // 2, width // 2] = 5
    kernel = as_kernel(values, "k")
    assert torch.equal(kernel, torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))


@pytest.mark.parametrize("side, shift", [(8, -0.5), (9, 0.0)])
def test_a_symmetric_kernel_moves_the_picture_by_half_a_pixel_where_its_side_is_even(side, shift):
    distances = np.arange(side) - (side - 1) / 2
    values = np.exp(-(distances[:, None] ** 2 + distances**2) / 4)
    star = torch.zeros(1, 1, 41, 41)
    star[..., 20, 20] = 1
    image = blur(star, as_kernel(values, "k")[None])[0, 0].double()
    places = torch.arange(41.0, dtype=torch.float64) - 20
    assert float((image.sum(0) * places).sum()) == pytest.approx(shift, abs=1e-5)
    assert float((image.sum(1) * places).sum()) == pytest.approx(shift, abs=1e-5)


def test_margins_of_zeros_are_cut_off_and_change_nothing():
    wide = np.zeros((300, 201))
    wide[149:152, 98:103] = UNEVEN
    assert torch.equal(as_kernel(wide, "k"), as_kernel(UNEVEN, "k"))


def test_a_kernel_may_be_as_large_as_is_said_and_no_larger():
    values = np.ones((LARGEST, LARGEST - 2))
    assert as_kernel(values, "k").shape == (LARGEST, LARGEST)
    with pytest.raises(
        ValueError, match="psf reaches 65 pixels from its middle, value 65 of row 65; kernels may reach 64"
    ):
        as_kernel(np.ones((LARGEST + 2, LARGEST + 2)), "psf")


@pytest.mark.parametrize(
    "values, complaint",
    [
        (np.array([[0.5, -1e-6], [1, 1]]), "holds negative values, down to -1e-06"),
        (np.array([[np.nan, 1]]), "holds NaN or infinite values"),
        (np.array([[np.inf, 1]]), "holds NaN or infinite values"),
        (np.zeros((5, 5)), "is all zero"),
        (np.ones((2, 5, 5)), "a kernel is one table of real numbers"),
        (np.ones((5, 5), dtype=complex), "a kernel is one table of real numbers"),
        (np.ones(5), "a kernel is one table of real numbers"),
        (np.ones((0, 5)), "a kernel is one table of real numbers"),
    ],
)
def test_what_is_no_kernel_is_refused_by_the_name_of_its_file(tmp_path, values, complaint):
    np.save(tmp_path / "psf.npy", values)
    with pytest.raises(ValueError, match=f"psf.npy .*{complaint}"):
        read_kernel(tmp_path / "psf.npy")


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.tif").write_bytes(b"II*")
    np.save(tmp_path / "objects.npy", np.array([{}]))
    for name in ("broken.npy", "broken.tif", "objects.npy"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a kernel"):
            read_kernel(tmp_path / name)
    with pytest.raises(ValueError, match="missing.npy does not exist"):
        read_kernel(tmp_path / "missing.npy")


@pytest.mark.parametrize("values", ["hi", np.array([{"a": 1}], dtype=object)])
def test_what_is_no_npy_file_of_numbers_is_told_without_advice_about_pickles(tmp_path, values):
    path = tmp_path / "junk.npy"
    path.write_text(values) if isinstance(values, str) else np.save(path, values)
    with pytest.raises(
        ValueError, match="junk.npy cannot be read as a kernel: it is damaged, or no NPY file of numbers"
    ):
        read_kernel(path)


def test_fits_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    write_fits(tmp_path / "psf.fits", UNEVEN)
    monkeypatch.setattr("bd_diff.data.kernel_files.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"psf.fits is a FITS file; pip install 'bd-diff\[fits\]'"):
        read_kernel(tmp_path / "psf.fits")


def test_one_kernel_serves_all_images_and_several_grow_to_one_size():
    assert as_kernels(UNEVEN, 3).shape == (3, 33, 33)
    for same in (UNEVEN.tolist(), torch.tensor(UNEVEN).bfloat16(), torch.tensor(UNEVEN).half()):
        assert torch.equal(as_kernels(same, 3), as_kernels(UNEVEN, 3))
    assert torch.equal(as_kernels([UNEVEN.tolist()] * 2, 2), as_kernels([UNEVEN] * 2, 2))
    with pytest.raises(ValueError, match=r"kernels\[1\] is all zero"):
        as_kernels([UNEVEN, 0 * UNEVEN], 2)
    both = as_kernels([torch.ones(1, 1), np.ones((5, 35))], 2)
    assert both.shape == (2, 35, 35) and float(both[0, 17, 17]) == 1 and torch.allclose(both.sum((1, 2)), torch.ones(2))
    assert torch.equal(as_kernels(torch.ones(2, 5, 35), 2)[1], both[1])
    with pytest.raises(ValueError, match="kernels holds 2 for 3 images"):
        as_kernels(np.ones((2, 5, 5)), 3)
