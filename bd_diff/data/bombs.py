"""Recognises files that claim more pixels than they can hold, before memory is spent on them (decompression bombs)."""

import math
from pathlib import Path
from typing import Any

from PIL import Image, TiffImagePlugin

# The most bytes of pixels that a byte of a file can stand for. Deflate: 258 bytes from two bits at best (RFC 1951);
# PackBits: 128 from two; LZW: a string of up to 4,096 from a code of 12 bits.
DEFLATE, PACKBITS, LZW = 1032, 64, 4096 * 8 / 12
TIFF = {
    "raw": 1,
    "packbits": PACKBITS,
    "lzw": LZW,
    "tiff_lzw": LZW,
    "tiff_adobe_deflate": DEFLATE,
    "tiff_deflate": DEFLATE,
}
TIFF_CODES = {1: 1, 5: LZW, 8: DEFLATE, 32773: PACKBITS, 32946: DEFLATE}  # the same by the number in the file
# JPEG: an MCU holds at most ten blocks of 64 samples (ITU-T T.81, B.2.3), a bit of the first scan each at the least.
JPEG = 8 * 64
SPARE = 4096  # bytes, for what a file holds beside pixels


def check_claim(file: Image.Image, size: int) -> None:
    """Raise `ValueError` if a file of `size` bytes claims more pixels than its format can code in them.

    WebP, AVIF and HEIC are not checked: their coding has no such bound.
    """
    most = ratio(file)
    if most:
        check_room(samples(file), most, size, file.size)


def check_room(needed: float, most: float, size: int, pixels: tuple[int, int]) -> None:
    """Raise `ValueError` if `size` bytes of file, at `most` bytes of pixels each, cannot hold the `needed` bytes."""
    if needed > most * (size + SPARE):
        width, height = pixels
        raise ValueError(f"it claims {width} x {height} pixels, more than its {size} bytes can hold")


def check_pixels(path: Path, most: int) -> None:
    """Raise `ValueError` if an image claims more than `most` pixels. Other faults are left to whoever reads it."""
    try:
        with Image.open(path) as file:
            width, height = file.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to open safely: {error}") from error
    except Exception:  # decoders raise anything
        return
    if width * height > most:
        raise ValueError(f"{path} has {width} x {height} pixels; up to {most / 1e6:.3g} megapixels are taken here")


def ratio(file: Any) -> float | None:
    """The most bytes of pixels that one byte of the file can hold; None if the format has no known bound."""
    if file.format == "TIFF":
        return TIFF.get(file.info.get("compression"))
    return {"PNG": DEFLATE, "GIF": LZW, "JPEG": JPEG, "MPO": JPEG}.get(file.format)


def samples(file: Any) -> float:
    """The fewest bytes that the pixels take before they are coded."""
    bits = 8 * len(file.getbands())
    if file.format == "TIFF":
        depths = file.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        bits = sum(depths) if len(depths) > 1 else depths[0] * file.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    elif file.format == "PNG" and file.mode in ("1", "P", "L"):
        bits = 1  # to 8: how many are packed into a byte the mode does not say
    elif file.format == "GIF":
        bits = 8
    elif file.format in ("JPEG", "MPO"):
        bits = 8  # of the brightness: colour may be coarser
    return math.prod(file.size) * bits / 8
