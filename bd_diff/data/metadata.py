"""EXIF and XMP: keeps what describes the photograph, and drops what describes the file that it was stored in.

EXIF is a TIFF directory with directories inside (EXIF 2.32, section 4.6; TIFF 6.0, section 2). Where it stands by
itself (JPEG, PNG, WebP, HEIC, AVIF) it is changed in place: the makers' notes hold offsets into it, and would be wrong
anywhere else. Where it is part of a TIFF, it is taken apart and put together again.
"""

import re
import struct
from mmap import mmap
from typing import Any

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}  # bytes by type
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, DESCRIPTION, XMP, ICC = 274, 282, 283, 270, 700, 34675
EXIF, GPS, INTEROPERABILITY = NESTED = 0x8769, 0x8825, 0xA005  # directories inside
MAKER_NOTE, PIXELS_X, PIXELS_Y = 0x927C, 0xA002, 0xA003
# Orientation, and what describes pixels, strips, tiles, the thumbnail, other directories and Photoshop's own copies
FILE_TAGS = {*range(254, 270), ORIENTATION, *range(277, 282), 284, 317, *range(320, 326), 330, *range(338, 348)}
FILE_TAGS |= {*range(512, 522), *range(529, 533), 32995, 32996, 32997, 32998, 34377, ICC, 37724, 50839}
# Elements of Ultra HDR (Android's Ultra HDR Image Format, 1.1) and of the list of pictures in its file
GAIN_MAP = [
    *(b"hdrgm:" + name for name in (b"GainMapMin", b"GainMapMax", b"Gamma", b"OffsetSDR", b"OffsetHDR")),
    *(b"hdrgm:" + name for name in (b"Version", b"HDRCapacityMin", b"HDRCapacityMax", b"BaseRenditionIsHDR")),
    *(b"Container:Directory", b"GContainer:Directory"),
]

Buffer = bytes | bytearray | mmap
Entry = tuple[int, int, Any]  # type, number of values, their bytes or the entries of the directory inside


def byte_order(data: Buffer) -> str:
    """The byte order of a TIFF or EXIF block, as `struct` writes it."""
    orders = {b"II": "<", b"MM": ">"}
    if bytes(data[:2]) not in orders:
        raise ValueError("it does not begin with a byte order")
    return orders[bytes(data[:2])]


def unpack_directory(data: Buffer, offset: int, order: str, big: bool = False) -> dict[int, Entry]:
    """The directory at `offset` of a TIFF (`big`: of a BigTIFF), with those inside; unknown types are left out."""
    counted, entry, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    word = "Q" if big else "I"
    (count,) = struct.unpack_from(order + counted, data, offset)
    offset += struct.calcsize(order + counted)
    if offset + count * entry > len(data):
        raise ValueError("a directory does not fit into it")
    found: dict[int, Entry] = {}
    for place in range(offset, offset + count * entry, entry):
        tag, kind, number = struct.unpack_from(f"{order}HH{word}", data, place)
        if tag in NESTED:
            pointer = struct.unpack_from(order + word, data, place + entry - inline)[0]
            found[tag] = 4, 1, unpack_directory(data, pointer, order, big)
        elif kind in SIZES:
            length, start = SIZES[kind] * number, place + entry - inline
            if length > inline:
                (start,) = struct.unpack_from(order + word, data, start)
            value = bytes(data[start : start + length])
            if len(value) < length:
                raise ValueError(f"the value of its tag {tag} lies beyond its end")
            if kind in (16, 17):  # of BigTIFF only
                numbers = struct.unpack(f"{order}{number}{'Qq'[kind - 16]}", value)
                if max(map(abs, numbers), default=0) >= 2**31:
                    continue
                kind, value = (4, 9)[kind - 16], struct.pack(f"{order}{number}{'Ii'[kind - 16]}", *numbers)
            found[tag] = kind, number, value
    return found


def pack_directory(entries: dict[int, Entry], order: str, start: int) -> bytes:
    """The bytes of a directory that begins at `start` of a TIFF, followed by its values and the directories inside."""
    head, body = [struct.pack(f"{order}H", len(entries))], bytearray()
    behind = start + 2 + 12 * len(entries) + 4
    for tag, (kind, count, value) in sorted(entries.items()):
        position = struct.pack(f"{order}I", behind + len(body))
        if isinstance(value, dict):
            body += pack_directory(value, order, behind + len(body))
        elif len(value) > 4:
            body += value
        else:
            position = value.ljust(4, b"\0")
        body += b"\0" * (len(body) % 2)
        head.append(struct.pack(f"{order}HHI", tag, kind, count) + position)
    return b"".join(head) + bytes(4) + bytes(body)


def as_block(entries: dict[int, Entry], order: str) -> bytes:
    """A directory as an EXIF block of its own; empty without entries."""
    if not entries:
        return b""
    return b"Exif\0\0" + {"<": b"II*\0\x08\0\0\0", ">": b"MM\0*\0\0\0\x08"}[order] + pack_directory(entries, order, 8)


def from_block(exif: bytes) -> tuple[dict[int, Entry], str]:
    """The entries of an EXIF block, and its byte order."""
    data = exif.removeprefix(b"Exif\0\0")
    order = byte_order(data)
    return unpack_directory(data, struct.unpack_from(order + "I", data, 4)[0], order), order


def photograph_entries(entries: dict[int, Entry], turned: bool, size: tuple[int, int], order: str) -> dict[int, Entry]:
    """The entries of a TIFF that describe its photograph, upright and of `size`, whatever file it is stored in.

    turned: width and height have changed places. The maker's notes are left out, as their offsets hold no longer.
    """
    kept = {tag: entry for tag, entry in entries.items() if tag not in FILE_TAGS}
    if turned and X_RESOLUTION in kept and Y_RESOLUTION in kept:
        kept[X_RESOLUTION], kept[Y_RESOLUTION] = kept[Y_RESOLUTION], kept[X_RESOLUTION]
    if DESCRIPTION in kept and kept[DESCRIPTION][2].startswith(b'{"shape":'):  # tifffile's own, of the stored array
        del kept[DESCRIPTION]
    if EXIF in kept:
        inside = {tag: entry for tag, entry in kept[EXIF][2].items() if tag != MAKER_NOTE}
        for tag, side in zip((PIXELS_X, PIXELS_Y), size, strict=True):
            if tag in inside:
                inside[tag] = 4, 1, struct.pack(f"{order}I", side)
        kept[EXIF] = 4, 1, inside
    return kept


def clean_exif(exif: bytes, size: tuple[int, int], turned: bool = False) -> bytes:
    """An EXIF block of an upright photograph of `size` without thumbnail, changed in place.

    turned: width and height have changed places. Raises `ValueError` or `struct.error` for a damaged block.
    """
    block = bytearray(exif.removeprefix(b"Exif\0\0"))
    order = byte_order(block)
    first = struct.unpack_from(order + "I", block, 4)[0]
    unpack_directory(block, first, order)  # whole, or an error
    _forget_thumbnail(block, first, order)
    places = _keep_entries(block, first, order, FILE_TAGS)
    if turned and X_RESOLUTION in places and Y_RESOLUTION in places:
        across, down = (slice(places[tag] + 2, places[tag] + 12) for tag in (X_RESOLUTION, Y_RESOLUTION))
        block[across], block[down] = block[down], block[across]
    if EXIF in places:
        inside = _keep_entries(block, struct.unpack_from(order + "I", block, places[EXIF] + 8)[0], order, set())
        for tag, side in zip((PIXELS_X, PIXELS_Y), size, strict=True):
            if tag in inside:
                struct.pack_into(f"{order}HHII", block, inside[tag], tag, 4, 1, side)
    return b"Exif\0\0" + bytes(block) if places else b""


def _keep_entries(block: bytearray, offset: int, order: str, unwanted: set[int]) -> dict[int, int]:
    """Remove unwanted entries of a directory, whose others close up; where each of those stands then."""
    (count,) = struct.unpack_from(order + "H", block, offset)
    entries = [bytes(block[place : place + 12]) for place in range(offset + 2, offset + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from(order + "H", entry)[0] not in unwanted]
    after = block[offset + 2 + 12 * count : offset + 6 + 12 * count]
    table = struct.pack(order + "H", len(kept)) + b"".join(kept) + after
    block[offset : offset + 6 + 12 * count] = table.ljust(6 + 12 * count, b"\0")
    return {struct.unpack_from(order + "H", entry)[0]: offset + 2 + 12 * index for index, entry in enumerate(kept)}


def _forget_thumbnail(block: bytearray, first: int, order: str) -> None:
    """Blank the second directory and the thumbnail that it points to, which shows the photograph as it was."""
    pointer = first + 2 + 12 * struct.unpack_from(order + "H", block, first)[0]
    (second,) = struct.unpack_from(order + "I", block, pointer)
    struct.pack_into(order + "I", block, pointer, 0)
    if not second:
        return
    try:
        entries = unpack_directory(block, second, order)
    except (ValueError, struct.error):  # nobody can find it without its directory
        return
    if 513 in entries and 514 in entries:
        start, length = (struct.unpack_from(order + "I", entries[tag][2].ljust(4, b"\0"))[0] for tag in (513, 514))
        end = min(start + length, len(block))
        block[start:end] = bytes(max(end - start, 0))
        if end == len(block):
            del block[start:]
    length = 6 + 12 * struct.unpack_from(order + "H", block, second)[0]
    block[second : second + length] = bytes(min(length, max(len(block) - second, 0)))


def clean_xmp(xmp: bytes, turned: bool = False) -> bytes:
    """XMP of an upright photograph, without thumbnails and gain maps, which are of other pixels."""
    xmp = re.sub(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)
    xmp = without_element(xmp, b"xmp:Thumbnails")
    if b"hdrgm:" in xmp:
        xmp = re.sub(rb"\s(?:hdrgm|xmlns:hdrgm):?\w*=(\"[^\"]*\"|'[^']*')", b"", xmp)
        xmp = re.sub(rb"<hdrgm:\w+[^<>]*/>", b"", xmp)
        for element in GAIN_MAP:
            xmp = without_element(xmp, element)
    if turned:
        stale = rb"(?:exif:Pixel[XY]Dimension|tiff:Image(?:Width|Length))"
        xmp = re.sub(rb"\s" + stale + rb"=(\"\d*\"|'\d*')", b"", xmp)
        xmp = re.sub(rb"<(" + stale + rb")>\d*</\1>", b"", xmp)
    return xmp


def without_element(xmp: bytes, name: bytes) -> bytes:
    """XMP without the elements of a name. The time is linear in the length, also where they are never closed."""
    kept, place = [], 0
    while (start := xmp.find(b"<" + name, place)) >= 0 and (end := xmp.find(b"</" + name + b">", start)) >= 0:
        kept.append(xmp[place:start])
        place = end + len(name) + 3
    return b"".join(kept) + xmp[place:]
