"""`bd-diff eval` and `bd-diff compare`: figures under a named protocol, and figures side by side."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import (
    ColourFix,
    ColourStrength,
    Device,
    Dtype,
    Fast,
    KernelWindows,
    Overwrite,
    Seed,
    Steps,
    Strength,
    colour_settings,
    find_device,
    find_dtype,
)

EXPLAIN = "A model (folder or hub id), a folder of results, or input, wiener or richardson-lucy."


def evaluate(
    entry: Annotated[str, typer.Argument(help=EXPLAIN)],
    data: Annotated[
        str,
        typer.Option(help="A folder or shards of pairs, a hub data set, or sharp photographs (blur-families)."),
    ],
    protocol: Annotated[
        str, typer.Option(help="rgb, blur-families[-noise|-jpeg|-light|-highlights], gopro-rgb, hide, ...")
    ] = "rgb",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for card.json, images.csv, report.html, report.png.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test, where the data has them.")] = "test",
    layout: Annotated[
        str | None, typer.Option(help="Take the folder as this layout instead of recognising it.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="blur-families: a text file that lists the photographs to use.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images (blur-families: photographs).")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Further metrics: psnr_registered, ms_ssim, lpips, dists, niqe, ...")
    ] = None,
    fid: Annotated[bool, typer.Option("--fid", help="FID of all results together.")] = False,
    kernel: Annotated[
        Path | None, typer.Option(help="The kernel: a file for wiener, richardson-lucy and BD-Diff (see deblur).")
    ] = None,
    true_kernel: Annotated[
        bool, typer.Option("--true-kernel", help="Give BD-Diff the true kernel, where the data knows it.")
    ] = False,
    kernel_from: Annotated[
        str | None, typer.Option(help="A BD-Diff model that estimates the kernel for wiener and richardson-lucy.")
    ] = None,
    steps: Steps = None,
    strength: Strength = None,
    fast: Fast = False,
    kernel_windows: KernelWindows = None,
    colour_fix: ColourFix = None,
    colour_strength: ColourStrength = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Name unreadable images and go on.")] = False,
    save_images: Annotated[bool, typer.Option("--save-images", help="Write the results to OUT/images, too.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score a model, results or a baseline: a table here, and with --out a result card and a report."""
    if out is not None and (out / "card.json").exists() and not overwrite:
        raise ValueError(f"{out} already holds a result card; pass --overwrite or another --out")
    if save_images and out is None:
        raise ValueError("--save-images needs --out, the folder to write to")
    if names is not None and not protocol.startswith("blur-families"):
        raise ValueError("--names goes with --protocol blur-families only; use --split, --layout or --limit")

    from bd_diff.data.folders import open_data
    from bd_diff.data.images import save_image, to_image
    from bd_diff.data.processes import all_processes
    from bd_diff.data.progress import progress
    from bd_diff.evaluation import evaluate as evaluation
    from bd_diff.evaluation.card_tables import result_table
    from bd_diff.evaluation.methods import open_method
    from bd_diff.evaluation.metrics import FID, check_metrics
    from bd_diff.evaluation.protocols import find_protocol
    from bd_diff.evaluation.report import write_report
    from bd_diff.evaluation.result_card import Data, make_card, write_card

    rules, extra = find_protocol(protocol), tuple(dict.fromkeys(("gmsd", *(metric or []))))
    check_metrics(extra)
    state = all_processes()
    method = open_method(
        entry,
        kernel,
        seed,
        kernel_from,
        true_kernel,
        find_device(device),
        find_dtype(dtype),
        num_inference_steps=steps,
        strength=strength,
        fast=fast,
        kernel_windows=kernel_windows,
        colours=colour_settings(colour_fix, colour_strength) or None,
    )
    start: Callable[[], Iterator[evaluation.Case]]
    if protocol in evaluation.TABLE_CAMERAS:
        source = Data(Path(data).name, "photographs", "all", names.name if names else None, limit)
        camera = evaluation.TABLE_CAMERAS[protocol]
        start = partial(evaluation.family_cases, data, names, seed, limit=limit, camera=camera)
    else:
        opened = open_data(data, split, layout)
        source = Data(
            str(opened.root) if opened.layout == "hub" else Path(data).name, opened.layout, split, None, limit
        )
        start = lambda: islice(evaluation.paired_cases(opened), limit)  # noqa: E731
    total = None if source.layout == "hub" else sum(1 for _ in start())  # counting a hub data set would download it

    def keep(pair, result) -> None:
        assert out is not None  # --save-images needs it
        save_image(to_image(result), out / "images" / f"{pair.name}.png")

    distance = FID() if fid else None
    cases = progress(start(), total, silent=not state.is_main_process)
    rows, bad = evaluation.evaluate(method, cases, rules, extra, skip_bad, distance, keep if save_images else None)
    figures = {"fid": distance.compute()} if distance else {}
    if not state.is_main_process:
        return
    card = make_card(method, protocol, source, rows, bad, seed, **figures)
    lines = [f"skipped: {reason}" for reason in bad] + [result_table(card)]
    lines += [f"{name.upper()} {value:.3f}" for name, value in figures.items()]
    try:
        if out is not None:
            write_card(card, rows, out)
            write_report(card, rows, method, lambda index: next(islice(start(), index, None))[1](), out)
            lines.append(f"card.json, images.csv, report.html and report.png are in {out}")
    finally:  # figures are written where nobody reads the output, and printed where they cannot be written
        print("\n".join(lines))


def compare(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD", help="Result cards, or the folders they are in.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table to this Markdown file, too.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write it to this HTML page, too.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if protocols or images differ.")] = False,
) -> None:
    """Several result cards side by side, as a Markdown table."""
    from bd_diff.data.writing import replacing
    from bd_diff.evaluation.card_tables import compare as compare_cards
    from bd_diff.evaluation.card_tables import compare_page, read_card

    read = [read_card(card) for card in cards]
    table = compare_cards(read, anyway)
    for path, text in ((out, table + "\n"), (page, compare_page(read, anyway))):
        if path is not None:
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8")
    print(table)
