"""What people call a photograph comes in right, goes out the same kind of file, or is refused in one sentence."""

import os
import resource
import stat
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features
from skimage import io as other_reader

from bd_diff.data.images import (
    crop_to,
    list_images,
    pad_to_multiple,
    read_image,
    replacing,
    save_image,
    to_image,
    to_tensor,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def scene():
    """A colour ramp 24 wide, 16 high: every orientation and channel of it is different."""
    rows, columns = np.mgrid[0:16, 0:24]
    return Image.fromarray(np.stack([rows * 15, columns * 10, 255 - rows * 8 - columns * 4], -1).astype(np.uint8))


def through_the_project(image, path):
    """Read, leave unchanged, write: what a perfect model would do."""
    photograph = read_image(image)
    save_image(to_image(to_tensor(photograph), like=photograph), path)
    return Image.open(path)


def refused(path, *words):
    """The file is refused in one sentence that names it and holds the words."""
    with pytest.raises(ValueError) as caught:
        read_image(path)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    for word in words:
        assert word in sentence


# Bad files


def test_a_truncated_jpeg_is_refused(scene, tmp_path):
    path = tmp_path / "cut.jpg"
    scene.resize((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "truncated")


def test_a_truncated_png_is_refused(scene, tmp_path):
    path = tmp_path / "cut.png"
    Image.effect_noise((100, 100), 90).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    refused(path, "cannot be read as an image")


def test_text_named_png_is_refused(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a photograph")
    refused(path, "not an image in a known format")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    refused(path, "empty")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nowhere.jpg", "does not exist")


def test_a_folder_is_not_an_image(tmp_path):
    refused(tmp_path, "folder")


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_an_animation_is_refused_with_advice(scene, tmp_path, ending):
    path = tmp_path / f"moving.{ending}"
    scene.save(path, save_all=True, append_images=[scene.rotate(90), scene.rotate(180)])
    refused(path, "3 frames", "PNG")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (4000, 4000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    refused(path, "too large")


def test_float_pixels_are_refused(tmp_path):
    path = tmp_path / "linear.tif"
    Image.fromarray(np.ones((8, 8), np.float32)).save(path)
    refused(path, "32-bit float")


# Kinds of files


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_odd_sizes_come_back_as_they_are(tmp_path, size):
    path = tmp_path / "odd.png"
    Image.effect_noise(size, 90).convert("RGB").save(path)
    assert np.array_equal(through_the_project(path, tmp_path / "out.png"), Image.open(path))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_lossless_file_keeps_its_mode_and_every_pixel(scene, tmp_path, mode, ending):
    path = tmp_path / f"photo.{ending}"
    image = scene.convert(mode)
    if "A" in mode:
        image.putalpha(scene.getchannel("G"))
    image.save(path)
    result = through_the_project(path, tmp_path / f"out.{ending}")
    assert result.mode == mode
    assert np.array_equal(result, image)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_keeps_every_level(tmp_path, ending):
    levels = np.arange(0, 65536, 4, dtype=np.uint16).reshape(128, 128)
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(levels).save(path)
    assert read_image(path).mode == "I;16"
    through_the_project(path, tmp_path / f"out.{ending}")
    assert np.array_equal(other_reader.imread(tmp_path / f"out.{ending}"), levels)


def test_sixteen_bit_colour_is_read_at_its_brightness(tmp_path):
    path = tmp_path / "deep.tif"
    colours = np.full((8, 8, 3), [6553, 32768, 58982], np.uint16)
    other_reader.imsave(path, colours, check_contrast=False)
    assert to_tensor(read_image(path))[:, 4, 4].tolist() == pytest.approx([0.1, 0.5, 0.9], abs=1e-5)


def test_cmyk_becomes_the_colours_one_sees(tmp_path):
    path = tmp_path / "press.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    with pytest.warns(UserWarning, match=r"inks \(CMYK\) become RGB"):
        read_image(path)
    red = to_tensor(read_image(path))[:, 8, 8]
    assert red[0] > 0.95 and red[1:].max() < 0.05


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_becomes_its_colours_and_keeps_its_transparency(tmp_path, transparent):
    path = tmp_path / "flag.png"
    flag = Image.new("P", (8, 4))
    flag.putpalette([255, 0, 0, 0, 0, 255])
    flag.paste(1, (4, 0, 8, 4))
    flag.save(path, **({"transparency": 1} if transparent else {}))
    image = read_image(path)
    assert image.mode == ("RGBA" if transparent else "RGB")
    assert to_tensor(image)[:, 0, 0].tolist() == [1, 0, 0] and to_tensor(image)[:, 0, 7].tolist() == [0, 0, 1]
    if transparent:
        assert image.getpixel((0, 0))[3] == 255 and image.getpixel((7, 0))[3] == 0


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_in_upright_and_goes_out_upright(scene, tmp_path, orientation, ending):
    turn = Image.Transpose  # what the camera did for each orientation, and the reader has to undo
    turns = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM]
    turns += [turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    stored = scene if orientation == 1 else scene.transpose(turns[orientation - 1])
    path, out = tmp_path / f"phone.{ending}", tmp_path / f"out.{ending}"
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = orientation, "Test Camera"
    exif.get_ifd(0x8769)[0xA434] = "Test Lens"
    stored.save(path, exif=exif.tobytes(), **({} if ending == "png" else {"quality": 100}))
    result = through_the_project(path, out)
    assert result.size == scene.size
    assert np.abs(np.asarray(result.convert("RGB"), int) - np.asarray(scene, int)).mean() < 6
    assert result.getexif().get(0x0112, 1) == 1
    assert result.getexif()[0x0110] == "Test Camera"
    assert result.getexif().get_ifd(0x8769)[0xA434] == "Test Lens"


def test_damaged_exif_is_left_out_with_a_warning(scene, tmp_path):
    path = tmp_path / "phone.webp"
    scene.save(path, exif=b"Exif\0\0no camera wrote this")
    with pytest.warns(UserWarning, match="phone.webp: its EXIF is damaged"):
        assert read_image(path).size == scene.size


AVIF = pytest.param("avif", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", AVIF])
def test_the_colour_profile_is_kept(scene, tmp_path, ending):
    path = tmp_path / f"wide.{ending}"
    scene.save(path, icc_profile=SRGB)
    assert through_the_project(path, tmp_path / f"out.{ending}").info["icc_profile"] == SRGB


def test_the_second_picture_of_a_phone_jpeg_is_left_out(scene, tmp_path):
    path = tmp_path / "phone.jpg"
    scene.save(path, format="MPO", save_all=True, append_images=[scene.rotate(180)], quality=100)
    assert np.abs(np.asarray(read_image(path), int) - np.asarray(scene, int)).mean() < 6


# Tensors


def test_values_beyond_the_range_are_clipped_and_nan_is_refused():
    pixels = torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1)
    assert to_image(pixels).getpixel((0, 0)) == (0, 128, 255)
    with pytest.raises(ValueError, match="NaN"):
        to_image(pixels * torch.nan)


def test_a_batch_is_not_an_image():
    with pytest.raises(ValueError, match=r"\(3, H, W\), not \(1, 3, 4, 4\)"):
        to_image(torch.zeros(1, 3, 4, 4))


def test_a_result_of_another_size_than_its_photograph_is_refused(scene):
    with pytest.raises(ValueError, match="24x16"):
        to_image(torch.zeros(3, 8, 8), like=scene)


@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 8, 32]))
def test_padding_reaches_the_multiple_and_cropping_undoes_it(height, width, multiple):
    images = torch.rand(2, 3, height, width)
    padded = pad_to_multiple(images, multiple)
    assert padded.shape[-2] % multiple == 0 and padded.shape[-1] % multiple == 0
    assert padded.shape[-2] < height + multiple and padded.shape[-1] < width + multiple
    assert torch.equal(crop_to(padded, height, width), images)


# Writing


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "photo.png"
    before = Image.new("RGB", (4, 4), "red")
    save_image(before, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # stands for a full disk
    try:
        with pytest.raises(OSError, match="photo.png"):
            save_image(Image.effect_noise((200, 200), 90), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(Image.open(path), before)


def test_a_folder_without_permission_is_named(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    Image.init()
    root = os.geteuid() == 0
    if root:  # root may write anywhere, so be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(OSError, match="cannot write .*photo.png: Permission denied"):
            save_image(Image.new("RGB", (4, 4)), folder / "photo.png")
    finally:
        if root:
            os.seteuid(0)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with replacing(tmp_path / "table.csv") as part:
            part.write_text("half")
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_missing_folders_are_made(tmp_path):
    save_image(Image.new("RGB", (4, 4)), tmp_path / "a" / "b" / "photo.png")
    assert (tmp_path / "a" / "b" / "photo.png").exists()


@pytest.mark.parametrize("mode, what", [("RGBA", "transparency"), ("I;16", "16 bits")])
def test_a_format_that_cannot_hold_the_image_is_refused(tmp_path, mode, what):
    with pytest.raises(ValueError, match=f"photo.jpg: JPEG cannot hold {what}.*png"):
        save_image(Image.new(mode, (4, 4)), tmp_path / "photo.jpg")


@pytest.mark.parametrize("name", ["photo", "photo.gif", "photo.docx"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        save_image(Image.new("RGB", (4, 4)), tmp_path / name)


# Folders


def test_images_of_a_folder_are_listed_in_natural_order(tmp_path):
    for name in ["10.JPG", "9.png", "b.Jpeg", ".hidden.png", "notes.txt", "deep/1.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["9.png", "10.JPG", "b.Jpeg"]
    assert tmp_path / "deep" / "1.png" in list_images(tmp_path, recursive=True)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} holds no images"):
        list_images(tmp_path)
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        list_images(tmp_path / "nowhere")


def test_heic_goes_in_and_out_with_its_exif_where_its_library_is_there(tmp_path, monkeypatch):
    pixels = np.tile(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (32, 1, 3))
    photograph = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    photograph.info["exif"] = exif.tobytes()
    save_image(photograph, tmp_path / "a.heic")
    found = read_image(tmp_path / "a.heic")
    assert found.mode == "RGB" and found.getexif()[ExifTags.Base.Make] == "a camera"
    assert np.abs(np.asarray(found).astype(int) - pixels).mean() < 3
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    monkeypatch.delitem(Image.OPEN, "HEIF")
    with pytest.raises(ValueError, match=r"a.heic is a HEIC file; pip install 'bd-diff\[heic\]'"):
        read_image(tmp_path / "a.heic")
