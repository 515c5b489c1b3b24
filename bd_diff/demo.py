"""A page to try BD-Diff on: before and after, the blur that was seen, and where the result may be invented."""

import io
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from bd_diff.commands.options import call_settings
from bd_diff.data.deep import DeepImage
from bd_diff.data.images import can_write, read_image, save_image, to_image
from bd_diff.data.inputs import part_of
from bd_diff.data.part import Part
from bd_diff.drawing import draw_kernel
from bd_diff.reblur_map import draw_map, reblur_map
from bd_diff.restore import PipelineRestorer

KEPT_SECONDS = 3600  # that results can be downloaded for
MOST_STEPS = 10
TITLE = "BD-Diff"
PROMISE = "Photographs go to the computer that runs this page and no further; it deletes them when it stops."
BUTTONS = ["fullscreen", "download"]  # and not Gradio's third, which would share a picture with the world
ERRORS = ValueError, OSError, torch.OutOfMemoryError  # that a visitor can cause; told in one sentence


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
    """The page without its looks. `folder` holds uploads and results; it is removed by `close`."""

    def __init__(self, restorer: PipelineRestorer):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("the page shows the kernels that a model sees; this one has no blur_decoder")
        self.restorer = restorer
        self.folder = Path(tempfile.mkdtemp(prefix="bd-diff-demo-"))

    def close(self) -> None:
        """Remove all uploads and results."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def deblur(
        self, path: str | None, strength: float = 1.0, steps: int = 1, fast: bool = False, seed: int = 0
    ) -> Shown:
        """Deblur the photograph at `path`. Raises `ValueError` for what is no photograph."""
        part = self.open(path, "a photograph")
        images = part.pixels[None]
        settings = {"strength": strength, "num_inference_steps": int(steps), "fast": fast}
        output = self.restorer.run(images, **call_settings(self.restorer, seed, **settings))
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
        settings = {"num_inference_steps": int(steps), "blur_image": blurry.pixels[None]}
        result = self.restorer(part.pixels[None], **call_settings(self.restorer, seed, **settings)).cpu()
        return self.show(path, part, result[0], "blurred")

    def open(self, path: str | None, what: str, deblur: bool = True) -> Part:
        """What a model gets of the photograph at `path`; errors name the file as the visitor knows it."""
        if not path:
            raise ValueError(f"give {what} first")
        try:
            return part_of(read_image(path), Path(path).name, deblur)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), Path(path).name)) from None

    def show(self, path: str, part: Part, result: Tensor, suffix: str, **pictures) -> Shown:
        """Write what is shown, and the result as a file of the photograph's kind with its metadata."""
        self.sweep()
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="result-"))
        source = Path(path)
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
        """Remove results that have been there for an hour."""
        for folder in self.folder.glob("result-*"):
            if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


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
            colours = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    seen = Image.new("RGB", image.size, "white")
    seen.paste(colours, mask=image.getchannel("A") if image.mode in ("LA", "RGBA") else None)
    return seen


def build(demo: Demo, examples: list[str]):
    """The page, a `gradio.Blocks`; `examples` are photographs to try."""
    import gradio as gr

    def telling(make, *names):
        """`make` for the page: errors become a sentence on it, results the values of its fields `names`."""

        def run(*arguments):
            try:
                shown = make(*arguments)
            except ERRORS as error:
                raise gr.Error(" ".join(str(error).split()), print_exception=False) from None
            return [(shown.before, shown.after), *(getattr(shown, name) for name in names)]

        return run

    def photograph(label: str):
        return gr.File(label=label, type="filepath", height=120)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {TITLE}\n{PROMISE}")
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
            start.click(telling(demo.deblur, *fields), [blurry, strength, steps, fast], [slider, kernel, where, result])
        with gr.Tab("Move blur"), gr.Row():
            with gr.Column(scale=1):
                sharp, like = photograph("Photograph"), photograph("Blur it like this one")
                more = gr.Slider(1, MOST_STEPS, 1, step=1, label="Steps")
                move = gr.Button("Move blur", variant="primary")
            with gr.Column(scale=3):
                both = gr.ImageSlider(label="Before and after", interactive=False, buttons=BUTTONS)
                moved = gr.File(label="Result, with metadata", elem_id="moved")
            move.click(telling(demo.transfer, "result"), [sharp, like, more], [both, moved])
    return page
