"""Files of every mode, depth, format, orientation and compression come out as they came in, by a second library."""

import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, features

from bd_diff.data.images import read_image, save_image, to_image, to_tensor

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
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
COMPRESSIONS = ["none", "lzw", "zlib", "packbits", "predictor", "tiled", "planar", "big"]


def scene(mode, depth):
    """A smooth 48 x 64 picture, of which every channel and corner is different."""
    rows, columns = np.mgrid[0:1:48j, 0:1:64j]
    channels = [0.1 + 0.8 * rows * columns, 0.9 - 0.7 * rows, 0.2 + 0.6 * columns, 0.3 + 0.5 * (rows + columns) / 2]
    chosen = {"L": [0], "LA": [0, 3], "RGB": [0, 1, 2], "RGBA": [0, 1, 2, 3]}[mode]
    levels = np.stack([channels[index] for index in chosen], -1) * (2**depth - 1)
    return np.round(levels).astype(np.uint8 if depth == 8 else np.uint16)


def tiff_files():
    """Every compression with every orientation, in turn of every mode and depth: 64 of the 512 there are."""
    kinds = [(mode, depth) for mode in CHANNELS for depth in (8, 16)]
    for number, compression in enumerate(COMPRESSIONS):
        for orientation in TURNS:
            mode, depth = kinds[(number + orientation + number * orientation) % len(kinds)]
            yield mode, depth, orientation, compression


def write_tiff(path, levels, orientation, compression):
    stored = np.ascontiguousarray(TURNS[orientation](levels))
    options = {"lzw": {"compression": "lzw"}, "zlib": {"compression": "zlib"}, "packbits": {"compression": "packbits"}}
    options |= {"predictor": {"compression": "zlib", "predictor": True}, "tiled": {"tile": (16, 16)}}
    options |= {"big": {"bigtiff": True, "byteorder": ">"}, "planar": {}, "none": {}}
    chosen = dict(options[compression])
    channels = stored.shape[-1]
    photometric, planes = "rgb" if channels > 2 else "minisblack", "contig" if channels > 1 else None
    if compression == "planar" and channels > 1:
        stored, planes = np.ascontiguousarray(stored.transpose(2, 0, 1)), "separate"
    stored = stored[..., 0] if channels == 1 else stored
    extra = ["unassalpha"] if channels in (2, 4) else None
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(
        path, stored, photometric=photometric, planarconfig=planes, extrasamples=extra, extratags=tags, **chosen
    )


def through_the_project(path, out):
    """Read, leave unchanged, write: what a perfect model would do."""
    photograph = read_image(path)
    save_image(to_image(to_tensor(photograph), like=photograph), out)


@pytest.mark.parametrize("mode, depth, orientation, compression", tiff_files())
def test_a_tiff_comes_back_upright_with_every_level(tmp_path, mode, depth, orientation, compression):
    levels = scene(mode, depth)
    write_tiff(tmp_path / "in.tif", levels, orientation, compression)
    through_the_project(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        (page,) = tiff.pages
        assert page.tags.valueof(274, 1) == 1
        assert (page.compression == 1) == (compression in ("none", "tiled", "planar", "big"))
        assert np.array_equal(page.asarray().reshape(levels.shape), levels)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_comes_back_upright_with_every_level(tmp_path, depth, orientation):
    mode = list(CHANNELS)[(orientation + depth) % 4]
    levels = scene(mode, depth)
    encoded = imagecodecs.png_encode(np.ascontiguousarray(TURNS[orientation](levels)))
    exif = Image.Exif()
    exif[274] = orientation
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + block
    crc = zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "in.png").write_bytes(encoded[:33] + len(block).to_bytes(4, "big") + chunk + crc + encoded[33:])
    through_the_project(tmp_path / "in.png", tmp_path / "out.png")
    decoded = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
    assert np.array_equal(decoded.reshape(levels.shape), levels)
    assert Image.open(tmp_path / "out.png").getexif().get(274, 1) == 1


AVIF_ONLY = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
AVIF = pytest.param("avif", marks=AVIF_ONLY)


@pytest.mark.parametrize("ending", ["jpg", "webp", AVIF, "heic"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_what_is_compressed_with_losses_comes_back_upright_and_nearly_the_same(tmp_path, ending, orientation):
    if ending == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    levels = scene("RGB", 8)
    exif = Image.Exif()
    exif[274], exif[272] = orientation, "Test Camera"
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](levels)))
    stored.save(tmp_path / f"in.{ending}", quality=95, exif=exif.tobytes())
    through_the_project(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}")
    data = (tmp_path / f"out.{ending}").read_bytes()
    second = {"jpg": imagecodecs.jpeg8_decode, "webp": imagecodecs.webp_decode, "avif": imagecodecs.avif_decode}
    decoded = second[ending](data) if ending in second else np.asarray(Image.open(tmp_path / "out.heic"))
    assert decoded.shape == levels.shape
    assert np.abs(decoded.astype(int) - levels).mean() < 3
    result = Image.open(tmp_path / f"out.{ending}")
    assert result.getexif().get(274, 1) == 1 and result.getexif()[272] == "Test Camera"


@pytest.mark.parametrize("depth", [10, 12])
@pytest.mark.parametrize("kind", ["avif", "heic", "tif", "ppm"])
def test_ten_and_twelve_bit_are_not_made_eight(tmp_path, kind, depth):
    levels, path, out = scene("RGB", depth), tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    full = 2**depth - 1
    if kind == "avif":
        path.write_bytes(imagecodecs.avif_encode(levels, level=95, bitspersample=depth))
    elif kind == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        data = (levels << (16 - depth)).tobytes()
        pillow_heif.encode("RGB;16", (64, 48), data, path, quality=95, bit_depth=depth)
    elif kind == "tif":
        bits = np.unpackbits(levels.astype(">u2").view(np.uint8).reshape(48, 192, 2), axis=-1)[..., 16 - depth :]
        path.write_bytes(packed_tiff(np.packbits(bits.reshape(48, -1), axis=-1).tobytes(), depth))
    else:
        path.write_bytes(f"P6\n# a comment\n64 48\n{full}\n".encode() + levels.astype(">u2").tobytes())
    seen = to_tensor(read_image(path)).permute(1, 2, 0).numpy()
    near = 0 if kind in ("tif", "ppm") else 0.02
    assert np.abs(seen - levels / full).max() < near + 1 / 65535
    through_the_project(path, out)
    again = to_tensor(read_image(out)).permute(1, 2, 0).numpy()
    assert np.abs(again - seen).mean() < near / 4 + 1e-5
    between = again * 255 - np.round(again * 255)
    assert np.abs(between).max() > 0.3  # of the levels of 8 bit
    if kind == "avif":
        decoded = imagecodecs.avif_decode(out.read_bytes())
        assert decoded.dtype == np.uint16 and 255 < decoded.max() <= full
    if kind == "heic":
        assert pillow_heif.open_heif(out, convert_hdr_to_8bit=False).info["bit_depth"] == depth


@AVIF_ONLY
@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("mode", CHANNELS)
def test_an_avif_keeps_its_channels_depth_and_what_is_said_beside_them(tmp_path, mode, depth):
    levels, path, out = scene(mode, depth), tmp_path / "in.avif", tmp_path / "out.avif"
    path.write_bytes(imagecodecs.avif_encode(levels, level=95, bitspersample=depth))
    photograph = read_image(path)
    exif = Image.Exif()
    exif[272] = "Test Camera"
    photograph.info["exif"] = exif.tobytes()
    save_image(to_image(to_tensor(photograph), like=photograph), out)
    decoded = imagecodecs.avif_decode(out.read_bytes())
    assert decoded.reshape(48, 64, -1).shape == levels.shape and decoded.dtype == levels.dtype
    assert np.abs(decoded.reshape(levels.shape) - levels.astype(int)).mean() < 3 * 2 ** (depth - 8)
    with Image.open(out) as second:
        assert second.getexif()[272] == "Test Camera"


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("mode", CHANNELS)
def test_a_heic_keeps_its_channels_and_depth(tmp_path, mode, depth):
    pillow_heif = pytest.importorskip("pillow_heif")
    levels, path, out = scene(mode, depth), tmp_path / "in.heic", tmp_path / "out.heic"
    deep = depth > 8
    data = (levels << (16 - depth) if deep else levels).tobytes()
    pillow_heif.encode(mode + ";16" * deep, (64, 48), data, path, quality=95, bit_depth=depth)
    through_the_project(path, out)
    before, after = (pillow_heif.open_heif(one, convert_hdr_to_8bit=False) for one in (path, out))
    assert after.mode == before.mode
    assert [after.info.get(key) for key in ("bit_depth", "chroma")] == [depth, before.info.get("chroma")]
    difference = np.abs(np.asarray(after).astype(int) - np.asarray(before)) / np.iinfo(np.asarray(after).dtype).max
    assert difference.mean() < 0.01


@AVIF_ONLY
@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_without_losses_comes_back_with_every_level(tmp_path, mode, depth):
    levels, out = scene(mode, depth), tmp_path / "out.avif"
    encoded = imagecodecs.avif_encode(levels, level=100, bitspersample=depth)
    (tmp_path / "in.avif").write_bytes(encoded)
    through_the_project(tmp_path / "in.avif", out)
    assert np.array_equal(imagecodecs.avif_decode(out.read_bytes()), levels)


@AVIF_ONLY
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
def test_an_avif_keeps_its_subsampling(tmp_path, subsampling):
    Image.fromarray(scene("RGB", 8)).save(tmp_path / "in.avif", subsampling=subsampling)
    through_the_project(tmp_path / "in.avif", tmp_path / "out.avif")
    before, after = ((tmp_path / f"{name}.avif").read_bytes() for name in ("in", "out"))
    assert after[after.index(b"av1C") + 6] == before[before.index(b"av1C") + 6]


@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_ppm_written_as_text_is_not_made_eight_bit(tmp_path, mode, depth):
    levels, full = scene(mode, depth), 2**depth - 1
    kind = 2 if mode == "L" else 3
    text = f"P{kind}\n64 # wide\n48\n{full}\n# numbers\n" + " ".join(map(str, levels.ravel()))
    (tmp_path / "in.ppm").write_text(text)
    through_the_project(tmp_path / "in.ppm", tmp_path / "out.ppm")
    decoded = np.frombuffer((tmp_path / "out.ppm").read_bytes()[-2 * levels.size :], ">u2").reshape(levels.shape)
    assert np.array_equal(decoded, np.round(levels * (65535 / full)))
    (tmp_path / "in.ppm").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="in.ppm cannot be read as an image"):
        read_image(tmp_path / "in.ppm")


def packed_tiff(strip, depth):
    """A TIFF of 64 x 48 colours whose samples are packed, which tifffile does not write."""
    words = [(256, 64), (257, 48), (259, 1), (262, 2), (277, 3), (278, 48), (284, 1)]
    entries = [(tag, 3, 1, value) for tag, value in words] + [(279, 4, 1, len(strip))]
    start = 8 + 2 + 12 * 10 + 4
    entries += [(258, 3, 3, start), (273, 4, 1, start + 6)]
    head = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little")
    for tag, kind, count, value in sorted(entries):
        head += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        head += value.to_bytes(4, "little")
    return head + bytes(4) + depth.to_bytes(2, "little") * 3 + strip
