"""The report of an evaluation: one self-contained HTML file, and one PNG."""

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from bd_diff.data.drawing import contact_sheet
from bd_diff.data.folders import Sample
from bd_diff.data.images import save_image, to_image
from bd_diff.data.pairs import as_pair
from bd_diff.data.writing import replacing
from bd_diff.evaluation.card_tables import figure, gain, gain_or_psnr, page_head
from bd_diff.evaluation.evaluate import by_gain
from bd_diff.evaluation.methods import Method
from bd_diff.evaluation.metrics import IDENTICAL, METRICS
from bd_diff.evaluation.protocols import PROTOCOLS

LARGEST_GROUPS = 6  # more groups than this are shown as one
CROP = 320  # pixels a side that are shown of larger images
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8f5db7", "#8a6508", "#555555")  # all 4.5 to 1 on white, or more

Pick = list[tuple[str, Image.Image]]


def write_report(
    result_card: dict, rows: list[dict], method: Method, read: Callable[[int], Sample], folder: Path
) -> None:
    """Write `report.html` and `report.png`. `read(index)` reads a case; the cases that are shown are restored again."""
    picks = [pick(title, row, method, read) for title, row in chosen(rows)]
    save_image(contact_sheet(picks, height=256), folder / "report.png")
    with replacing(folder / "report.html") as part:
        part.write_text(page(result_card, rows, picks), encoding="utf-8")


def chosen(rows: list[dict]) -> list[tuple[str, dict]]:
    """The worst, the median and the best image by gain, of each group or, if there are many groups, of all images."""
    shown = []
    for name, members in grouped(rows).items():
        members = sorted(members, key=by_gain)
        # Of one or two images none is shown twice: a later label replaces an earlier one.
        seen = {len(members) // 2: "median", len(members) - 1: "best", 0: "worst"}
        shown += [(f"{name}, {seen[place]}", members[place]) for place in sorted(seen)]
    return shown


def grouped(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows by group, or all of them together if there are many groups."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return groups if len(groups) <= LARGEST_GROUPS else {"all": rows}


def pick(title: str, row: dict, method: Method, read: Callable[[int], Sample]) -> Pick:
    """The images before and after and the truth of one row, with captions."""
    pair = as_pair(read(row["index"]))
    result = method.restore(pair).cpu()
    captions = (f"{title}: {row['psnr_input']:.2f} dB", f"{method.name}: {row['psnr']:.2f} dB", row["name"])
    return [
        (caption, middle(to_image(image)))
        for caption, image in zip(captions, (pair.blurry, result, pair.sharp), strict=True)
    ]


def middle(image: Image.Image) -> Image.Image:
    """The centre of an image, at most `CROP` pixels a side."""
    width, height = min(image.width, CROP), min(image.height, CROP)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def page(result_card: dict, rows: list[dict], picks: list[Pick]) -> str:
    """The report as one HTML page that holds its images and curves."""
    name, data = html.escape(result_card["entry"]["name"]), result_card["data"]
    seconds = result_card["seconds"]
    rules = html.escape(PROTOCOLS[result_card["protocol"]].description)
    facts = {
        "Data": f"{data['source']} ({data['layout']}, split {data['split']}), {data['images']} images",
        "Fingerprint of the images": data["fingerprint"],
        "Weights (SHA-256)": result_card["entry"]["weights_sha256"] or "none",
        "Settings": ", ".join(f"{key} {value}" for key, value in result_card["entry"]["settings"].items()) or "none",
        "Time and memory": f"{seconds:.1f} s in all, {seconds / data['images']:.2f} s an image, "
        f"{result_card['peak_memory_mib']} MiB, {result_card['device']}",
        "Versions": ", ".join(f"{key} {value}" for key, value in result_card["versions"].items()),
        **{f"{key.upper()} of the set": f"{value:.3f}" for key, value in result_card.get("set", {}).items()},
    }
    described = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items())
    shown = "".join("<div>" + "".join(figure_of(*captioned) for captioned in row) + "</div>" for row in picks)
    skipped = "".join(f"<li>{html.escape(reason)}</li>" for reason in data["skipped"])
    return (
        f"{page_head(name)}<body><h1>{name}</h1><p>Protocol <b>{result_card['protocol']}</b>: {rules}.</p>"
        f"{table(result_card)}<h2>Gain of every image</h2><div class=wide>{curves(rows)}</div>"
        f"<h2>Worst, median and best</h2><p class=note>Before, after, truth; at most the middle {CROP} pixels.</p>"
        + shown
        + (f"<h2>Skipped</h2><ul>{skipped}</ul>" if skipped else "")
        + f"<h2>How this was made</h2><dl>{described}</dl></body></html>\n"
    )


def table(result_card: dict) -> str:
    """The results as an HTML table, one row per group."""
    columns = [name for name in METRICS if name in next(iter(result_card["results"].values()))]
    titles = "".join(
        f"<th scope=col>{html.escape(title)}</th>" for title in ("group", "images", "gain dB", *columns, "worst image")
    )
    body = ""
    for group, result in result_card["results"].items():
        worst = f"{gain_or_psnr(result, result['worst'])} ({result['worst']['name']})"
        cells = [group, str(result["count"]), gain(result), *(figure(c, result[c]) for c in columns), worst]
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def curves(rows: list[dict], width: int = 960, height: int = 280) -> str:
    """The sorted gains as an SVG plot, one curve per group; images whose input was already sharp are left out."""
    changed = [row for row in rows if row["psnr_input"] < IDENTICAL]
    groups = {name: [row["gain"] for row in members] for name, members in grouped(changed).items()}
    if not groups:
        return "<p class=note>Every input was already sharp.</p>"
    low = min(0.0, *(min(gains) for gains in groups.values()))
    high = max(0.0, *(max(gains) for gains in groups.values()))
    span = max(high - low, 1e-6)

    def down(gain: float) -> float:
        return 32 + (height - 47) * (high - gain) / span

    drawn = [
        '<text x="0" y="12" font-size="13">gain in dB PSNR</text>',
        f'<text x="{width}" y="{height + 14}" font-size="13" text-anchor="end">images, from worst to best</text>',
    ]
    drawn += [f'<line x1="50" x2="{width}" y1="{down(0):.1f}" y2="{down(0):.1f}" stroke="#999"/>']
    for value in {low, 0.0, high}:
        drawn.append(f'<text x="0" y="{down(value) + 5:.1f}" font-size="13">{value:+.1f}</text>')
    for order, (name, gains) in enumerate(groups.items()):
        colour, last = COLOURS[order % len(COLOURS)], max(len(gains) - 1, 1)
        points = [(60 + (width - 70) * place / last, down(gain)) for place, gain in enumerate(sorted(gains))]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        drawn.append(f'<text x="{70 + 150 * order}" y="{height + 14}" fill="{colour}">{html.escape(name)}</text>')
    described = f"Gain in dB of {len(changed)} images in order, from {low:+.1f} to {high:+.1f}: {', '.join(groups)}"
    return (
        f'<svg viewBox="0 0 {width} {height + 24}" role="img" aria-label="{html.escape(described)}">'
        f"<title>{html.escape(described)}</title>{''.join(drawn)}</svg>"
    )


def figure_of(caption: str, image: Image.Image) -> str:
    """An image embedded in the page, with its caption."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{encoded}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
