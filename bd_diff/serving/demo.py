"""A page to try BD-Diff on: before and after, the blur that was seen, and where the result may be invented."""

import io
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from bd_diff.data.bombs import check_pixels
from bd_diff.data.claims import LOCK, claim, take
from bd_diff.data.deep import DeepImage
from bd_diff.data.drawing import draw_kernel
from bd_diff.data.images import can_write, read_image, save_image, to_image
from bd_diff.data.inputs import hidden_in, part_of
from bd_diff.data.noise import noise_level
from bd_diff.data.part import Part
from bd_diff.data.pixels import luminance
from bd_diff.reading.reblur_map import draw_map, reblur_map
from bd_diff.restore import PipelineRestorer, call_settings
from bd_diff.serving.memory import most_pixels

KEPT_SECONDS = 600  # that uploads and results are there for
SWEEP_SECONDS = 20
MOST_PIXELS = (
    50_000_000  # of a photograph, if memory allows: half a minute on a CPU is the most that others should wait
)
MOST_WAITING = 8
MOST_STEPS = 10
FOLDER = "bd-diff-demo-"
TITLE = "BD-Diff"
PROMISE = (
    "Photographs go to the computer that runs this page and no further; it deletes them and their results after "
    f"{KEPT_SECONDS // 60} minutes, and when it stops."
)
PREVIEW = 512  # pixels a side
BUTTONS = ["fullscreen", "download"]  # and not Gradio's third, which would share a picture with the world


@dataclass(frozen=True)
class Shown:
    """What the page shows of one photograph, as files: two pictures of one size, and the result to download.

    `kernel` and `where` (the re-blur map) are None after a blur transfer.
    """

    before: str
    after: str
    result: str
    kernel: str | None = None
    where: str | None = None


class Demo:
    """What the buttons of the page `bd-diff demo` do; `bd_diff.serving.page` lays them out.

    `folder` holds uploads and results, each for `KEPT_SECONDS`, until `close`. most: the largest number of pixels of a
    photograph; by default what fits into memory, but no more than `MOST_PIXELS`. ask: makes a call of the model, in the
    thread that computes (`Desk.ask`); by default it is the one that the button is pressed in.
    """

    def __init__(
        self, restorer: PipelineRestorer, most: int | None = None, ask: Callable[[Callable], Any] = lambda call: call()
    ):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("the page shows the kernels that a model sees; this one has no blur_decoder")
        self.restorer, self.most, self.ask = restorer, most or min(MOST_PIXELS, most_pixels(2)), ask
        remove_abandoned()
        self.search_seconds = self.megapixel_seconds = 0.0
        self.visitor, self.cancelled = "", threading.Event()
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER))
        claim(self.folder)
        self.closed = threading.Event()
        threading.Thread(target=self.sweep_again, daemon=True).start()

    def close(self) -> None:
        """Remove all uploads and results."""
        self.closed.set()
        while self.folder.exists():  # a photograph that is being deblurred may write once more
            shutil.rmtree(self.folder, ignore_errors=True)

    def warm_up(self, side: int = 512) -> None:
        """Measure on `side` x `side` pixels what the kernel search takes here, and what each megapixel takes."""
        image, seconds = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)), []
        for fast in (True, True, False):  # the first one is slower than all that follow
            started = time.perf_counter()
            self.restorer.run(image, **call_settings(self.restorer, 0, fast=fast))
            seconds.append(time.perf_counter() - started)
        self.megapixel_seconds = seconds[1] / (side**2 / 1e6)
        self.search_seconds = max(0.0, seconds[2] - seconds[1])

    def seconds(self, pixels: int, steps: int = 1, fast: bool = False) -> float:
        """About how long a photograph of so many pixels takes; measured by `warm_up`."""
        return (0.0 if fast else self.search_seconds) + pixels / 1e6 * self.megapixel_seconds * steps

    def preview(self, path: str | None, steps: int = 1, fast: bool = False) -> tuple[str | None, str]:
        """The photograph as a file that every browser shows, and its size and the time that it takes, in words."""
        if not path:
            return None, ""
        photograph = self.open(path, "a photograph").photograph
        width, height = photograph.size
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="preview-"))
        seen = as_seen(photograph)
        seen.thumbnail((PREVIEW, PREVIEW))
        save_image(seen, folder / "preview.png")
        wait = self.seconds(width * height, int(steps), fast)
        told = f", about {in_words(wait)} here" if self.megapixel_seconds else ""
        return str(folder / "preview.png"), f"{width} x {height} pixels{told}"

    def cancel(self, visitor: str) -> None:
        """End what is being made for this visitor, at the next tile."""
        if visitor == self.visitor:
            self.cancelled.set()

    def run(self, images: Tensor, visitor: str, **settings):
        """The model's output for a visitor, who may cancel it. Raises `ValueError` where that happened."""

        def stop_if_cancelled(pipeline, step, time, values: dict) -> dict:
            if self.cancelled.is_set():
                raise ValueError("cancelled")
            return values

        self.cancelled.clear()
        self.visitor = visitor
        try:
            return self.ask(partial(self.restorer.run, images, callback_on_step_end=stop_if_cancelled, **settings))
        finally:
            self.visitor = ""

    def deblur(
        self,
        path: str | None,
        strength: float = 1.0,
        steps: int = 1,
        fast: bool = False,
        visitor: str = "",
        seed: int = 0,
    ) -> Shown:
        """Deblur the photograph at `path`. Raises `ValueError` if it is not a photograph."""
        part = self.open(path, "a photograph")
        images = part.pixels[None]
        settings = call_settings(
            self.restorer,
            seed,
            strength=strength,
            num_inference_steps=int(steps),
            fast=fast,
            hidden=hidden_in([part]),
        )
        output = self.run(images, visitor, **settings)
        result, kernel = output.images.cpu(), output.kernels.cpu()
        return self.show(
            path,
            part,
            result[0],
            "sharp",
            kernel=draw_kernel(kernel[0]),
            where=draw_map(part.whole_map(subtract_noise(reblur_map(images, result, kernel), images)[0])),
        )

    def transfer(
        self, path: str | None, reference: str | None, steps: int = 1, visitor: str = "", seed: int = 0
    ) -> Shown:
        """Blur the photograph at `path` as the one at `reference` is blurred."""
        part = self.open(path, "a photograph", deblur=False)
        blurry = self.open(reference, "a photograph with the blur", deblur=False)
        settings = call_settings(self.restorer, seed, num_inference_steps=int(steps), blur_image=blurry.pixels[None])
        result = self.run(part.pixels[None], visitor, **settings).images.cpu()
        return self.show(path, part, result[0], "blurred")

    def open(self, path: str | None, what: str, deblur: bool = True) -> Part:
        """The `Part` of the photograph at `path` that a model gets; errors name the file as the visitor knows it."""
        if not path:
            raise ValueError(f"give {what} first")
        if not Path(path).exists():
            raise ValueError(f"{Path(path).name} is deleted after {KEPT_SECONDS // 60} minutes; give it once more")
        try:
            check_pixels(Path(path), self.most)
            return part_of(read_image(path), Path(path).name, deblur)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), Path(path).name)) from None

    def show(self, path: str | None, part: Part, result: Tensor, suffix: str, **pictures) -> Shown:
        """Write the pictures that are shown, and the result as a file of the photograph's format with its metadata."""
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="result-"))
        source = Path(str(path))
        file = folder / f"{source.stem}-{suffix}{source.suffix if can_write(source) else '.png'}"
        restored = to_image(part.put_back(result), like=part.photograph)
        save_image(restored, file)
        pictures |= {"before": as_seen(part.photograph), "after": as_seen(restored)}
        shown = {}
        for name, picture in pictures.items():
            shown[name] = str(folder / f"{name}.png")
            save_image(picture, shown[name])
        return Shown(result=str(file), **shown)

    def sweep(self) -> None:
        """Remove uploads and results that are older than `KEPT_SECONDS`, and the copies that the page made of them."""
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # it was removed meanwhile
                if path.name != LOCK and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def sweep_again(self) -> None:
        """Sweep every `SWEEP_SECONDS` until the page is closed."""
        while not self.closed.wait(SWEEP_SECONDS):
            with suppress(OSError):  # the next time, then
                self.sweep()


def subtract_noise(maps: Tensor, photographs: Tensor) -> Tensor:
    """Re-blur maps `(B, 1, H, W)` with the noise of the photographs `(B, 3, H, W)` in [0, 1] subtracted in variance.

    A result that is free of noise differs from its photograph by the noise everywhere, which is no invented detail.
    """
    noise = noise_level(luminance(photographs))[:, None, None, None]
    return (maps.square() - noise.square()).clamp_min(0).sqrt()


def in_words(seconds: float) -> str:
    """A time for people: whole seconds, or minutes."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole > 1)}"
    return f"{round(seconds / 60)} minutes"


def as_seen(photograph: Image.Image | DeepImage) -> Image.Image:
    """A photograph as viewers show it: its profile's colours as 8-bit sRGB, transparent parts over white."""
    if isinstance(photograph, DeepImage):
        image = photograph.to_pil()
    elif photograph.mode == "I;16":
        image = Image.fromarray((np.asarray(photograph) >> 8).astype(np.uint8))
    else:
        image = photograph
    colours = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    if profile := photograph.info.get("icc_profile"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if (source.profile.xcolor_space.strip() == "GRAY") == (colours.mode == "L"):
            srgb = ImageCms.createProfile("sRGB")
            colours = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB") or colours
    seen = Image.new("RGB", image.size, "white")
    seen.paste(colours, mask=image.getchannel("A") if image.mode in ("LA", "RGBA") else None)
    return seen


def remove_abandoned() -> None:
    """Remove the folders that killed pages left behind: those that no process holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):  # of another user
            if let_go := take(folder):
                shutil.rmtree(folder)
                let_go()
