"""Photographs with 16 bits per colour, which Pillow cannot hold: PNG and TIFF in and out, with ICC profile and EXIF."""

import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin, TiffImagePlugin

MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # channels: what Pillow might call it
IFDS = (0x8769, 0x8825)  # EXIF tags that are directories of their own: the exposure, GPS
PNG_HEAD = 33  # bytes of signature and IHDR, after which a colour profile may stand


@dataclass
class DeepImage:
    """An upright photograph of 16 bits per colour: `levels` `(H, W, C)` uint16, C grey and alpha, RGB, or RGBA.

    `mode`, `size`, `width`, `height` and `info` (ICC profile and EXIF) are as of a PIL image.
    """

    levels: np.ndarray
    info: dict[str, bytes] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        return MODES[self.levels.shape[-1]]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return self.levels.shape[1]

    @property
    def height(self) -> int:
        return self.levels.shape[0]

    @property
    def colours(self) -> np.ndarray:
        """Levels without alpha `(H, W, 1 or 3)`."""
        return self.levels[..., : (self.levels.shape[-1] - 1) | 1]

    def with_colours(self, colours: np.ndarray) -> "DeepImage":
        """Other colours `(H, W, 1 or 3)` with this image's alpha and metadata."""
        levels = np.concatenate([colours, self.levels[..., colours.shape[-1] :]], axis=-1)
        return DeepImage(np.ascontiguousarray(levels), dict(self.info))

    def to_pil(self) -> Image.Image:
        """The same at 8 bit, which Pillow can hold."""
        image = Image.fromarray(((self.levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
        image.info = {name: value for name, value in self.info.items()}
        return image

    def convert(self, mode: str) -> Image.Image:
        """The same as a PIL image of another mode."""
        return self.to_pil().convert(mode)


def is_deep(file: Any) -> bool:
    """Whether a file opened by its path and not yet loaded holds 16 bits per colour that Pillow would read at 8.

    CMYK and premultiplied alpha are not counted: their colours have to be converted, which Pillow does at 8 bit.
    """
    if file.mode not in ("RGB", "RGBA") or not getattr(file, "tile", None) or not getattr(file, "filename", None):
        return False
    stored = file.tile[0].args
    colours, _, depth = (stored if isinstance(stored, str) else stored[0]).partition(";")
    if file.format == "TIFF":
        return set(file.tag_v2[TiffImagePlugin.BITSPERSAMPLE]) == {16} and colours != "RGBa"
    return file.format == "PNG" and depth.startswith("16")


def read_levels(file: Any) -> np.ndarray:
    """The levels `(H, W, C)` uint16 of a file for which `is_deep`, not yet loaded, turned as its EXIF says."""
    path = Path(file.filename)
    if file.format == "PNG":
        levels = imagecodecs.png_decode(path.read_bytes())
    else:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            levels = page.asarray()
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                levels = np.moveaxis(levels, 0, -1)
        levels = levels[..., : len(file.getbands())]  # without samples that nobody has said the meaning of
    turn = 1
    with suppress(Exception):  # damaged EXIF raises anything
        turn = file.getexif().get(0x0112, 1)
    if turn >= 5:
        levels = levels.swapaxes(0, 1)
    rows, columns = (-1 if turn in backwards else 1 for backwards in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(levels[::rows, ::columns])


def write_deep(image: DeepImage, path: Path, kind: str) -> None:
    """Write as `kind`, PNG or TIFF (not compressed, as every TIFF of the project)."""
    with open(path, "wb") as file:
        (write_png if kind == "PNG" else write_tiff)(image, file)


def write_png(image: DeepImage, file) -> None:
    """A PNG with its profile and EXIF in chunks of their own (PNG 3, sections 11.3.2.3 and 11.3.4.5)."""
    encoded = imagecodecs.png_encode(image.levels)
    file.write(encoded[:PNG_HEAD])
    if profile := image.info.get("icc_profile"):
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if exif := image.info.get("exif"):
        PngImagePlugin.putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    file.write(encoded[PNG_HEAD:])


def write_tiff(image: DeepImage, file) -> None:
    """A TIFF of one strip, its directory by Pillow, which can nest EXIF as `tifffile` cannot."""
    channels = image.levels.shape[-1]
    content = image.levels.astype("<u2").tobytes()
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    for tag, value in exif.items():
        tags[tag] = dict(exif.get_ifd(tag)) if tag in IFDS else value
    tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH] = image.size
    tags[TiffImagePlugin.BITSPERSAMPLE] = (16,) * channels
    tags[TiffImagePlugin.COMPRESSION] = 1
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if channels == 2 else 2  # black is zero; RGB
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.ROWSPERSTRIP] = image.height
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = len(content)
    tags[TiffImagePlugin.STRIPOFFSETS] = 0  # from the end of the directory, where `save` puts it
    if channels != 3:
        tags[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha that the colours are not multiplied by
    if profile := image.info.get("icc_profile"):
        tags[TiffImagePlugin.ICCPROFILE] = profile
    tags.save(file)
    file.write(content)
