"""A photograph as the bytes of a file: how each format is written, and one line about what it cannot hold.

A result of the format that its photograph came in is written as that was: JPEG with its tables and subsampling, WebP
and AVIF lossless or not, HEIC and AVIF with their depth, TIFF compressed or not.
"""

import io
import struct
import warnings
from typing import Any

import numpy as np
from PIL import Image

from bd_diff.data.deep import MODES as DEEP_MODES
from bd_diff.data.deep import DeepImage
from bd_diff.data.heif import DEPTHS, LOSSLESS, encode_avif, encode_heic
from bd_diff.data.png import encode_png
from bd_diff.data.tiff import encode_tiff

MODES = ("L", "LA", "RGB", "RGBA", "I;16")
DEEP = ("I;16", *DEEP_MODES.values())
QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90, "HEIF": 90}
WRITTEN = {  # format: modes it holds
    "PNG": (*MODES[:4], *DEEP),
    "TIFF": (*MODES[:4], *DEEP),
    "WEBP": MODES[:4],
    "AVIF": (*MODES[:4], *DEEP),  # 16 bit that was 10 or 12
    "HEIF": (*MODES[:4], *DEEP),
    "JPEG": ("L", "RGB"),
    "BMP": ("L", "RGB"),
    "PPM": ("L", "RGB", "I;16", "RGB;16"),
}
HELD = {  # beside the pixels
    "PNG": {"icc_profile", "exif", "xmp", "cicp", "png", "comment"},
    "TIFF": {"icc_profile", "exif", "xmp"},
    "WEBP": {"icc_profile", "exif", "xmp"},
    "AVIF": {"icc_profile", "exif", "xmp", "cicp"},
    "HEIF": {"icc_profile", "exif", "xmp", "cicp"},
    "JPEG": {"icc_profile", "exif", "xmp", "comment", "segments"},
    "BMP": set(),
    "PPM": set(),
}
NAMES = {"icc_profile": "its colour profile", "exif": "its EXIF", "xmp": "its XMP", "comment": "its comment"}
NAMES |= {"cicp": "its colour space (CICP)", "segments": "its IPTC"}
LONGEST_XMP = 65502  # bytes in one segment of a JPEG
APP13, RESOURCES, THUMBNAILS = 0xED, b"Photoshop 3.0\0", (1033, 1036)


def holds(kind: str, image: Image.Image | DeepImage) -> bool:
    """Whether a format can store images of this image's mode."""
    if kind in ("AVIF", "HEIF") and image.mode in DEEP and image.info.get("depth") not in DEPTHS:
        return False
    return image.mode in WRITTEN[kind]


def encode(image: Image.Image | DeepImage, kind: str, quality: int | None = None, name: str = "the image") -> bytes:
    """The bytes of a file of `kind` that holds the image and all metadata in its `info`.

    quality: of JPEG, WebP, AVIF and HEIC, 1 to 100; by default the source's own or `QUALITY`. name: stands in the
    warning of what the format cannot hold.
    """
    info = dict(image.info)
    warn_of_losses(info, kind, name)
    levels = image.levels if isinstance(image, DeepImage) else np.asarray(image)
    levels = levels.reshape(*levels.shape[:2], -1)
    if kind == "PNG":
        return encode_png(levels, info)
    if kind == "TIFF":
        return encode_tiff(levels, info, name)
    if kind == "AVIF":
        lossless = info.get("avif", {}).get("lossless", False)
        return encode_avif(levels, info, quality or (LOSSLESS if lossless else QUALITY[kind]))
    if kind == "HEIF":
        return encode_heic(levels, info, quality or QUALITY[kind])
    if kind == "PPM" and levels.dtype == np.uint16:
        head = f"P{5 if levels.shape[-1] == 1 else 6}\n{image.width} {image.height}\n65535\n"
        return head.encode() + levels.astype(">u2").tobytes()
    options: dict[str, Any] = {
        key: info[key] for key in ("icc_profile", "exif", "xmp") if key in HELD[kind] and info.get(key)
    }
    if kind == "JPEG":
        options |= jpeg_options(info, quality, name)
    elif kind == "WEBP":
        lossless = quality is None and info.get("webp", {}).get("lossless", False)
        options |= {"quality": quality or QUALITY[kind], "lossless": lossless, "exact": True}
    elif kind == "BMP" and info.get("dpi"):
        options["dpi"] = info["dpi"]
    plain = (image.to_pil() if isinstance(image, DeepImage) else image).copy()
    file = io.BytesIO()
    plain.info = {}
    plain.save(file, format=kind, **options)
    return file.getvalue()


def warn_of_losses(info: dict, kind: str, name: str) -> None:
    """Warn, in one line, of what in `info` the format cannot hold."""
    lost = [told for key, told in NAMES.items() if info.get(key) and key not in HELD[kind]]
    if "png" not in HELD[kind] and info.get("png"):
        lost.append("its PNG chunks " + ", ".join(sorted({chunk.decode() for chunk, _ in info["png"]})))
    if lost:
        warnings.warn(f"{name}: {kind} cannot hold {', '.join(lost)}; that was left out", stacklevel=3)


def jpeg_options(info: dict, quality: int | None, name: str) -> dict:
    """Pillow's options for writing a JPEG: as its source was written, or at the given quality."""
    options: dict[str, Any] = {"quality": quality or QUALITY["JPEG"], "subsampling": 0}
    source = info.get("jpeg")
    if source and quality is None:
        options = {"qtables": source["qtables"], "subsampling": source["subsampling"]}
        options["progressive"] = source["progressive"]
    if info.get("dpi"):
        options["dpi"] = tuple(round(value) for value in info["dpi"])
    if info.get("comment"):
        options["comment"] = info["comment"]
    segments = info.get("segments", ())
    options["extra"] = b"".join(b"\xff" + struct.pack(">BH", marker, len(held) + 2) + held for marker, held in segments)
    xmp = info.get("xmp", b"")
    if len(xmp) > LONGEST_XMP:
        warnings.warn(f"{name}: its XMP of {len(xmp)} bytes does not fit into a JPEG and was left out", stacklevel=4)
    else:
        options["xmp"] = xmp
    return options


def jpeg_info(file: Any) -> dict:
    """How an opened JPEG was written, and the metadata that Pillow does not pass on: IPTC, and XMP beyond 64 KiB."""
    from PIL import JpegImagePlugin

    subsampling = JpegImagePlugin.get_sampling(file)
    tables = {index: list(table) for index, table in file.quantization.items()}
    found: dict[str, Any] = {
        "jpeg": {
            "qtables": tables,
            "subsampling": max(subsampling, 0),
            "progressive": bool(file.info.get("progressive")),
        }
    }
    segments = []
    for marker, content in getattr(file, "applist", ()):
        if marker == "APP1" and content.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            segments.append((0xE1, content))
        elif marker == "APP13" and content.startswith(RESOURCES) and (kept := without_thumbnails(content)):
            segments.append((APP13, kept))
    if segments:
        found["segments"] = segments
    if isinstance(file.info.get("comment"), bytes):
        found["comment"] = file.info["comment"]
    return found


def without_thumbnails(content: bytes) -> bytes:
    """A JPEG's Photoshop image resources without the thumbnails; empty if they hold nothing else."""
    kept, place = b"", len(RESOURCES)
    while content[place : place + 4] == b"8BIM" and place + 12 <= len(content):
        (number,) = struct.unpack_from(">H", content, place + 4)
        named = content[place + 6] + 1
        start = place + 6 + named + named % 2
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 4 + length + length % 2
        if number not in THUMBNAILS:
            kept += content[place:end]
        place = end
    return RESOURCES + kept if kept else b""
