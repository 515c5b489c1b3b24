"""A page to try BD-Diff on: before and after, the blur that was seen, and where the result may be invented."""

import io
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image, ImageCms
from torch import Tensor

from bd_diff.data.bombs import check_pixels
from bd_diff.data.claims import LOCK, claim
from bd_diff.data.deep import DeepImage
from bd_diff.data.drawing import draw_kernel
from bd_diff.data.failures import in_one_line
from bd_diff.data.images import can_write, read_image, save_image, to_image
from bd_diff.data.inputs import hidden_in, part_of
from bd_diff.data.part import Part
from bd_diff.reading.reblur_map import draw_map, reblur_map
from bd_diff.restore import PipelineRestorer, call_settings
from bd_diff.serving.hosts import OwnHosts
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
BUTTONS = ["fullscreen", "download"]  # and not Gradio's third, which would share a picture with the world


@dataclass(frozen=True)
class Shown:
    """What the page shows of one photograph, as files: two pictures of one size, and the result to download.

    `kernel` and `where` (the re-blur map) are only there for deblurring.
    """

    before: str
    after: str
    result: str
    kernel: str | None = None
    where: str | None = None


class Demo:
    """The page without its looks. `folder` holds uploads and results, for `KEPT_SECONDS` each, until `close`.

    most: pixels that a photograph may have; by default what fits into memory, `MOST_PIXELS` if more would.
    """

    def __init__(self, restorer: PipelineRestorer, most: int | None = None):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("the page shows the kernels that a model sees; this one has no blur_decoder")
        self.restorer, self.most = restorer, most or min(MOST_PIXELS, most_pixels(2))
        remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER))
        claim(self.folder)
        self.closed = threading.Event()
        threading.Thread(target=self.sweep_again, daemon=True).start()

    def close(self) -> None:
        """Remove all uploads and results."""
        self.closed.set()
        while self.folder.exists():  # a photograph that is being deblurred may write once more
            shutil.rmtree(self.folder, ignore_errors=True)

    def warm_up(self, side: int = 512) -> float:
        """Seconds that a photograph of so many pixels a side takes here."""
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        started = time.perf_counter()
        self.restorer.run(image, **call_settings(self.restorer, 0))
        return time.perf_counter() - started

    def deblur(
        self, path: str | None, strength: float = 1.0, steps: int = 1, fast: bool = False, seed: int = 0
    ) -> Shown:
        """Deblur the photograph at `path`. Raises `ValueError` for what is no photograph."""
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
        output = self.restorer.run(images, **settings)
        result, kernel = output.images.cpu(), output.kernels.cpu()
        return self.show(
            path,
            part,
            result[0],
            "sharp",
            kernel=draw_kernel(kernel[0]),
            where=draw_map(part.whole_map(reblur_map(images, result, kernel)[0])),
        )

    def transfer(self, path: str | None, reference: str | None, steps: int = 1, seed: int = 0) -> Shown:
        """Blur the photograph at `path` as the one at `reference` is blurred."""
        part = self.open(path, "a photograph", deblur=False)
        blurry = self.open(reference, "a photograph with the blur", deblur=False)
        settings = call_settings(self.restorer, seed, num_inference_steps=int(steps), blur_image=blurry.pixels[None])
        result = self.restorer(part.pixels[None], **settings).cpu()
        return self.show(path, part, result[0], "blurred")

    def open(self, path: str | None, what: str, deblur: bool = True) -> Part:
        """What a model gets of the photograph at `path`; errors name the file as the visitor knows it."""
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
        """Write what is shown, and the result as a file of the photograph's kind with its metadata."""
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
        """Remove uploads and results that have been there for `KEPT_SECONDS`, and what the page copied of them."""
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # it was removed meanwhile
                if path.name != LOCK and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def sweep_again(self) -> None:
        """Sweep until the end."""
        while not self.closed.wait(SWEEP_SECONDS):
            with suppress(OSError):  # the next time, then
                self.sweep()


def as_seen(photograph: Image.Image | DeepImage) -> Image.Image:
    """A photograph as its viewers show it: its profile's colours as 8-bit sRGB, over white where it is transparent."""
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
    """Remove what pages that were killed could not: folders that no process holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):  # of another page, or of another user
            shutil.rmtree(folder)


def launch_settings(host: str, names: list[str], largest: int) -> dict:
    """What `launch` of the page needs so that it answers only who means it (`bd_diff.serving.hosts`).

    names: further names that it is known by. largest: megabytes of an upload.
    """
    from starlette.middleware import Middleware

    guard = Middleware(OwnHosts, names=[host, *names])
    return {"server_name": host, "max_file_size": f"{largest}mb", "app_kwargs": {"middleware": [guard]}}


def build(demo: Demo, examples: list[str], seconds: float | None = None):
    """The page, a `gradio.Blocks`; `examples` are photographs to try, `seconds` what one of 512 pixels a side takes."""
    import gradio as gr

    def telling(make, *names):
        """`make` for the page: errors become a sentence on it, results the values of its fields `names`."""

        def run(*arguments):
            try:
                shown = make(*arguments)
            except Exception as error:  # whatever a photograph raises is told in one sentence
                raise gr.Error(in_one_line(error), print_exception=False) from None
            return [(shown.before, shown.after), *(getattr(shown, name) for name in names)]

        return run

    def photograph(label: str):
        return gr.File(label=label, type="filepath", height=120)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)) as page:
        wait = f" One photograph at a time, {seconds:.0f} seconds for 512 x 512 pixels." if seconds else ""
        gr.Markdown(f"# {TITLE}\n{PROMISE}{wait} Up to {demo.most / 1e6:.3g} megapixels.")
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}  # so the time told in the queue is right
        with gr.Tab("Deblur"), gr.Row():
            with gr.Column(scale=1):
                blurry = photograph("Photograph")
                strength = gr.Slider(0, 1, 1, label="Strength", info="0 gives the photograph back")
                steps = gr.Slider(1, MOST_STEPS, 1, step=1, label="Steps", info="1 is the most faithful")
                fast = gr.Checkbox(False, label="Fast", info="leaves out the search for the kernel")
                start = gr.Button("Deblur", variant="primary")
                if examples:
                    gr.Examples([[path] for path in examples], [blurry], label="To try")
            with gr.Column(scale=3):
                slider = gr.ImageSlider(label="Before and after", interactive=False, elem_id="slider", buttons=BUTTONS)
                with gr.Row():
                    kernel = gr.Image(label="The blur it saw", interactive=False, buttons=BUTTONS)
                    where = gr.Image(label="Bright where it may be invented", interactive=False, buttons=BUTTONS)
                result = gr.File(label="Result, with metadata", elem_id="result")
            fields = ("kernel", "where", "result")
            start.click(
                telling(demo.deblur, *fields),
                [blurry, strength, steps, fast],
                [slider, kernel, where, result],
                **one_at_a_time,
            )
        with gr.Tab("Move blur"), gr.Row():
            with gr.Column(scale=1):
                sharp, like = photograph("Photograph"), photograph("Blur it like this one")
                more = gr.Slider(1, MOST_STEPS, 1, step=1, label="Steps")
                move = gr.Button("Move blur", variant="primary")
            with gr.Column(scale=3):
                both = gr.ImageSlider(label="Before and after", interactive=False, buttons=BUTTONS)
                moved = gr.File(label="Result, with metadata", elem_id="moved")
            move.click(telling(demo.transfer, "result"), [sharp, like, more], [both, moved], **one_at_a_time)
    return page
