"""16 bits per colour come in and go out with every level, their colour profile and EXIF, checked by other libraries."""

import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from bd_diff.data.deep import DeepImage
from bd_diff.data.drawing import contact_sheet
from bd_diff.data.images import read_image, save_image, to_image, to_tensor

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHANNELS = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}
TURNS = {  # what the camera did for each orientation, and the reader has to undo
    1: lambda scene: scene,
    2: np.fliplr,
    3: lambda scene: np.rot90(scene, 2),
    4: np.flipud,
    5: lambda scene: scene.swapaxes(0, 1),
    6: lambda scene: np.rot90(scene, 1),
    7: lambda scene: np.rot90(scene, 2).swapaxes(0, 1),
    8: lambda scene: np.rot90(scene, 3),
}


def scene(channels=3):
    """16x24 pixels, all levels different."""
    return np.random.default_rng(0).permutation(65536)[: 16 * 24 * channels].reshape(16, 24, -1).astype(np.uint16)


def camera_exif(orientation=1):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = orientation, "Test Camera"
    exif.get_ifd(0x8769)[0xA434], exif.get_ifd(0x8769)[0x829A] = "Test Lens", 0.02
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def write(levels, path, **info):
    save_image(DeepImage(np.ascontiguousarray(levels), info), path)
    return path


def decoded(path):
    """By libpng or tifffile alone."""
    return imagecodecs.png_decode(path.read_bytes()) if path.suffix == ".png" else tifffile.imread(path)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_png_of_another_program_comes_back_with_every_level(tmp_path, channels):
    levels, path = scene(channels), tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(levels))
    photograph = read_image(path)
    assert photograph.mode == CHANNELS[channels] and photograph.size == (24, 16)
    save_image(to_image(to_tensor(photograph), like=photograph), tmp_path / "out.png")
    assert np.array_equal(decoded(tmp_path / "out.png"), levels)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    "stored", [{}, {"compression": "lzw"}, {"compression": "deflate", "predictor": True}, {"byteorder": ">"}]
)
def test_a_tiff_of_another_program_comes_back_with_every_level(tmp_path, channels, stored):
    levels, path = scene(channels), tmp_path / "deep.tif"
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(path, levels, photometric="rgb", planarconfig="contig", extrasamples=extra, **stored)
    photograph = read_image(path)
    assert photograph.mode == CHANNELS[channels]
    save_image(to_image(to_tensor(photograph), like=photograph), tmp_path / "out.tiff")
    assert np.array_equal(decoded(tmp_path / "out.tiff"), levels)


def test_a_tiff_with_its_colours_one_after_another_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", scene().transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "deep.tif").levels, scene())


def test_a_transparent_colour_becomes_alpha(tmp_path):
    encoded = imagecodecs.png_encode(scene())
    keyed = b"\0\0\0\x06tRNS" + scene()[3, 5].astype(">u2").tobytes()
    keyed += zlib.crc32(keyed[4:]).to_bytes(4, "big")
    (tmp_path / "keyed.png").write_bytes(encoded[:33] + keyed + encoded[33:])
    levels = read_image(tmp_path / "keyed.png").levels
    assert np.array_equal(levels[..., :3], scene())
    assert levels[3, 5, 3] == 0 and (levels[..., 3] == 65535).sum() == 16 * 24 - 1


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_orientation_comes_in_upright_and_goes_out_upright(tmp_path, orientation, ending):
    path = write(TURNS[orientation](scene()), tmp_path / f"phone.{ending}", exif=camera_exif(orientation))
    photograph = read_image(path)
    assert np.array_equal(photograph.levels, scene())
    save_image(photograph, tmp_path / f"out.{ending}")
    assert np.array_equal(decoded(tmp_path / f"out.{ending}"), scene())
    assert Image.open(tmp_path / f"out.{ending}").getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("ending, channels", [("png", 2), ("png", 3), ("png", 4), ("tif", 3), ("tif", 4)])
def test_profile_and_exif_survive_with_what_is_nested_in_them(tmp_path, ending, channels):
    first = write(scene(channels), tmp_path / f"first.{ending}", icc_profile=SRGB, exif=camera_exif())
    photograph = read_image(first)
    out = write(photograph.levels, tmp_path / f"out.{ending}", **photograph.info)
    result = Image.open(out)
    exif = result.getexif()
    assert result.info["icc_profile"] == SRGB
    assert exif[0x0110] == "Test Camera"
    assert exif.get_ifd(0x8769)[0xA434] == "Test Lens" and float(exif.get_ifd(0x8769)[0x829A]) == 0.02
    assert exif.get_ifd(0x8825)[1] == "N"


def test_colours_change_and_alpha_stays():
    photograph = DeepImage(scene(4), {"icc_profile": SRGB})
    result = to_image(torch.full((3, 16, 24), 0.5), like=photograph)
    assert (result.levels[..., :3] == 32768).all()
    assert np.array_equal(result.levels[..., 3], photograph.levels[..., 3])
    assert result.info == photograph.info


@pytest.mark.parametrize("ending", ["jpg", "webp", "bmp"])
def test_a_format_of_eight_bits_is_refused(tmp_path, ending):
    with pytest.raises(ValueError, match=f"photo.{ending}: .* cannot hold 16 bits per colour; write a .png"):
        save_image(DeepImage(scene()), tmp_path / f"photo.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_cut_file_is_refused_in_one_sentence(tmp_path, ending):
    path = write(scene(), tmp_path / f"cut.{ending}")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match=f"cut.{ending} cannot be read as an image"):
        read_image(path)


def test_the_pipeline_sees_every_level_and_gives_pillow_eight_bits(tiny_pipeline, tmp_path):
    path = write(scene(), tmp_path / "deep.png", icc_profile=SRGB)
    (as_array,) = tiny_pipeline(path, strength=0.0, output_type="np").images
    assert np.abs(as_array - scene() / 65535).max() < 1e-4
    (image,) = tiny_pipeline(path, strength=0.0).images
    assert image.mode == "RGB" and image.info["icc_profile"] == SRGB
    assert np.abs(np.asarray(image) / 255 - scene() / 65535).max() < 1 / 255


def test_a_contact_sheet_shows_it():
    assert contact_sheet([[("deep", DeepImage(scene()))]], height=32).mode == "RGB"
