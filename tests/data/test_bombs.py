"""Files that claim more pixels than they hold cost neither memory nor time; honest ones are read, however flat."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bd_diff.data.bombs import check_pixels
from bd_diff.data.images import read_image


def png(width, height, depth, colour, rows):
    """A PNG that says it has this size, and holds so many bytes of zeros."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = zlib.compress(bytes(rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (8, 6), (8, 0), (16, 2), (1, 0)])
def test_a_small_png_that_claims_much_is_refused_before_it_takes_memory(tmp_path, depth, colour, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # a command of another test may have set its limit
    path = tmp_path / "bomb.png"
    path.write_bytes(png(13_000, 13_000, depth, colour, 1000))
    with pytest.raises(ValueError, match="bomb.png cannot be read as an image: it claims 13000 x 13000 pixels, more"):
        read_image(path)


def test_a_jpeg_and_a_tiff_that_claim_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 12_000, 12_000)
    (tmp_path / "a.jpg").write_bytes(content)
    for name, compression in (("b.tif", "raw"), ("c.tif", "tiff_adobe_deflate"), ("d.tif", "tiff_lzw")):
        Image.new("RGB", (64, 64)).save(tmp_path / name, compression=compression)
        content = bytearray((tmp_path / name).read_bytes())
        for tag in (256, 257, 278):  # rows a strip, too
            kind = 4 if struct.pack("<HHI", tag, 4, 1) in content else 3
            place = content.index(struct.pack("<HHI", tag, kind, 1))
            content[place + 8 : place + 12] = struct.pack("<I", 12_000)
        (tmp_path / name).write_bytes(content)
    for name in ("a.jpg", "b.tif", "c.tif", "d.tif"):
        with pytest.raises(ValueError, match=f"{name} .*it claims 12000 x 12000 pixels, more than its"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("ending", ["png", "gif", "jpg", "tif", "webp", "bmp", "ppm"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_flat_picture_is_honest_although_it_is_small(tmp_path, ending, mode):
    path = tmp_path / f"flat.{ending}"
    settings = {"tif": {"compression": "tiff_adobe_deflate"}, "jpg": {"quality": 1, "progressive": mode != "1"}}
    Image.new(mode, (3000, 2000)).save(path, **settings.get(ending, {}))
    assert np.asarray(read_image(path)).max() <= 1


def test_the_limit_of_a_page_is_told_with_the_size(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (300, 200)).save(path)
    check_pixels(path, 60_000)
    with pytest.raises(ValueError, match="large.png has 300 x 200 pixels; up to 0.06 megapixels are taken here"):
        check_pixels(path, 59_999)
