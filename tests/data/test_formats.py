"""What stands in a file beside and around its pixels is kept, dropped where it describes other pixels, or told of."""

import io
import struct
import time
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from bd_diff.data.deep import from_levels
from bd_diff.data.images import list_images, read_image, save_image, to_image, to_tensor
from bd_diff.data.metadata import clean_xmp, from_block
from bd_diff.data.png import chunks
from bd_diff.data.writing import replacing

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmp:Rating="4" GPano:ProjectionType="equirectangular"/></x:xmpmeta>'
)


def scene(channels=3, kind=np.uint8):
    rows, columns = np.mgrid[0:1:48j, 0:1:64j]
    colours = np.stack([0.1 + 0.8 * rows * columns, 0.9 - 0.7 * rows, 0.2 + 0.6 * columns, rows], -1)[..., :channels]
    levels = np.round(colours * np.iinfo(kind).max).astype(kind)
    return levels[..., 0] if channels == 1 else levels


def through_the_project(path, out=None, **settings):
    """Read, leave unchanged, write: what a perfect model would do."""
    out = out or path.with_name(f"out{path.suffix}")
    photograph = read_image(path)
    save_image(to_image(to_tensor(photograph), like=photograph), out, **settings)
    return out


def tiff_tags(path):
    with tifffile.TiffFile(path) as tiff:
        return {tag.code: tag.value for tag in tiff.pages[0].tags}, len(tiff.pages)


# TIFF


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_in_which_white_is_zero_is_as_bright_as_viewers_show_it(tmp_path, kind):
    stored = scene(1, kind)
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="miniswhite")
    assert np.allclose(to_tensor(read_image(tmp_path / "in.tif"))[0], 1 - stored / np.iinfo(kind).max, atol=1e-6)
    tags, _ = tiff_tags(through_the_project(tmp_path / "in.tif"))
    assert tags[262] == 0 and np.array_equal(tifffile.imread(tmp_path / "out.tif"), stored)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_inks_of_16_bit_are_the_same_colours_however_they_are_stored(tmp_path, planes):
    inks = scene(4, np.uint16)
    stored = inks if planes == "contig" else inks.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="separated", planarconfig=planes)
    with pytest.warns(UserWarning, match="in.tif: its inks .* become RGB"):
        seen = to_tensor(read_image(tmp_path / "in.tif")).permute(1, 2, 0).numpy()
    share = inks / 65535
    assert np.abs(seen - (1 - share[..., :3]) * (1 - share[..., 3:])).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_of_every_kind_stay_the_numbers_and_the_kind_they_are(tmp_path, kind, channels):
    levels = (scene(channels) // 4).astype(kind)
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "in.tif", levels, photometric=photometric, byteorder=">")
    written = tifffile.imread(through_the_project(tmp_path / "in.tif"))
    assert np.array_equal(written, levels) and written.dtype.newbyteorder("=") == levels.dtype
    photograph = read_image(tmp_path / "in.tif")
    save_image(to_image(torch.ones(3, 48, 64), like=photograph), tmp_path / "white.tif")
    assert tifffile.imread(tmp_path / "white.tif").min() == min(np.iinfo(kind).max, 65535)  # and not beyond its kind


@pytest.mark.parametrize("step, kind", [(257, np.uint8), (256, np.uint8), (1, np.uint8), (250, np.uint16)])
def test_a_palette_of_more_than_8_bits_becomes_colours_of_more(tmp_path, step, kind):
    palette = (np.arange(256) * step).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", scene(1), photometric="palette", colormap=np.stack([palette] * 3))
    with pytest.warns(UserWarning, match="in.tif: its palette becomes RGB"):
        seen = tifffile.imread(through_the_project(tmp_path / "in.tif"))
    assert seen.dtype == kind
    expected = scene(1).astype(int) * (step if kind == np.uint16 else 1)
    assert np.array_equal(seen, expected[..., None].repeat(3, -1))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_less_than_8_bit_uses_the_whole_range(tmp_path, depth):
    levels = scene(1) >> (8 - depth)
    bits = np.unpackbits(levels[..., None], axis=-1)[..., 8 - depth :]
    strip = np.packbits(bits.reshape(48, -1), axis=-1).tobytes()
    words = [(256, 64), (257, 48), (258, depth), (259, 1), (262, 1), (273, 8), (277, 1), (278, 48), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in words)
    head = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(words))
    (tmp_path / "in.tif").write_bytes(head + entries + bytes(4))
    with pytest.warns(UserWarning, match=f"in.tif: its {depth} bits? per colour becomes? 8"):
        seen = np.asarray(read_image(tmp_path / "in.tif"))
    assert np.array_equal(seen, np.round(levels * (255 / (2**depth - 1))).astype(np.uint8))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_colours_multiplied_by_alpha_are_divided_by_it(tmp_path, kind):
    levels, full = scene(4, kind), np.iinfo(kind).max
    multiplied = levels.copy()
    multiplied[..., :3] = np.round(levels[..., :3] * (levels[..., 3:] / full))
    tifffile.imwrite(tmp_path / "in.tif", multiplied, photometric="rgb", extrasamples=["assocalpha"])
    seen = to_tensor(read_image(tmp_path / "in.tif")).permute(1, 2, 0).numpy()
    opaque = levels[..., 3] > full // 3
    assert np.abs(seen - levels[..., :3] / full)[opaque].max() < 3 / full


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("subfile", [1, 4])
def test_a_thumbnail_or_a_mask_on_a_page_of_its_own_is_no_second_photograph(tmp_path, subfile, compression):
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        tiff.write(scene(), photometric="rgb", compression=compression)
        kind, levels = ("mask", scene(1) > 99) if subfile == 4 else ("minisblack", scene(1)[::4, ::4])
        tiff.write(levels, photometric=kind, subfiletype=subfile)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert np.abs(np.asarray(read_image(tmp_path / "in.tif"), int) - scene()).mean() < 3
    assert [("mask" in str(one.message)) for one in told] == ([True] if subfile == 4 else [])


def test_a_thumbnail_before_its_photograph_is_not_taken_for_it(tmp_path):
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        tiff.write(scene()[::4, ::4], photometric="rgb", subfiletype=1)
        tiff.write(scene(), photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "in.tif"), scene())


def test_pages_that_are_photographs_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.stack([scene(), scene()]), photometric="rgb")
    with pytest.raises(ValueError, match="in.tif .* 2 frames or pages"):
        read_image(tmp_path / "in.tif")


@pytest.mark.parametrize("big", [False, True])
def test_photoshops_copies_and_directories_of_other_pixels_are_dropped(tmp_path, big):
    tags = [(34377, 1, 8, b"8BIMold!", True), (37724, 7, 8, b"layers!!", True), (315, 2, 6, "Writer", True)]
    with tifffile.TiffWriter(tmp_path / "in.tif", bigtiff=big) as tiff:
        tiff.write(scene(), photometric="rgb", subifds=1, extratags=tags, resolution=(300, 150))
        tiff.write(scene()[::2, ::2], photometric="rgb", subfiletype=1)
    tags, pages = tiff_tags(through_the_project(tmp_path / "in.tif"))
    assert pages == 1 and not {330, 34377, 37724}.intersection(tags)
    assert tags[315] == "Writer" and tags[282] == (300, 1) and tags[283] == (150, 1)


def test_camera_raw_is_refused_and_not_its_thumbnail_deblurred(tmp_path):
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        version = [(50706, 1, 4, b"\1\4\0\0", True)]
        tiff.write(scene()[::4, ::4], photometric="rgb", subifds=1, subfiletype=1, extratags=version)
        tiff.write(scene(1, np.uint16), photometric=32803)
    with pytest.raises(ValueError, match="in.tif .* camera RAW"):
        read_image(tmp_path / "in.tif")
    (tmp_path / "in.tif").rename(tmp_path / "in.dng")
    with pytest.raises(ValueError, match="in.dng is camera RAW"):
        read_image(tmp_path / "in.dng")


def test_floats_are_refused_as_floats(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", scene().astype(np.float32) / 255, photometric="rgb")
    with pytest.raises(ValueError, match="in.tif .* 32-bit floats, whose range is unknown"):
        read_image(tmp_path / "in.tif")


def test_deep_grey_with_alpha_is_written_so_that_it_can_be_read(tmp_path):
    levels = scene(2, np.uint16)
    (tmp_path / "in.png").write_bytes(imagecodecs.png_encode(levels))
    out = through_the_project(tmp_path / "in.png", tmp_path / "out.tif")
    colours = levels[..., [0, 0, 0, 1]]
    assert np.array_equal(tifffile.imread(out), colours)
    assert np.array_equal(read_image(out).levels, colours)
    with Image.open(out) as seen:  # which has 8 bit for it
        assert np.abs(np.asarray(seen) - colours / 257).max() <= 1


def test_a_tiff_whose_pixels_end_early_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", scene(), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "in.tif") as tiff:
        (start,), (length,) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    data = bytearray((tmp_path / "in.tif").read_bytes())
    short = zlib.compress(scene().tobytes()[:1000])
    data[start : start + length] = short.ljust(length, b"\0")[:length]
    (tmp_path / "in.tif").write_bytes(data)
    with pytest.raises(ValueError, match="in.tif cannot be read as an image"):
        read_image(tmp_path / "in.tif")


# Few levels


def shallow_files():
    levels, bits = Image.fromarray(scene(1)), "its 1 bit per colour becomes 8"
    one, few = levels.convert("1"), Image.fromarray(scene()).quantize(16)
    for ending in ("png", "bmp", "pbm", "tif"):
        yield ending, lambda path, one=one: one.save(path), bits
    for ending in ("png", "bmp", "gif", "tif"):
        yield ending, lambda path: few.save(path), "its palette becomes RGB"
    five = b"BM" + struct.pack("<IHHI", 54 + 2 * 64 * 48, 0, 0, 54)
    five += struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, 16, 0, 0, 0, 0, 0, 0) + bytes(range(256)) * 24
    yield "bmp", lambda path: path.write_bytes(five), "its 5 bits per colour become 8"
    three = b"P6\n# comment\n64 48\n7\n" + (scene() >> 5).tobytes()
    yield "ppm", lambda path: path.write_bytes(three), "its 3 bits per colour become 8"
    two = np.packbits(np.unpackbits((scene(1) >> 6)[..., None], axis=-1)[..., 6:].reshape(48, -1), axis=-1)
    head = struct.pack(">IIBBBBB", 64, 48, 2, 0, 0, 0, 0)
    rows = zlib.compress(np.pad(two, ((0, 0), (1, 0))).tobytes())
    png = b"\x89PNG\r\n\x1a\n"
    for name, held in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")):
        png += struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))
    yield "png", lambda path: path.write_bytes(png), "its 2 bits per colour become 8"


@pytest.mark.parametrize("ending, write, line", shallow_files())
def test_that_few_bits_or_a_palette_become_more_is_told_in_one_line(tmp_path, ending, write, line):
    path = tmp_path / f"in.{ending}"
    write(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        seen = to_tensor(read_image(path))
    assert [str(one.message) for one in told] == [f"{path}: {line}"]
    with Image.open(path) as second:
        assert np.array_equal(np.round(seen.permute(1, 2, 0) * 255), np.asarray(second.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp", "ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_told_of_a_photograph_of_8_bits(tmp_path, ending, channels):
    Image.fromarray(scene(channels)).save(tmp_path / f"in.{ending}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        through_the_project(tmp_path / f"in.{ending}")


# PNG


def png_with(levels, *added):
    encoded = imagecodecs.png_encode(levels)
    extra = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in added)
    return encoded[:33] + extra + encoded[33:]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "name, content",
    [
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"sRGB", b"\0"),
        (b"mDCV", bytes(24)),
        (b"cLLI", struct.pack(">II", 10000000, 4000000)),
        (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
        (b"pHYs", struct.pack(">IIB", 1, 2, 0)),
        (b"tEXt", b"Author\0Somebody"),
        (b"iTXt", b"Title\0\0\0de\0Titel\0\xc3\x9cber"),
    ],
)
def test_what_a_png_says_of_its_colours_and_size_is_kept(tmp_path, kind, name, content):
    (tmp_path / "in.png").write_bytes(png_with(scene(3, kind), (name, content)))
    out = through_the_project(tmp_path / "in.png")
    assert dict(chunks(out.read_bytes()))[name] == content
    assert np.array_equal(imagecodecs.png_decode(out.read_bytes()), scene(3, kind))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_png_whose_pixels_end_early_is_refused(tmp_path, kind):
    encoded = imagecodecs.png_encode(scene(3, kind))
    raw = zlib.decompress(b"".join(content for name, content in chunks(encoded) if name == b"IDAT"))
    short = zlib.compress(raw[: len(raw) // 2])
    head = encoded[:33] + struct.pack(">I", len(short)) + b"IDAT" + short
    (tmp_path / "in.png").write_bytes(head + struct.pack(">I", zlib.crc32(b"IDAT" + short)) + encoded[-12:])
    with pytest.raises(ValueError, match="in.png cannot be read as an image"):
        read_image(tmp_path / "in.png")


def test_what_another_format_cannot_hold_is_told_in_one_line(tmp_path):
    given = [(b"gAMA", struct.pack(">I", 100000)), (b"cICP", bytes([9, 16, 0, 1]))]
    (tmp_path / "in.png").write_bytes(png_with(scene(), *given))
    with pytest.warns(UserWarning, match=r"out.jpg: JPEG cannot hold its colour space \(CICP\), its PNG chunks gAMA"):
        through_the_project(tmp_path / "in.png", tmp_path / "out.jpg")


# JPEG, WebP, HEIC, AVIF, BMP


def jpeg(path, quality=80, exif=None, **options):
    Image.fromarray(scene()).save(path, format="JPEG", quality=quality, exif=exif or Image.Exif(), **options)
    return path


@pytest.mark.parametrize("quality, subsampling", [(60, 2), (85, 1), (92, 0)])
def test_a_jpeg_is_written_with_the_tables_and_subsampling_it_came_with_unless_told(tmp_path, quality, subsampling):
    path = jpeg(tmp_path / "in.jpg", quality, subsampling=subsampling, progressive=quality == 85)
    before, after = (Image.open(one) for one in (path, through_the_project(path)))
    assert after.quantization == before.quantization and after.layer == before.layer
    assert after.info.get("progressive") == before.info.get("progressive")
    told = Image.open(through_the_project(path, tmp_path / "told.jpg", quality=99))
    assert sum(told.quantization[0]) < sum(before.quantization[0])


def test_a_jpeg_keeps_resolution_comment_xmp_and_iptc(tmp_path):
    iptc = b"8BIM\x04\x04\0\0" + struct.pack(">I", 12) + b"\x1c\x02\x69\0\x07caption"
    thumbnail = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 4) + b"old!"
    resources = b"Photoshop 3.0\0" + thumbnail + iptc
    extra = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    path = jpeg(tmp_path / "in.jpg", dpi=(300, 300), comment=b"a comment", xmp=XMP, extra=extra)
    result = Image.open(through_the_project(path))
    assert result.info["dpi"] == (300, 300) and result.info["comment"] == b"a comment" and result.info["xmp"] == XMP
    assert result.info["photoshop"] == {0x0404: b"\x1c\x02\x69\0\x07caption"}


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "avif"])
def test_xmp_is_kept_in_every_format_that_holds_it(tmp_path, ending):
    jpeg(tmp_path / "in.jpg", xmp=XMP)
    first = through_the_project(tmp_path / "in.jpg", tmp_path / f"in.{ending}")
    out = through_the_project(first, tmp_path / f"out.{ending}")
    found = Image.open(out).info.get("xmp") if ending != "tif" else tiff_tags(out)[0][700]
    assert (found.encode() if isinstance(found, str) else bytes(found)) == XMP


def test_an_upright_photograph_says_so_everywhere_and_its_thumbnail_is_gone(tmp_path):
    note = b"MAKER" + bytes(range(60))
    exif = Image.Exif()
    exif[274], exif[272], exif[282], exif[283] = 6, "Test Camera", 72.0, 36.0
    inside = exif.get_ifd(0x8769)
    inside[0xA002], inside[0xA003], inside[0x927C], inside[0xA434] = 64, 48, note, "Test Lens"
    block = exif.tobytes()
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(thumbnail, "JPEG")
    # A second directory at the end, as cameras write it
    data = bytearray(block[6:])
    order = "<" if data[:2] == b"II" else ">"
    first = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, first)[0]
    struct.pack_into(order + "I", data, first + 2 + 12 * count, len(data))
    start = len(data) + 2 + 24 + 4
    data += struct.pack(order + "H", 2) + struct.pack(order + "HHII", 513, 4, 1, start)
    data += struct.pack(order + "HHII", 514, 4, 1, len(thumbnail.getvalue())) + bytes(4) + thumbnail.getvalue()
    xmp = XMP.replace(b"xmp:Rating", b'tiff:Orientation="6" exif:PixelXDimension="64" xmp:Rating')
    path = jpeg(tmp_path / "in.jpg", exif=b"Exif\0\0" + bytes(data), xmp=xmp)
    where = bytes(data).index(note)
    result = Image.open(through_the_project(path))
    assert result.size == (48, 64)
    kept = result.info["exif"].removeprefix(b"Exif\0\0")
    assert kept[where : where + len(note)] == note  # its offsets hold, as nothing has moved
    assert thumbnail.getvalue() not in kept and b"\xff\xd8\xff" not in kept
    entries, _ = from_block(kept)
    assert 274 not in entries
    told = result.getexif()
    assert told[272] == "Test Camera" and (told[282], told[283]) == (36, 72)
    assert told.get_ifd(0x8769)[0xA434] == "Test Lens"
    assert (told.get_ifd(0x8769)[0xA002], told.get_ifd(0x8769)[0xA003]) == (48, 64)
    assert b'tiff:Orientation="1"' in result.info["xmp"] and b"PixelXDimension" not in result.info["xmp"]


def test_makers_notes_that_would_move_are_left_out_and_told_of(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C], exif.get_ifd(0x8769)[0xA434] = b"MAKER" * 9, "Test Lens"
    jpeg(tmp_path / "in.jpg", exif=exif.tobytes())
    with pytest.warns(UserWarning, match="out.tif: the maker's notes hold only where they stood"):
        out = through_the_project(tmp_path / "in.jpg", tmp_path / "out.tif")
    inside = tiff_tags(out)[0][34665]
    assert "MakerNote" not in inside and inside["LensModel"] == "Test Lens"


def test_a_gain_map_is_left_out_with_a_line_and_xmp_no_longer_promises_it(tmp_path):
    xmp = b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" xmp:Rating="4"/>'
    second = Image.fromarray(scene()[::4, ::4])
    Image.fromarray(scene()).save(tmp_path / "in.jpg", format="MPO", save_all=True, append_images=[second], xmp=xmp)
    with pytest.warns(UserWarning, match="in.jpg: its gain map was left out"):
        photograph = read_image(tmp_path / "in.jpg")
    assert photograph.info["xmp"] == b'<rdf:Description xmp:Rating="4"/>'


def test_xmp_thumbnails_are_dropped():
    assert clean_xmp(b"<a><xmp:Thumbnails>\n<rdf:Alt>AAAA</rdf:Alt></xmp:Thumbnails>b</a>") == b"<a>b</a>"


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_is_as_lossless_as_it_came(tmp_path, lossless):
    levels = scene(4)
    Image.fromarray(levels).save(tmp_path / "in.webp", lossless=lossless, exact=True)
    out = through_the_project(tmp_path / "in.webp")
    assert (out.read_bytes().find(b"VP8L") >= 0) == lossless
    if lossless:
        assert np.array_equal(imagecodecs.webp_decode(out.read_bytes()), levels)


@pytest.mark.parametrize("kind", ["avif", "heic"])
@pytest.mark.parametrize("depth", [8, 10])
def test_the_primaries_and_transfer_of_heic_and_avif_are_kept_with_exif_beside_them(tmp_path, kind, depth):
    pillow_heif = pytest.importorskip("pillow_heif")
    levels = scene() if depth == 8 else (scene(3, np.uint16) >> 6)
    exif = Image.Exif()
    exif[272] = "Test Camera"
    path = tmp_path / f"in.{kind}"
    if kind == "avif":
        photograph = from_levels(
            levels if depth == 8 else levels << 6, {"exif": exif.tobytes(), "cicp": (12, 13, 6, 1)}
        )
        photograph.info["depth"] = depth
        save_image(photograph, path)
    else:
        mode, data = ("RGB", levels) if depth == 8 else ("RGB;16", levels << 6)
        named = {"color_primaries": 12, "transfer_characteristics": 13, "exif": exif.tobytes()}
        pillow_heif.encode(mode, (64, 48), data.tobytes(), path, quality=90, **named)
    out = through_the_project(path)
    box = out.read_bytes()[out.read_bytes().index(b"colrnclx") + 8 :][:4]
    assert box == bytes([0, 12, 0, 13])
    assert Image.open(out).getexif()[272] == "Test Camera"


def test_the_first_of_two_pictures_in_a_heic_is_restored_and_the_other_told_of(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    heif = pillow_heif.from_pillow(Image.fromarray(scene()))
    heif.add_from_pillow(Image.fromarray(scene()[::-1].copy()))
    heif.save(tmp_path / "in.heic", quality=95)
    with pytest.warns(UserWarning, match="in.heic: it holds 2 pictures; only the first"):
        photograph = read_image(tmp_path / "in.heic")
    assert np.abs(np.asarray(photograph, int) - scene()).mean() < 3


def test_a_bmp_keeps_its_resolution(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "in.bmp", dpi=(300, 300))
    assert Image.open(through_the_project(tmp_path / "in.bmp")).info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_bmp_says_that_it_holds_no_profile(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "in.png", icc_profile=SRGB)
    with pytest.warns(UserWarning, match="out.bmp: BMP cannot hold its colour profile"):
        through_the_project(tmp_path / "in.png", tmp_path / "out.bmp")


# Names and folders


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JFIF"])
def test_jpegs_of_rare_endings_are_listed_read_and_written(tmp_path, ending):
    path = jpeg(tmp_path / f"photo.{ending}")
    assert list_images(tmp_path) == [path]
    assert Image.open(through_the_project(path)).format == "JPEG"


def test_raw_and_video_are_left_out_of_a_folder_with_a_line(tmp_path):
    for name in ("1.jpg", "2.NEF", "3.dng", "4.mp4", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning) as told:
        assert [path.name for path in list_images(tmp_path)] == ["1.jpg"]
    lines = [str(one.message) for one in told]
    assert lines == [f"{tmp_path}: 2 left out, camera RAW (.dng, .nef)", f"{tmp_path}: 1 left out, video (.mp4)"]


@pytest.mark.parametrize("ending", ["fits", "FIT", "fts"])
def test_fits_photographs_are_refused_and_left_out_of_folders_with_a_sentence(tmp_path, ending):
    path = tmp_path / f"m31.{ending}"
    path.write_bytes(b"SIMPLE  =                    T".ljust(2880))
    with pytest.raises(ValueError, match=f"m31.{ending} is FITS, which is read for kernels only; save the photograph"):
        read_image(path)
    (tmp_path / "1.jpg").touch()
    with pytest.warns(UserWarning, match="1 left out, FITS, which is read for kernels only"):
        assert [one.name for one in list_images(tmp_path)] == ["1.jpg"]


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    save_image(Image.fromarray(scene()), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(KeyboardInterrupt):
        with replacing(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", [b"xmp:Thumbnails", b"hdrgm:Gamma", b"GContainer:Directory"])
def test_xmp_of_elements_that_are_never_closed_is_cleaned_at_once(name):
    hostile = b"hdrgm:" + (b"<" + name + b">") * 200_000
    started = time.process_time()
    assert clean_xmp(hostile) == hostile
    assert time.process_time() - started < 2
    assert clean_xmp(b"hdrgm: a<" + name + b">b</" + name + b">c") == b"hdrgm: ac"


def test_compressed_xmp_that_would_fill_the_memory_is_refused(tmp_path):
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**26 + 1), 9)
    chunk = struct.pack(">I", len(packed)) + b"iTXt" + packed + struct.pack(">I", zlib.crc32(b"iTXt" + packed))
    encoded = imagecodecs.png_encode(scene())
    (tmp_path / "in.png").write_bytes(encoded[:-12] + chunk + encoded[-12:])  # after the pixels
    with pytest.raises(ValueError, match="in.png .* XMP"):
        read_image(tmp_path / "in.png")
