"""The page of the demo: its looks in Gradio, who may reach it, and what every visitor can read."""

from bd_diff.data.failures import in_one_line
from bd_diff.reading.reblur_map import FULL
from bd_diff.serving.demo import BUTTONS, KEPT_SECONDS, MOST_STEPS, PROMISE, SWEEP_SECONDS, TITLE, Demo
from bd_diff.serving.hosts import OwnHosts

HINTS = {"light": ("#4b5563", "#ffffff"), "dark": ("#d1d5db", "#27272a")}  # text and background, 4.5 to 1 or more
LEVELS = round(255 * FULL)
SCALE = f"""
<div role="img" aria-label="Scale from black, no difference, through red and yellow to white, a large one"
  style="height: 12px; border: 1px solid #888; background: linear-gradient(90deg, #000, #f00, #ff0, #fff)"></div>
<div style="display: flex; justify-content: space-between">
  <span>as photographed</span><span>{LEVELS} of 255 levels off, or more</span>
</div>
Where the result, blurred again, is not the photograph, something may be invented. Noise is left out.
"""
ALT_TEXTS = """() => {
    const name = () => document.querySelectorAll("#slider img, #moved-slider img").forEach((image, place) => {
        image.alt = place % 2 ? "after" : "before";
    });
    new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
}"""


def launch_settings(host: str, names: list[str], largest: int) -> dict:
    """What `launch` of the page needs so that it answers only who means it (`bd_diff.serving.hosts`), and its looks.

    names: further names that it is known by. largest: megabytes of an upload.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    guard = Middleware(OwnHosts, names=[host, *names])
    (light, _), (dark, _) = HINTS["light"], HINTS["dark"]
    theme = gr.themes.Default().set(
        block_info_text_color=light,
        block_info_text_color_dark=dark,
        body_text_color_subdued=light,
        body_text_color_subdued_dark=dark,
    )
    return {
        "server_name": host,
        "max_file_size": f"{largest}mb",
        "app_kwargs": {"middleware": [guard]},
        "theme": theme,
        "js": ALT_TEXTS,
    }


def build(demo: Demo, examples: list[str]):
    """The page, a `gradio.Blocks`; `examples` are photographs to try."""
    import gradio as gr

    def telling(make, *names):
        """`make` for the page: errors become a sentence on it, results the values of its fields `names`."""

        def run(*arguments):
            *given, visitor = arguments
            shown = tell_errors(make, *given, visitor=visitor)
            return [(shown.before, shown.after), *(getattr(shown, name) for name in names)]

        return run

    def tell_errors(make, *arguments, **settings):
        try:
            return make(*arguments, **settings)
        except Exception as error:  # whatever a photograph raises is told in one sentence
            raise gr.Error(in_one_line(error), print_exception=False) from None

    def photograph(label: str):
        return gr.File(label=label, type="filepath", height=120)

    def visitor_of(request: gr.Request) -> str:
        return request.session_hash or ""

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {TITLE}\n{PROMISE} One photograph at a time, up to {demo.most / 1e6:.3g} megapixels.")
        visitor = gr.State("")
        page.load(visitor_of, None, visitor)
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
        most = demo.restorer.pipeline.config.most_steps or MOST_STEPS
        several = {
            "minimum": 1,
            "maximum": max(most, 2),  # Gradio refuses a range of one value, even out of sight
            "value": 1,
            "step": 1,
            "label": "Steps",
            "visible": most > 1,
        }
        with gr.Tab("Deblur"), gr.Row():
            with gr.Column(scale=1):
                blurry = photograph("Photograph")
                seen = gr.Image(
                    label="Your photograph", alt_text="your photograph", interactive=False, height=200, buttons=[]
                )
                size = gr.Markdown(elem_id="size")
                strength = gr.Slider(0, 1, 1, label="Strength", info="0 gives the photograph back")
                steps = gr.Slider(info="1 is the most faithful", **several)
                fast = gr.Checkbox(False, label="Fast", info="leaves out the search for the kernel")
                with gr.Row():
                    start = gr.Button("Deblur", variant="primary")
                    stop = gr.Button("Cancel")
                if examples:
                    gr.Examples([[path] for path in examples], [blurry], label="To try")
            with gr.Column(scale=3):
                slider = gr.ImageSlider(
                    label="Left: before. Right: after.", interactive=False, elem_id="slider", buttons=BUTTONS
                )
                result = gr.File(label="Download the result, with metadata", elem_id="result")
                with gr.Row():
                    kernel = gr.Image(
                        label="The blur it saw",
                        alt_text="the kernel",
                        interactive=False,
                        buttons=BUTTONS,
                    )
                    with gr.Column():
                        where = gr.Image(
                            label="Where it may be invented",
                            alt_text="map of differences between the photograph and the result, blurred again",
                            interactive=False,
                            buttons=BUTTONS,
                        )
                        gr.HTML(SCALE)
            for given in (blurry, steps, fast):
                given.change(
                    lambda *arguments: tell_errors(demo.preview, *arguments),
                    [blurry, steps, fast],
                    [seen, size],
                    show_progress="hidden",
                )
            started = start.click(
                telling(demo.deblur, "result", "kernel", "where"),
                [blurry, strength, steps, fast, visitor],
                [slider, result, kernel, where],
                **one_at_a_time,
            )
            stop.click(demo.cancel, [visitor], None, cancels=[started], queue=False)
        with gr.Tab("Move blur"), gr.Row():
            with gr.Column(scale=1):
                sharp, like = photograph("Photograph"), photograph("Blur it like this one")
                more = gr.Slider(**several)
                with gr.Row():
                    move = gr.Button("Move blur", variant="primary")
                    halt = gr.Button("Cancel")
            with gr.Column(scale=3):
                both = gr.ImageSlider(
                    label="Left: before. Right: after.", interactive=False, elem_id="moved-slider", buttons=BUTTONS
                )
                moved = gr.File(label="Download the result, with metadata", elem_id="moved")
            moving = move.click(
                telling(demo.transfer, "result"), [sharp, like, more, visitor], [both, moved], **one_at_a_time
            )
            halt.click(demo.cancel, [visitor], None, cancels=[moving], queue=False)
    return page
