"""Photographs of every kind go through the pipeline and come back as the kind they were."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from bd_diff.data.inputs import open_images, to_batch, to_images


@pytest.fixture
def scene():
    """A colour ramp 24 wide, 16 high."""
    rows, columns = np.mgrid[0:16, 0:24]
    return Image.fromarray(np.stack([rows * 15, columns * 10, 255 - rows * 8 - columns * 4], -1).astype(np.uint8))


def given_back(pipeline, image):
    """What the pipeline makes of one image at strength 0: the image itself."""
    (result,) = pipeline(image, strength=0.0, generator=torch.Generator().manual_seed(0)).images
    return result


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_pil_image_of_any_mode_keeps_it_where_it_can_be_kept(tiny_pipeline, scene, mode):
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 16 * 24).reshape(16, 24).astype(np.uint16))
    else:
        image = scene.convert(mode)
    result = given_back(tiny_pipeline, image)
    kept = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode)
    assert result.mode == kept and result.size == image.size
    expected = np.asarray(image if mode == "I;16" else image.convert(kept), dtype=float)
    assert np.abs(np.asarray(result, dtype=float) - expected).max() <= (65535 / 255 if mode == "I;16" else 1)


def test_a_turned_photograph_comes_back_upright_with_profile_and_exif(tiny_pipeline, scene, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Test Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif, icc_profile=profile)
    for image in (tmp_path / "phone.png", str(tmp_path / "phone.png"), Image.open(tmp_path / "phone.png")):
        result = given_back(tiny_pipeline, image)
        assert result.size == scene.size
        assert np.abs(np.asarray(result, int) - np.asarray(scene, int)).max() <= 1
        assert result.info["icc_profile"] == profile
        assert result.getexif().get(0x0112, 1) == 1 and result.getexif()[0x0110] == "Test Camera"


def test_transparency_is_kept(tiny_pipeline, scene):
    image = scene.copy()
    image.putalpha(scene.getchannel("R"))
    assert np.array_equal(given_back(tiny_pipeline, image).getchannel("A"), scene.getchannel("R"))


def test_a_list_of_all_kinds_gives_each_its_own(scene):
    opened = open_images([scene.convert("L"), np.zeros((16, 24, 3)), torch.zeros(2, 3, 16, 24), scene.convert("RGBA")])
    batch = to_batch(opened)
    assert batch.shape == (5, 3, 16, 24)
    assert [image.mode for image in to_images(batch, opened)] == ["L", "RGB", "RGB", "RGB", "RGBA"]


def test_an_animation_is_refused(scene, tmp_path):
    scene.save(tmp_path / "moving.gif", save_all=True, append_images=[scene.rotate(90)])
    with pytest.raises(ValueError, match="2 frames"):
        open_images(Image.open(tmp_path / "moving.gif"))


@pytest.mark.parametrize("image", [None, 3, object(), np.zeros(3)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="expected a path, a PIL image|is no image"):
        to_batch(open_images(image))
