"""What has fewer levels than a result: photographs of less than 8 bits, and palettes. Also PGM and PPM of more."""

import re
from typing import Any

import numpy as np

PALETTE = "its palette becomes RGB"
PPM = re.compile(rb"P([1-6])" + 2 * rb"(?:\s+(?:#[^\n]*\n\s*)*(\d+))")  # kind, width, height
HIGHEST = re.compile(rb"\s+(?:#[^\n]*\n\s*)*(\d+)\s")
PNG_BITS, PNG_COLOUR, BMP_BITS = 24, 25, 28  # where these stand in a file
HEAD = 2**16  # bytes in which the head of a file ends, comments included


def becomes_more(image: Any, data: bytes) -> str | None:
    """What is to be told of an opened PIL image that has fewer levels than a result of 8 bits; else None.

    data: the first `HEAD` bytes of its file, or none.
    """
    if image.mode in ("P", "PA"):
        return PALETTE
    bits = 1 if image.mode == "1" else 8
    if image.format == "PNG" and len(data) > PNG_COLOUR:
        bits = data[PNG_BITS]
    elif image.format in ("BMP", "DIB") and data[BMP_BITS : BMP_BITS + 2] == b"\x10\0":
        bits = 5
    elif image.format == "PPM" and (highest := highest_level(data)):
        bits = highest.bit_length()
    return few_bits(bits) if bits < 8 else None


def few_bits(bits: int) -> str:
    """The line about numbers of less than 8 bits."""
    return f"its {bits} bit{'s' if bits > 1 else ''} per colour become{'s' if bits == 1 else ''} 8"


def highest_level(data: bytes) -> int | None:
    """The number that is white in a PBM, PGM or PPM; None for other files."""
    head = PPM.match(data)
    if not head or head[1] in b"14":
        return 1 if head else None
    highest = HIGHEST.match(data, head.end())
    return int(highest[1]) if highest else None


def deep_ppm(data: bytes) -> np.ndarray | None:
    """Levels `(H, W, 1 or 3)` uint16 of a PGM or PPM of more than 8 bits, over the whole range; None for others.

    Raises `ValueError` where it ends early.
    """
    head, highest = PPM.match(data), highest_level(data[:HEAD])
    if not head or not highest or highest < 256:
        return None
    place = HIGHEST.match(data, head.end()).end()  # type: ignore[union-attr]
    width, height, channels = int(head[2]), int(head[3]), 1 if head[1] in b"25" else 3
    count = width * height * channels
    if head[1] in b"23":
        levels = np.array(re.sub(rb"#[^\n]*", b"", data[place:]).split()[:count], np.int64)
    else:
        levels = np.frombuffer(data[place : place + 2 * count], ">u2")
    if len(levels) < count:
        raise ValueError("it is truncated: it has fewer numbers than pixels")
    levels = levels.reshape(height, width, channels)
    return np.round(levels * (65535 / highest)).clip(0, 65535).astype(np.uint16)
