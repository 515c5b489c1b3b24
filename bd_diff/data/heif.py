"""HEIC and AVIF: 10 and 12 bit in and out, and the colour space that they name by numbers (CICP, ITU-T H.273)."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

NCLX = b"colrnclx"  # the box: primaries, transfer, matrix (2 bytes each), full range (the highest bit)
IDENTITY = 0  # matrix of files without losses: the planes are RGB
LOSSLESS = 100  # quality
SRGB = {(1, 13), (2, 2), (1, 2), (2, 13)}  # primaries and transfer that need not be named
DEPTHS = 10, 12


def read_depth(path: Path, kind: str) -> tuple[np.ndarray | None, dict]:
    """Levels `(H, W, C)` uint16 over the whole range, and the part of `info` that Pillow does not give.

    kind: HEIF or AVIF. The levels are None for a file of 8 bits that Pillow opens in its own mode; grey with alpha it
    opens as RGBA, so that is uint8 here. HEIC comes upright, AVIF as it is stored.
    """
    data = path.read_bytes()
    info: dict[str, Any] = {}
    levels = None
    if (cicp := named_colours(data)) and cicp[:2] not in SRGB:
        info["cicp"] = cicp
    if kind == "HEIF":
        import pillow_heif

        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        depth, chroma = file.info.get("bit_depth", 8), file.info.get("chroma")
        info["heif"] = {"chroma": chroma}
        grey_with_alpha = not chroma and file.mode.startswith("RGBA")
        if depth > 8 or grey_with_alpha:
            levels = np.asarray(file) >> (16 - depth if depth > 8 else 0)
            levels = levels[..., [0, 3]] if grey_with_alpha else levels
    else:
        levels = imagecodecs.avif_decode(data)
        depth, info["avif"] = _av1_configuration(data)
        if cicp and cicp[2] == IDENTITY and levels.shape[-1] > 2:
            info["avif"] = {"lossless": True}
        if levels.dtype == np.uint16:
            depth = max(depth, next(bits for bits in (*DEPTHS, 16) if levels.max() < 2**bits or bits == 16))
    if levels is not None:
        levels = levels.reshape(*levels.shape[:2], -1)
    if depth > 8:
        info["depth"] = depth
        levels = np.round(levels * (65535 / (2**depth - 1))).astype(np.uint16)
    elif levels is not None and levels.shape[-1] != 2:
        levels = None
    return levels, info


def named_colours(data: bytes) -> tuple[int, int, int, int] | None:
    """Primaries, transfer, matrix and full range of the first nclx box."""
    place = data.find(NCLX)
    if place < 0:
        return None
    box = data[place + 8 : place + 15]
    primaries, transfer, matrix = (int.from_bytes(box[index : index + 2], "big") for index in (0, 2, 4))
    return primaries, transfer, matrix, box[6] >> 7


def _av1_configuration(data: bytes) -> tuple[int, dict[str, str]]:
    """Bits and, if the colours are no more than grey, subsampling of the first AV1 configuration box (AV1-ISOBMFF,
    section 2.3.3: high_bitdepth, twelve_bit, monochrome, chroma_subsampling_x, chroma_subsampling_y).
    """
    flags = data[data.find(b"av1C") + 6]
    subsampling = {0: "4:4:4", 8: "4:2:2"}.get(flags & 12, "4:2:0")
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10, {} if flags & 0x10 else {"subsampling": subsampling}


def encode_heic(levels: np.ndarray, info: dict, quality: int) -> bytes:
    """A HEIC of levels `(H, W, 1 to 4)` uint8, or uint16 over the whole range at the depth that `info` names."""
    import pillow_heif

    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    mode, size = modes[levels.shape[-1]], levels.shape[1::-1]
    depth = info.get("depth", 10)
    if levels.dtype == np.uint16:
        mode += ";16"
        levels = np.round(levels / 65535 * (2**depth - 1)).astype("<u2") << (16 - depth)
    options = {name: info[name] for name in ("exif", "xmp", "icc_profile") if info.get(name)}
    if "icc_profile" in options:
        options["icc_profile_type"] = "prof"
    if cicp := info.get("cicp"):
        options |= {"color_primaries": cicp[0], "transfer_characteristics": cicp[1], "save_nclx_profile": True}
    if chroma := info.get("heif", {}).get("chroma"):
        options["chroma"] = chroma
    file, content = io.BytesIO(), np.ascontiguousarray(levels).tobytes()
    pillow_heif.encode(mode, size, content, file, quality=quality, bit_depth=depth, **options)
    return with_named_colours(file.getvalue(), cicp)


def encode_avif(levels: np.ndarray, info: dict, quality: int) -> bytes:
    """An AVIF of levels `(H, W, 1 to 4)` uint8, or uint16 over the whole range at the depth that `info` names.

    quality: 1 to 100; 100 loses nothing.
    """
    shown = levels if levels.dtype == np.uint8 else (levels >> 8).astype(np.uint8)
    options = {name: info[name] for name in ("exif", "xmp", "icc_profile") if info.get(name)}
    if subsampling := info.get("avif", {}).get("subsampling"):
        options["subsampling"] = subsampling
    if levels.shape[-1] < 3:
        options["subsampling"] = "4:0:0"
        shown = shown[..., 0] if levels.shape[-1] == 1 else shown[..., [0, 0, 0, 1]]
    image = Image.fromarray(shown)
    file = io.BytesIO()
    image.save(file, format="AVIF", quality=quality, **options)
    encoded = file.getvalue()
    depth = info.get("depth", 10) if levels.dtype == np.uint16 else 8
    if depth > 8 or quality == LOSSLESS:  # which Pillow does not write
        deep = np.round(levels / 65535 * (2**depth - 1)).astype(np.uint16) if depth > 8 else levels
        encoded = with_payload(encoded, bytes(imagecodecs.avif_encode(deep, level=quality, bitspersample=depth)))
    return with_named_colours(encoded, info.get("cicp"))


def with_named_colours(encoded: bytes, cicp: tuple[int, int, int, int] | None) -> bytes:
    """The file with other primaries and transfer in its nclx boxes; the matrix stays that of the encoding."""
    if not cicp:
        return encoded
    changed, place = bytearray(encoded), -1
    while (place := changed.find(NCLX, place + 1)) >= 0:
        changed[place + 8 : place + 12] = cicp[0].to_bytes(2, "big") + cicp[1].to_bytes(2, "big")
    return bytes(changed)


def with_payload(shell: bytes, deep: bytes) -> bytes:
    """An AVIF with the metadata of one and the pixels of another, both as libavif writes them: `shell` points to the
    pixels of `deep`, appended, and describes their depth and matrix (AV1-ISOBMFF; HEIF, ISO/IEC 23008-12).
    """
    joined = bytearray(shell)
    if (ours := joined.find(NCLX)) >= 0 and (theirs := deep.find(NCLX)) >= 0:
        joined[ours + 12 : ours + 15] = deep[theirs + 12 : theirs + 15]
    for box in (b"av1C", b"pixi"):  # configuration of the codec, bits per channel: of the colours and of alpha
        place, source = -1, -1
        while (place := joined.find(box, place + 1)) >= 0:
            source = deep.index(box, source + 1)
            length = int.from_bytes(deep[source - 4 : source], "big") - 4
            joined[place : place + length] = deep[source : source + length]
    pixels = deep.index(b"mdat") - 4
    moved = len(joined) - pixels
    located = {number: deep[place : place + 8] for number, place in _locations(deep)}
    for number, place in _locations(shell):
        if number in located:
            offset = int.from_bytes(located[number][:4], "big") + moved
            joined[place : place + 8] = offset.to_bytes(4, "big") + located[number][4:]
    return bytes(joined) + deep[pixels:]


def _locations(data: bytes) -> list[tuple[int, int]]:
    """Number of each item, and where its offset and length (4 bytes each) stand; items of one extent."""
    place = data.index(b"iloc") + 4
    if data[place] != 0 or data[place + 4 : place + 6] != b"\x44\0":
        raise ValueError("the encoder locates items in a way that is not known here")
    count = int.from_bytes(data[place + 6 : place + 8], "big")
    return [
        (int.from_bytes(data[start : start + 2], "big"), start + 6)
        for start in range(place + 8, place + 8 + 14 * count, 14)
    ]
