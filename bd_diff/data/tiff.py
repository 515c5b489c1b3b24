"""TIFF, of any kind that holds one photograph: its levels in, as 8 or 16 bit, and a plain TIFF out.

`tifffile` decodes; what levels mean (TIFF 6.0: white is zero, palettes, inks, alpha that colours are multiplied by, 10
or 12 bit) is applied here. Colours that only libtiff converts (YCbCr without JPEG, Lab) come through Pillow.
"""

import io
import mmap
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from bd_diff.data.bombs import TIFF_CODES, check_room
from bd_diff.data.depth import PALETTE, few_bits
from bd_diff.data.metadata import (
    EXIF,
    ICC,
    MAKER_NOTE,
    ORIENTATION,
    XMP,
    as_block,
    byte_order,
    clean_xmp,
    from_block,
    photograph_entries,
    unpack_directory,
)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW_TAGS = {50706, 33421, 33422, 50829}  # DNG version, colour filter array, active area
REDUCED, MASK = 1, 4  # bits of NewSubfileType
NOT_COLOURS = 1, 2  # kinds of extra samples that are alpha: colours are multiplied by it, or not
BY_PILLOW = {6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab"}  # photometric interpretations
NONE, OLD_JPEG, JPEG, DEFLATE = 1, 6, 7, 8  # compressions


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF."""
    with open(path, "rb") as file:
        return file.read(4) in SIGNATURES


def read_tiff(path: Path) -> tuple[np.ndarray, dict]:
    """The photograph of a TIFF, upright, as levels `(H, W, C)` uint8 or uint16, C of grey or RGB with or without alpha,
    and its `info` (see `images.read_image`).

    Raises `ValueError` for several pages, camera RAW, floats, and what is not one whole photograph.
    """
    with tifffile.TiffFile(path) as tiff, open(path, "rb") as file:
        page = photograph_page(tiff)
        width, height = page.imagewidth, page.imagelength
        if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"it has {width}x{height} pixels")
        check_whole(page, tiff.filehandle.size)
        order = "<" if tiff.byteorder == "<" else ">"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            entries = unpack_directory(data, page.offset, order, tiff.is_bigtiff)
        profile = entries[ICC][2] if ICC in entries else None
        levels, profile_holds = photograph_levels(page, path, profile)
    turn = page.tags.valueof(ORIENTATION, 1)
    levels = upright_levels(levels, turn)
    size, turned = levels.shape[1::-1], turn >= 5
    info: dict[str, Any] = {
        "tiff": {"compressed": page.compression != NONE, "white_is_zero": int(page.photometric) == 0}
    }
    if int(page.photometric) in (0, 1, 2) and page.dtype and page.dtype.kind in "iu" and page.dtype != levels.dtype:
        info["tiff"]["numbers"] = page.dtype.str[1:]
    if profile and profile_holds:
        info["icc_profile"] = profile
    if XMP in entries:
        info["xmp"] = clean_xmp(entries.pop(XMP)[2], turned)
    if EXIF in entries and MAKER_NOTE in entries[EXIF][2]:
        warnings.warn(f"{path}: its maker's notes hold only where they stand, and were left out", stacklevel=2)
    if exif := as_block(photograph_entries(entries, turned, size, order), order):
        info["exif"] = exif
    if dpi := resolution(page):
        info["dpi"] = dpi[::-1] if turned else dpi
    return levels, info


def photograph_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The one page that is a photograph: no thumbnail, no mask."""
    pages: list[Any] = [tiff.pages[index] for index in range(len(tiff.pages))]
    for page in pages:
        if RAW_TAGS.intersection(tag.code for tag in page.tags) or page.photometric in (32803, 34892):
            raise ValueError("it is camera RAW; develop it, and deblur the photograph that comes out")
    whole = [page for page in pages if not page.subfiletype & (REDUCED | MASK) and page.tags.valueof(255) != 2]
    if not whole and (len(pages) > 1 or 330 in pages[0].tags):
        raise ValueError("it holds only thumbnails, such as camera RAW does; develop it first")
    if len(whole) > 1:
        raise ValueError(f"it holds {len(whole)} frames or pages; save the one you want as a PNG")
    left_out = [page for page in pages if page is not (whole or pages)[0]]
    if any(page.subfiletype & MASK for page in left_out):
        warnings.warn(f"{tiff.filehandle.path}: its mask, a page of its own, was left out", stacklevel=3)
    return (whole or pages)[0]


def check_whole(page: tifffile.TiffPage, file_size: int) -> None:
    """Raise `ValueError` if a page goes beyond the end of its file or has fewer bytes than its pixels need."""
    if most := TIFF_CODES.get(int(page.compression)):
        depth = page.bitspersample if isinstance(page.bitspersample, int) else min(page.bitspersample)
        needed = page.imagewidth * page.imagelength * page.samplesperpixel * depth / 8
        check_room(needed, most, file_size, (page.imagewidth, page.imagelength))
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not parts or any(offset + count > file_size for offset, count in parts):
        raise ValueError("it is truncated: its pixels go beyond its end")
    if page.compression == NONE and page.photometric != 6 and not page.is_tiled:
        depth = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        row = -(-page.imagewidth * depth * (page.samplesperpixel // planes) // 8)
        if sum(count for _, count in parts) < row * page.imagelength * planes:
            raise ValueError("it is truncated: it has fewer bytes than pixels")


def photograph_levels(page: tifffile.TiffPage, path: Path, profile: bytes | None) -> tuple[np.ndarray, bool]:
    """Levels as stored, grey or RGB with or without alpha, and whether the colour profile holds for them."""
    kind, depth = int(page.photometric), page.bitspersample
    if kind in BY_PILLOW and page.compression != JPEG or page.compression == OLD_JPEG:
        return levels_by_pillow(path, BY_PILLOW.get(kind, "colours")), kind == 6
    stored = stored_levels(page)
    samples = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}.get(kind)
    if samples is None or stored.shape[-1] < samples or (kind == 5 and page.tags.valueof(332, 1) != 1):
        raise ValueError(f"its colours ({page.photometric!r}) are of a kind that is not known here")
    highest = 255 if stored.dtype == np.uint8 else 65535
    colours, rest = stored[..., :samples], stored[..., samples:]
    if kind == 3:
        colours = palette_colours(page.tags.valueof(320), colours[..., 0])
        warnings.warn(f"{path}: {PALETTE}", stacklevel=4)
    elif depth not in (8, 16) and isinstance(depth, int) and depth < 16:
        full = 2**depth - 1
        highest = 255 if depth < 8 else 65535
        colours, rest = (
            np.round(part.astype(np.float64) * (highest / full)).astype(np.uint8 if depth < 8 else np.uint16)
            for part in (colours, rest)
        )
        if depth < 8:
            warnings.warn(f"{path}: {few_bits(depth)}", stacklevel=4)
    if kind == 0:
        colours = highest - colours
    extra = page.extrasamples[0] if page.extrasamples else None
    if rest.shape[-1] > 1 or rest.shape[-1] and extra not in NOT_COLOURS:
        warnings.warn(f"{path}: a channel beside its colours, of no known meaning, was left out", stacklevel=4)
    if kind == 5:
        colours = cmyk_to_rgb(colours, profile)
        warnings.warn(f"{path}: its inks (CMYK) become RGB", stacklevel=4)
    if rest.shape[-1] and extra in NOT_COLOURS:
        alpha = rest[..., :1]
        if extra == 1:
            share = np.maximum(alpha.astype(np.float64), 1) / highest
            colours = np.round(np.minimum(colours / share, highest)).astype(colours.dtype)
        colours = np.concatenate([colours, alpha], -1)
    return np.ascontiguousarray(colours), kind != 5


def stored_levels(page: tifffile.TiffPage) -> np.ndarray:
    """The numbers of a page `(H, W, samples)`, uint8 or uint16."""
    if page.imagedepth != 1:
        raise ValueError("it is a volume, not a photograph")
    if page.dtype is None or page.dtype.kind in "fc":
        kind = "complex numbers" if page.dtype is not None and page.dtype.kind == "c" else "floats"
        if page.dtype is None:
            raise ValueError("its samples are of different kinds")
        raise ValueError(
            f"its pixels are {page.dtype.itemsize * 8}-bit {kind}, whose range is unknown; save it with 8 or 16 bits"
        )
    levels = page.asarray()
    shape = page.imagelength, page.imagewidth, page.samplesperpixel
    if levels.size != np.prod(shape):
        raise ValueError("it is truncated: it has fewer bytes than pixels")
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        levels = np.moveaxis(levels.reshape(shape[2], *shape[:2]), 0, -1)
    levels = levels.reshape(shape)
    if levels.dtype.kind == "b":
        return levels.astype(np.uint8)
    if levels.dtype not in (np.uint8, np.uint16):
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"its pixels are {levels.dtype} beyond 0 to 65535; save it with 8 or 16 bits")
        levels = levels.astype(np.uint8 if levels.dtype == np.int8 else np.uint16)
    return levels.astype(levels.dtype.newbyteorder("="))


def palette_colours(palette, indices: np.ndarray) -> np.ndarray:
    """Colours `(H, W, 3)` of indices into a palette of 16 bit (or of 8, as some programs write it): uint16 where the
    palette has more than 8 bits in 16.
    """
    palette = np.asarray(palette, np.uint16).reshape(3, -1)
    if palette.max() < 256:
        palette = palette.astype(np.uint8)
    elif not (palette % 256).any() or not (palette % 257).any():
        palette = (palette >> 8).astype(np.uint8)
    return palette.T[indices]


def cmyk_to_rgb(inks: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Inks `(H, W, 4)`, 0 is no ink, as sRGB of their depth: by their own profile, or as ideal inks without one."""
    if profile:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        inks = np.ascontiguousarray(inks)
        return imagecodecs.cms_transform(
            inks,
            profile,
            srgb,
            colorspace="cmyk",
            outcolorspace="rgb",
            outdtype=inks.dtype,
            intent=imagecodecs.CMS.INTENT.PERCEPTUAL,
        )
    highest = np.iinfo(inks.dtype).max
    left = highest - inks.astype(np.float64)
    return np.round(left[..., :3] * left[..., 3:] / highest).astype(inks.dtype)


def levels_by_pillow(path: Path, what: str) -> np.ndarray:
    """Levels `(H, W, C)` uint8, as stored, of colours that Pillow knows and `tifffile` does not."""
    data = bytearray(path.read_bytes())
    order = byte_order(data)
    (first,) = struct.unpack_from(order + "I", data, 4)
    for place in range(first + 2, first + 2 + 12 * struct.unpack_from(order + "H", data, first)[0], 12):
        if struct.unpack_from(order + "H", data, place)[0] == ORIENTATION:  # Pillow shears some as it turns them
            struct.pack_into(order + "H", data, place + 8, 1)
    try:
        image = Image.open(io.BytesIO(data), formats=["TIFF"])
        image.load()
    except Exception as error:
        raise ValueError(f"its {what} cannot be converted: {error}") from None
    levels = np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))
    return levels.reshape(*levels.shape[:2], -1)


def upright_levels(levels: np.ndarray, orientation: int) -> np.ndarray:
    """Levels `(H, W, C)` turned as an EXIF orientation, 1 to 8, says."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)
    rows, columns = (-1 if orientation in backwards else 1 for backwards in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(levels[::rows, ::columns])


def resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Dots per inch across and down, if the page gives them."""
    unit = {2: 1, 3: 2.54}.get(page.tags.valueof(296, 2))
    values = [page.tags.valueof(tag) for tag in (282, 283)]
    if unit is None or not all(isinstance(value, tuple) and value[0] and value[1] for value in values):
        return None
    return tuple(unit * value[0] / value[1] for value in values)


def encode_tiff(levels: np.ndarray, info: dict, path: Path | str = "the TIFF") -> bytes:
    """A TIFF of levels `(H, W, C)` uint8 or uint16 in one strip with profile, EXIF and XMP.

    16-bit grey with alpha that comes from no TIFF is written as RGB with alpha: few programs read it otherwise. It is
    compressed, white is stored as zero, and numbers are signed or wider, if `info` says that its source was so.
    """
    if levels.shape[-1] == 2 and levels.dtype == np.uint16 and "tiff" not in info:
        levels = levels[..., [0, 0, 0, 1]]
    height, width, channels = levels.shape
    entries, order = from_block(info["exif"]) if info.get("exif") else ({}, "<")
    if EXIF in entries and MAKER_NOTE in entries[EXIF][2]:
        warnings.warn(f"{path}: the maker's notes hold only where they stood, and were left out", stacklevel=3)
    turn = {tag: entry for tag, entry in entries.items() if tag == ORIENTATION}  # none where `read_tiff` made it
    entries = photograph_entries(entries, False, (width, height), order) | turn
    white_is_zero = channels == 1 and info.get("tiff", {}).get("white_is_zero", False)
    if white_is_zero:
        levels = np.iinfo(levels.dtype).max - levels
    numbers = np.dtype(order + info.get("tiff", {}).get("numbers", levels.dtype.str[1:]))
    bits = numbers.itemsize * 8
    content = np.ascontiguousarray(levels.clip(max=np.iinfo(numbers).max), numbers).tobytes()
    compression = NONE
    if info.get("tiff", {}).get("compressed"):
        compression, content = DEFLATE, zlib.compress(content)
    words: dict[int, tuple[Any, ...]] = {  # TIFF 6.0, section 3 to 6
        256: ("I", width),
        257: ("I", height),
        258: ("H", *[bits] * channels),
        259: ("H", compression),
        262: ("H", 2 if channels > 2 else 0 if white_is_zero else 1),  # RGB, white or black is zero
        273: ("I", 0),
        277: ("H", channels),
        278: ("I", height),
        279: ("I", len(content)),
        284: ("H", 1),
    }
    if channels in (2, 4):
        words[338] = "H", 2  # alpha that the colours are not multiplied by
    if numbers.kind == "i":
        words[339] = "H", *[2] * channels  # signed
    if info.get("dpi") and 282 not in entries:
        fractions = [(round(value * 10000), 10000) for value in info["dpi"]]
        for tag, fraction in zip((282, 283), fractions, strict=True):
            entries[tag] = 5, 1, struct.pack(f"{order}II", *fraction)
        words[296] = "H", 2
    for tag, (kind, *values) in words.items():
        entries[tag] = {"H": 3, "I": 4}[kind], len(values), struct.pack(f"{order}{len(values)}{kind}", *values)
    if profile := info.get("icc_profile"):
        entries[ICC] = 7, len(profile), profile
    if xmp := info.get("xmp"):
        entries[XMP] = 1, len(xmp), xmp
    head = as_block(entries, order)[6:]
    head += bytes(len(head) % 2)
    entries[273] = 4, 1, struct.pack(f"{order}I", len(head))
    head = as_block(entries, order)[6:]
    return head + bytes(len(head) % 2) + content
