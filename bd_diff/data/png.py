"""PNG of 8 and 16 bit, with the chunks that say how its numbers are to be shown and what its author wrote."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from bd_diff.data.metadata import clean_xmp

HEAD = 33  # bytes of signature and IHDR, behind which all other chunks may stand
XMP_KEY = b"XML:com.adobe.xmp\0"
SHOWN = (b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")  # how numbers become colours, beside the profile and cICP
WRITTEN = (b"tEXt", b"zTXt", b"iTXt")
LONGEST_TEXT = 2**26  # bytes, the most that Pillow takes, too
PALETTE = 3  # colour type
RUNS = {"level": 1, "strategy": 3}  # of zlib: photographs are about as small in a fifth of the time (measured)
STALE = (b"Raw profile type", b"Thumb::")  # text that is EXIF or a thumbnail once more


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every chunk."""
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length


def read_png(path: Path) -> tuple[np.ndarray, dict]:
    """Pixel values `(H, W, C)`, uint8 or uint16, as stored (EXIF orientation is not applied), and metadata that Pillow
    does not read, in the form of its `Image.info`.

    Raises the error of libpng for a file whose pixels end early.
    """
    data = path.read_bytes()
    levels = imagecodecs.png_decode(data)
    levels = levels.reshape(*levels.shape[:2], -1)
    found = list(chunks(data))
    names = {name for name, _ in found}
    if data[25] == PALETTE and b"tRNS" not in names:
        levels = levels[..., :3]
    info: dict[str, Any] = {}
    kept = []
    for name, content in found:
        if name == b"cICP" and len(content) == 4:
            info["cicp"] = tuple(content)
        elif name == b"iTXt" and content.startswith(XMP_KEY):
            xmp = content[len(XMP_KEY) :]
            packed, text = xmp[0], xmp[2:].split(b"\0", 2)[-1]
            info["xmp"] = clean_xmp(unpacked(text) if packed else text)
        elif name in SHOWN or name in WRITTEN and not content.startswith(STALE):
            kept.append((name, content))
        elif name == b"sBIT" and len(content) == levels.shape[-1]:
            kept.append((name, content))
        elif name == b"pHYs" and content[8:] == b"\0":  # the shape of a pixel, in no unit
            kept.append((name, content))
        elif name == b"pHYs" and content[8:] == b"\1":
            info["dpi"] = tuple(dots * 0.0254 for dots in struct.unpack(">II", content[:8]))
    if kept:
        info["png"] = kept
    return np.ascontiguousarray(levels), info


def unpacked(text: bytes) -> bytes:
    """Compressed text. Raises `ValueError` where it is so long that it is no text but fills the memory."""
    stream = zlib.decompressobj()
    content = stream.decompress(text, LONGEST_TEXT)
    if stream.unconsumed_tail:
        raise ValueError(f"its XMP has more than {LONGEST_TEXT} bytes")
    return content


def encode_png(levels: np.ndarray, info: dict) -> bytes:
    """A PNG of levels `(H, W, C)` uint8 or uint16; profile, EXIF, XMP and all else in chunks of their own (PNG 3,
    section 11.3).
    """
    encoded = bytes(imagecodecs.png_encode(np.ascontiguousarray(levels), **RUNS))
    added = []
    if cicp := info.get("cicp"):
        added.append((b"cICP", bytes([*cicp[:2], 0, cicp[3]])))  # RGB has no matrix
    if profile := info.get("icc_profile"):
        added.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if exif := info.get("exif"):
        added.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp := info.get("xmp"):
        added.append((b"iTXt", XMP_KEY + b"\0\0\0\0" + xmp))
    if comment := info.get("comment"):
        added.append((b"tEXt", b"Comment\0" + comment.replace(b"\0", b"")))
    if dpi := info.get("dpi"):
        added.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    for name, content in info.get("png", ()):
        if name != b"sBIT" or len(content) == levels.shape[-1] and max(content) <= levels.dtype.itemsize * 8:
            added.append((name, content))
    extra = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in added
    )
    return encoded[:HEAD] + extra + encoded[HEAD:]
