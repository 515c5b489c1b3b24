"""Photographs in and out: any file people have -> tensors in [0, 1] -> a file of the same kind.

An upright image carries everything a result needs to become the same kind of file again: its mode (grey, alpha,
16 bit), and in `info` its ICC profile, EXIF and what else `KEPT` names. `read_image` gives one, `to_image(...,
like=it)` passes all of it on. It is a PIL image, or a `DeepImage` where Pillow cannot hold it.
"""

import io
import os
import warnings
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from bd_diff.data.bombs import check_claim
from bd_diff.data.deep import DeepImage, from_levels
from bd_diff.data.depth import HEAD, becomes_more, deep_ppm
from bd_diff.data.encoding import WRITTEN, encode, holds, jpeg_info
from bd_diff.data.heif import read_depth
from bd_diff.data.metadata import ORIENTATION, clean_exif, clean_xmp
from bd_diff.data.names import (  # noqa: F401 - names of files are asked for beside the images
    EXTENSIONS,
    FITS,
    HEIC,
    RAW,
    VIDEO,
    can_write,
    file_kind,
    init_formats,
    list_images,
    listed_images,
    natural_order,
    warn_of_left_out,
)
from bd_diff.data.pixels import ROWS, is_finite
from bd_diff.data.png import read_png
from bd_diff.data.tiff import is_tiff, read_tiff, upright_levels
from bd_diff.data.writing import replacing

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "HEIF")
KEPT: tuple[str, ...] = (
    "icc_profile",
    "exif",
    "xmp",
    "dpi",
    "cicp",
    "comment",
    "png",
    "jpeg",
    "segments",
    "webp",
    "tiff",
    "heif",
    "avif",
)
KEPT += ("depth",)
LONGEST_NAME = 255  # bytes, on the file systems in use


def read_image(path: str | os.PathLike) -> Image.Image | DeepImage:
    """Read a still photograph, upright, as L, LA, RGB, RGBA or I;16 (16-bit grey), with its profile and metadata.

    What holds more than 8 bits per colour becomes 16 bit over the whole range, where Pillow has no mode for it a
    `DeepImage`. Palette, CMYK and Lab files become RGB (CMYK through its own profile when it has one). What is left
    behind (a second picture, a gain map, maker's notes of a TIFF) is warned of in one line. Everything that is not one
    whole still image raises a `ValueError` naming the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an image")
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    for what, endings in (("camera RAW", RAW), ("a video", VIDEO)):
        if path.suffix.lower() in endings:
            raise ValueError(f"{path} is {what}, which is not read here")
    if path.suffix.lower() in FITS:
        raise ValueError(f"{path} is FITS, which is read for kernels only; save the photograph as a 16-bit TIFF")
    init_formats()
    if path.suffix.lower() in HEIC and "HEIF" not in Image.OPEN:
        raise ValueError(f"{path} is a HEIC file; pip install 'bd-diff[heic]' to read it")
    try:
        if is_tiff(path):
            return from_levels(*read_tiff(path))
        with Image.open(path, formats=known_formats()) as file:
            check_claim(file, path.stat().st_size)
            return upright(file, path)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to open safely: {error}") from error
    except Exception as error:  # decoders raise anything on damaged files; each means the same to the user
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def known_formats() -> list[str]:
    """The formats that are read here: those of `FORMATS` whose library is installed."""
    init_formats()
    return [name for name in FORMATS if name in Image.OPEN]


def upright(image: Any, path: Path | None = None) -> Image.Image | DeepImage:
    """A copy of any still PIL image as `read_image` gives them: turned by its EXIF, and in one of its modes.

    path: of its file, from which levels and chunks come that Pillow does not give. Raises `ValueError` for an animation
    and for pixels that are not 8 or 16 bit.
    """
    own = getattr(image, "filename", None)
    name = str(path or own or "image")
    frames = getattr(image, "n_frames", 1)
    # Phones store a gain map or a second lens with the photograph (MPO, HEIC); the photograph comes first.
    if frames > 1 and image.format not in ("MPO", "HEIF"):
        raise ValueError(f"it holds {frames} frames or pages; save the one you want as a PNG")
    xmp = image.info.get("xmp") or b""
    if b"hdrgm:" in xmp:
        warnings.warn(f"{name}: its gain map was left out, so its result has no HDR", stacklevel=2)
    elif frames > 1:
        warnings.warn(f"{name}: it holds {frames} pictures; only the first one is restored and written", stacklevel=2)
    if b"MotionPhoto" in xmp or b"MicroVideo" in xmp:
        warnings.warn(f"{name}: its video was left out", stacklevel=2)
    if image.mode == "CMYK" and image.format != "TIFF":
        warnings.warn(f"{name}: its inks (CMYK) become RGB", stacklevel=2)
    if path is None and getattr(image, "tile", None) and isinstance(own, str):
        path = Path(own) if own else None  # opened and not yet loaded
    if path and image.format == "TIFF":
        return from_levels(*read_tiff(path))
    if told := becomes_more(image, head_of(path)):
        warnings.warn(f"{name}: {told}", stacklevel=2)
    levels = None
    extra: dict[str, Any] = {}
    if path and image.format == "PNG":
        levels, extra = read_png(path)
    elif path and image.format in ("HEIF", "AVIF"):
        levels, extra = read_depth(path, image.format)
    elif path and image.format == "PPM":
        levels = deep_ppm(path.read_bytes())
    elif image.format in ("JPEG", "MPO") and hasattr(image, "quantization"):
        extra = jpeg_info(image)
    elif path and image.format == "WEBP":
        extra = {"webp": {"lossless": b"VP8L" in path.read_bytes()[:64]}}
    try:
        turn = image.getexif().get(ORIENTATION, 1)
        turn = turn if turn in range(1, 9) else 1
        exif = image.info.get("exif") or (image.getexif().tobytes() if image.getexif() else b"")
        size = image.size[::-1] if turn >= 5 else image.size
        exif = clean_exif(exif, size, turned=turn >= 5) if exif else b""
    except Exception:  # damaged EXIF raises anything, but every viewer still shows the picture
        warnings.warn(f"{name}: its EXIF is damaged and was left out", stacklevel=2)
        turn, exif = 1, b""
    dpi = extra.get("dpi") or image.info.get("dpi")
    kept: dict[str, Any] = {
        "icc_profile": _icc(image),
        "exif": exif,
        "xmp": clean_xmp(xmp, turn >= 5) if xmp else b"",
    } | extra
    if dpi and min(dpi) > 1:
        kept["dpi"] = tuple(map(float, dpi[::-1] if turn >= 5 else dpi))
    if levels is None:
        image.load()
        turned = ImageOps.exif_transpose(image) if turn != 1 else image.copy()
        plain: Image.Image | DeepImage = _plain_mode(turned)
    else:
        plain = from_levels(upright_levels(levels, turn if image.format != "HEIF" else 1), {})
    plain.info = {key: value for key, value in kept.items() if value}
    return plain


def head_of(path: Path | None) -> bytes:
    """The first bytes of a file; none without a file."""
    if path is None:
        return b""
    with open(path, "rb") as file:
        return file.read(HEAD)


def _plain_mode(image: Image.Image) -> Image.Image:
    """One of the five modes the project works in."""
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, whose range is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # I;16B, and I where Pillow widens 16-bit grey
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("its pixels are 32-bit integers beyond 65535; save it with 8 or 16 bits")
        plain = Image.fromarray(levels.astype(np.uint16))
    elif image.mode == "CMYK" and (press := _press_profile(image)):
        plain = ImageCms.profileToProfile(image, press, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    elif image.has_transparency_data:
        plain = image.convert("LA" if image.mode in ("L", "LA", "La", "1") else "RGBA")
    else:
        plain = image.convert("L" if image.mode in ("L", "1") else "RGB")
    return plain


def _icc(image: Image.Image) -> bytes | None:
    """The colour profile, where it still holds after `_plain_mode`."""
    return None if image.mode in ("CMYK", "LAB", "YCbCr", "HSV") else image.info.get("icc_profile")


def _press_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The CMYK profile embedded in a CMYK image, if there is one."""
    if not image.info.get("icc_profile"):
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    return profile if profile.profile.xcolor_space.strip() == "CMYK" else None


def to_tensor(image: Image.Image | DeepImage) -> Tensor:
    """Colours of an image from `read_image` as `(3, H, W)` float32 in [0, 1]; grey is repeated, alpha left out."""
    if isinstance(image, DeepImage):
        colours = image.colours.astype(np.float32) / 65535
    elif image.mode == "I;16":
        colours = np.asarray(image, dtype=np.float32)[..., None] / 65535
    else:
        colours = np.asarray(image.convert("L" if image.mode in ("L", "LA") else "RGB"), dtype=np.float32) / 255
        colours = colours.reshape(image.height, image.width, -1)
    return torch.from_numpy(colours).permute(2, 0, 1).expand(3, -1, -1).contiguous()


@overload
def to_image(pixels: Tensor, like: Image.Image | None = None) -> Image.Image: ...


@overload
def to_image(pixels: Tensor, like: Image.Image | DeepImage | None = None) -> Image.Image | DeepImage: ...


def to_image(pixels: Tensor, like: Image.Image | DeepImage | None = None) -> Image.Image | DeepImage:
    """Colours `(3, H, W)` as an RGB image, or as one of the kind of `like`, with its alpha, ICC profile and EXIF.

    Values beyond [0, 1] are clipped; NaN and a size other than that of `like` are errors.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"an image is a tensor of shape (3, H, W), not {tuple(pixels.shape)}")
    pixels = pixels.detach().float().cpu()
    if not is_finite(pixels):
        raise ValueError("the image holds NaN or infinite values; check the model's weights, or use float32")
    height, width = pixels.shape[-2:]
    if like and like.size != (width, height):
        raise ValueError(f"the result is {width}x{height}, its photograph {like.width}x{like.height}")
    mode = like.mode if like else "RGB"
    grey = like.colours.shape[-1] == 1 if isinstance(like, DeepImage) else mode in ("I;16", "L", "LA")
    levels = _levels(pixels.mean(0, keepdim=True) if grey else pixels, 65535 if "16" in mode else 255)
    if isinstance(like, DeepImage):
        return like.with_colours(levels)
    image = Image.fromarray(levels[..., 0] if grey else levels)
    if like:
        if mode in ("LA", "RGBA"):
            image.putalpha(like.getchannel("A"))
        image.info = {name: like.info[name] for name in KEPT if name in like.info}
    return image


def _levels(pixels: Tensor, highest: int) -> np.ndarray:
    """`(C, H, W)` in [0, 1] and beyond, as `(H, W, C)` of 8 or 16 bit."""
    channels, height, width = pixels.shape
    levels = np.empty((height, width, channels), np.uint8 if highest == 255 else np.uint16)
    for top in range(0, height, ROWS):  # a large photograph is not copied as floats once more
        rows = pixels[:, top : top + ROWS].clamp(0, 1).mul_(highest).round_()
        levels[top : top + ROWS] = rows.movedim(0, -1).numpy()
    return levels


def save_image(image: Image.Image | DeepImage, path: str | os.PathLike, quality: int | None = None) -> None:
    """Write an image with its ICC profile and EXIF in the format of the path's ending, whole or not at all.

    quality: of JPEG, WebP, AVIF and HEIC, 1 to 100, instead of 95 (AVIF and HEIC 90).
    A format that cannot hold the image's mode (JPEG with alpha or 16 bit) is a `ValueError`; a full disk or a folder
    without permission an `OSError` naming the path.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind is None or not can_write(path):
        raise ValueError(f"{path} does not end in an image format that can be written ({', '.join(WRITTEN)})")
    if not holds(kind, image):
        what = "16 bits per colour" if "16" in image.mode else "transparency"
        raise ValueError(f"{path}: {kind} cannot hold {what}; write a .png")
    encoded = encode(image, kind, quality, str(path))
    with replacing(path) as part:
        part.write_bytes(encoded)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Extend `(B, C, H, W)` at the right and bottom until both sides are multiples; `crop_to` undoes it.

    The border is reflected, or repeated where the image is too small to be reflected, so any size from 1x1 will do.
    """
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)


def crop_to(images: Tensor, height: int, width: int) -> Tensor:
    """The top left `height` x `width` pixels: what `pad_to_multiple` was given."""
    return images[..., :height, :width]
