"""Result cards read again, and their tables: one card's, and several side by side. It takes no torch."""

import html
import json
from pathlib import Path

CARD = "card.json"
# As in `metrics.METRICS`, which takes torch; in the order of the columns.
METRIC_NAMES = (
    "psnr",
    "psnr_registered",
    "ssim",
    "ms_ssim",
    "gmsd",
    "gradient_ratio",
    "lpips",
    "dists",
    "niqe",
    "musiq",
    "clipiqa",
)
DECIBELS = ("psnr", "psnr_registered")
IDENTICAL = 100.0  # dB that identical images count as, so that a mean over images stays finite


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222 }
.wide { overflow-x: auto } svg { display: block; width: 100%; min-width: 480px; height: auto }
table { border-collapse: collapse } td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } h2 { margin-top: 2.5rem }
figure { display: inline-block; margin: 0 .6rem .6rem 0; max-width: 100% }
figure img { display: block; max-width: min(330px, 100%) }
figcaption, .note { color: #666; font-size: 14px }
dt { font-weight: 600 } dd { margin: 0 0 .4rem; word-break: break-all }
"""


def page_head(title: str) -> str:
    """The beginning of a page with this title, in HTML; it fits narrow screens."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
    )


def read_card(path: str | Path) -> dict:
    """Read a result card from its file or its folder. Raises `ValueError` for anything else."""
    path = Path(path) / CARD if Path(path).is_dir() else Path(path)
    try:
        result_card = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; bd-diff eval --out writes it") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a result card: {error}") from None
    if not isinstance(result_card, dict) or not {"entry", "protocol", "data", "results"} <= set(result_card):
        raise ValueError(f"{path} is not a result card: it has no entry, protocol, data and results")
    return result_card


def result_table(card: dict) -> str:
    """The results of one card as a Markdown table, a group a row, with the worst image."""
    columns = [name for name in METRIC_NAMES if name in next(iter(card["results"].values()))]
    lines = [
        "| group | images | gain dB | " + " | ".join(columns) + " | worst image |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for group, result in card["results"].items():
        figures = " | ".join(figure(name, result[name]) for name in columns)
        worst = f"{gain_or_psnr(result, result['worst'])} {result['worst']['name']}"
        lines.append(f"| {group} | {result['count']} | {gain(result)} | {figures} | {worst} |")
    return "\n".join(lines)


def compare(cards: list[dict], anyway: bool = False) -> str:
    """Several cards side by side as a Markdown table, see `comparison`."""
    titles, rows = comparison(cards, anyway)
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def comparison(cards: list[dict], anyway: bool = False) -> tuple[list[str], list[list[str]]]:
    """Titles of columns, and a row of cells a card: method, for each group gain, PSNR, SSIM and GMSD, and seconds.

    Raises `ValueError` for cards of different protocols or images, whose figures are not comparable, unless `anyway`.
    """
    for what, of in (("protocols", lambda c: c["protocol"]), ("images", lambda c: c["data"]["fingerprint"])):
        if len({of(card) for card in cards}) > 1 and not anyway:
            named = ", ".join(f"{card['entry']['name']} ({card['protocol']}, {of(card)[:12]})" for card in cards)
            raise ValueError(f"the cards are of different {what}: {named}; pass --anyway to see them all the same")
    groups = list(dict.fromkeys(group for card in cards for group in card["results"]))
    metrics = [name for name in METRIC_NAMES if any(name in r for card in cards for r in card["results"].values())]
    titles = [f"{group}: {name}" for group in groups for name in ("gain", *metrics)]
    rows = []
    for card in cards:
        cells = []
        for group in groups:
            result = card["results"].get(group, {})
            cells += [gain(result), *(figure(name, result.get(name)) for name in metrics)]
        seconds = card["seconds"] / card["data"]["images"]
        rows.append([label(card, cards), *cells, f"{seconds:.2f}"])
    return ["method", *titles, "s/image"], rows


def label(card: dict, cards: list[dict]) -> str:
    """The name of a card's method; with its settings where several cards have that name."""
    name, settings = card["entry"]["name"], card["entry"].get("settings", {})
    if sum(other["entry"]["name"] == name for other in cards) == 1 or not settings:
        return name
    return f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})"


def compare_page(cards: list[dict], anyway: bool = False) -> str:
    """The same as one HTML page, which fits narrow screens."""
    titles, rows = comparison(cards, anyway)
    head = "".join(f"<th scope=col>{html.escape(title)}</th>" for title in titles)
    body = ""
    for name, *cells in rows:
        body += f"<tr><th scope=row>{html.escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    first = cards[0]
    about = f"Protocol {first['protocol']}, {first['data']['images']} images of {first['data']['source']}"
    return (
        f"{page_head('Methods side by side')}<body><h1>Methods side by side</h1><p>{html.escape(about)}. PSNR and gain "
        "in dB; higher is better, but for GMSD, LPIPS, DISTS and NIQE.</p>"
        f"<div class=wide><table><tr>{head}</tr>{body}</table></div></body></html>\n"
    )


def gain(result: dict) -> str:
    """Mean gain in dB; empty where the input was already sharp."""
    return f"{result['gain']:+.2f}" if result and result["psnr_input"] < IDENTICAL else ""


def gain_or_psnr(result: dict, worst: dict) -> str:
    """The gain of the worst image, or its PSNR where the input was already sharp."""
    return f"{worst['gain']:+.2f}" if gain(result) else f"{worst['psnr']:.2f} dB"


def figure(name: str, value: float | None) -> str:
    """A metric's value as text for a table: two decimals for dB, four otherwise, nothing for None."""
    return "" if value is None else f"{value:.2f}" if name in DECIBELS else f"{value:.4f}"
