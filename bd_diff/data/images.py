"""Photographs in and out: any file people have -> tensors in [0, 1] -> a file of the same kind.

An upright image carries everything a result needs to become the same kind of file again: its mode (grey, alpha,
16 bit), its ICC profile and its EXIF. `read_image` gives one, `to_image(..., like=it)` passes all of it on. It is a PIL
image, or a `DeepImage` where Pillow cannot hold it.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from bd_diff.data.deep import MODES as DEEP_MODES
from bd_diff.data.deep import DeepImage, is_deep, read_levels, write_deep

HEIC = (".heic", ".heif")  # with the extra `heic`
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif")
EXTENSIONS += HEIC
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF")
# Orientation, and the TIFF tags that describe pixels, strips, tiles and the thumbnail
FILE_TAGS = {*range(254, 270), 273, 274, *range(277, 282), 284, 317, *range(320, 326), *range(338, 348)}
FILE_TAGS |= {*range(512, 522), *range(529, 533), 34675}
KEPT = ("icc_profile", "exif")
MODES = ("L", "LA", "RGB", "RGBA", "I;16")
WRITTEN = {  # format: (modes it holds, how it is written)
    "PNG": ((*MODES, *DEEP_MODES.values()), {}),
    "TIFF": ((*MODES, *DEEP_MODES.values()), {}),  # uncompressed: Pillow cannot compress beside nested EXIF
    "WEBP": (MODES[:4], {"quality": 95}),
    "AVIF": (MODES[:4], {"quality": 90}),
    "HEIF": (MODES[:4], {"quality": 90}),
    "JPEG": (("L", "RGB"), {"quality": 95, "subsampling": 0}),
    "BMP": (("L", "RGB"), {}),
    "PPM": (("L", "RGB", "I;16"), {}),
}


def read_image(path: str | os.PathLike) -> Image.Image | DeepImage:
    """Read a still photograph, upright, as L, LA, RGB, RGBA or I;16 (16-bit grey), with its ICC profile and EXIF.

    PNG and TIFF of 16 bit per colour become a `DeepImage`. Palette, CMYK and Lab files become RGB (CMYK through its own
    profile when it has one). Everything that is not one whole still image raises a `ValueError` naming the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an image")
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    init_formats()
    if path.suffix.lower() in HEIC and "HEIF" not in Image.OPEN:
        raise ValueError(f"{path} is a HEIC file; pip install 'bd-diff[heic]' to read it")
    try:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
            return upright(file)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to open safely, {error}; --limit-pixels raises the limit") from None
    except Exception as error:  # Pillow's decoders raise anything on damaged files; each means the same to the user
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def upright(image: Image.Image) -> Image.Image | DeepImage:
    """A copy of any still PIL image as `read_image` gives them: turned by its EXIF, and in one of its modes.

    Raises `ValueError` for an animation and for pixels that are not 8 or 16 bit.
    """
    frames = getattr(image, "n_frames", 1)
    # Phones store a gain map or a second lens behind the photograph (MPO); the photograph comes first.
    if frames > 1 and image.format != "MPO":
        raise ValueError(f"it holds {frames} frames or pages; save the one you want as a PNG")
    deep = DeepImage(read_levels(image)) if is_deep(image) else None  # before loading turns it
    image.load()
    try:
        turned, exif = ImageOps.exif_transpose(image), _exif(image)
    except Exception:  # damaged EXIF raises anything, too, but every viewer still shows the picture
        warnings.warn(f"{getattr(image, 'filename', 'image')}: its EXIF is damaged and was left out", stacklevel=2)
        turned, exif = image.copy(), b""
    plain = deep or _plain_mode(turned)
    kept = {"icc_profile": _icc(turned), "exif": exif}
    plain.info = {name: value for name, value in kept.items() if value}
    return plain


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
        plain = ImageCms.profileToProfile(image, press, ImageCms.createProfile("sRGB"), outputMode="RGB")
    elif image.has_transparency_data:
        plain = image.convert("LA" if image.mode in ("L", "LA", "La", "1") else "RGBA")
    else:
        plain = image.convert("L" if image.mode in ("L", "1") else "RGB")
    return plain


def _exif(file: Image.Image) -> bytes:
    """What EXIF says of the photograph, without what it says of the file it was stored in."""
    exif = file.getexif()
    for tag in FILE_TAGS.intersection(exif):
        del exif[tag]
    return exif.tobytes() if exif else b""


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


def to_image(pixels: Tensor, like: Image.Image | DeepImage | None = None) -> Image.Image | DeepImage:
    """Colours `(3, H, W)` as an RGB image, or as one of the kind of `like`, with its alpha, ICC profile and EXIF.

    Values beyond [0, 1] are clipped; NaN and a size other than that of `like` are errors.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"an image is a tensor of shape (3, H, W), not {tuple(pixels.shape)}")
    pixels = pixels.detach().float().cpu()
    if not pixels.isfinite().all():
        raise ValueError("the image holds NaN or infinite values; check the model's weights, or use float32")
    height, width = pixels.shape[-2:]
    if like and like.size != (width, height):
        raise ValueError(f"the result is {width}x{height}, its photograph {like.width}x{like.height}")
    deep, mode = isinstance(like, DeepImage), like.mode if like else "RGB"
    grey = like.colours.shape[-1] == 1 if deep else mode in ("I;16", "L", "LA")
    levels = _levels(pixels.mean(0, keepdim=True) if grey else pixels, 65535 if "16" in mode else 255)
    if deep:
        return like.with_colours(levels)
    image = Image.fromarray(levels[..., 0] if grey else levels)
    if like:
        if mode in ("LA", "RGBA"):
            image.putalpha(like.getchannel("A"))
        image.info = {name: like.info[name] for name in KEPT if name in like.info}
    return image


def _levels(pixels: Tensor, highest: int) -> np.ndarray:
    """`(C, H, W)` in [0, 1] and beyond, as `(H, W, C)` of 8 or 16 bit."""
    levels = pixels.clamp(0, 1).mul(highest).round().movedim(0, -1).numpy()
    return levels.astype(np.uint8 if highest == 255 else np.uint16)


def save_image(image: Image.Image | DeepImage, path: str | os.PathLike, quality: int | None = None) -> None:
    """Write an image with its ICC profile and EXIF in the format of the path's ending, whole or not at all.

    quality: of JPEG, WebP, AVIF and HEIC, 1 to 100, instead of 95 (AVIF and HEIC 90).
    A format that cannot hold the image's mode (JPEG with alpha or 16 bit) is a `ValueError`; a full disk or a folder
    without permission an `OSError` naming the path.
    """
    path = Path(path)
    if not can_write(path):
        raise ValueError(f"{path} does not end in an image format that can be written ({', '.join(WRITTEN)})")
    kind = Image.registered_extensions()[path.suffix.lower()]
    modes, options = WRITTEN[kind]
    if image.mode not in modes:
        what = "16 bits per colour" if "16" in image.mode else "transparency"
        raise ValueError(f"{path}: {kind} cannot hold {what}; write a .png")
    if quality is not None and "quality" in options:
        options = options | {"quality": quality}
    kept = {name: image.info[name] for name in KEPT if name in image.info}
    with replacing(path) as part:
        if isinstance(image, DeepImage):
            return write_deep(image, part, kind)
        image.save(part, format=kind, **options, **kept)


def can_write(path: str | os.PathLike) -> bool:
    """Whether the path ends in the name of a format that `save_image` writes."""
    init_formats()
    return Image.registered_extensions().get(Path(path).suffix.lower()) in WRITTEN


@cache
def init_formats() -> None:
    """Tell Pillow of all formats, HEIC among them where its library is installed."""
    Image.init()
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):
            import_module("pillow_heif").register_heif_opener()


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` on success and removed on failure.

    Missing folders are made. An `OSError` is raised again in one sentence that names `path`.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def list_images(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Paths of the image files in a folder, in natural order (2 before 10); hidden files are left out.

    No image at all is a `ValueError` naming the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if recursive:
        found = [
            path
            for path in folder.glob("**/*")
            if path.suffix.lower() in EXTENSIONS
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    else:  # a hundred thousand files take a second or two so
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS) and entry.is_file()]
        found = [folder / name for name in names if not name.startswith(".")]
    if not found:
        deeper = "" if recursive else ", not counting its subfolders"
        raise ValueError(f"{folder} holds no images ({', '.join(EXTENSIONS)}){deeper}")
    return sorted(found, key=natural_order)


def listed_images(folder: str | os.PathLike, listed: str | os.PathLike) -> list[Path]:
    """Those images of a folder that the text file `listed` names, in its order; a name not there is a `ValueError`."""
    there = {path.name: path for path in list_images(folder)}
    names = Path(listed).read_text().split()
    if absent := [name for name in names if name not in there]:
        raise ValueError(f"{listed} lists {absent[0]}, which is not in {folder}")
    return [there[name] for name in names]


def natural_order(path: Path) -> list:
    """A sort key in which numbers inside names count as numbers."""
    return [int(piece) if piece.isdecimal() else piece.lower() for piece in re.split(r"(\d+)", str(path))]


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
