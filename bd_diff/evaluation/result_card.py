"""Result cards: the figures of an evaluation and what is needed to reproduce them; tables of several cards."""

import csv
import hashlib
import json
import platform
import resource
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

import bd_diff
from bd_diff.data.writing import replacing
from bd_diff.evaluation.evaluate import summarize
from bd_diff.evaluation.methods import Method
from bd_diff.evaluation.metrics import IDENTICAL, METRICS

CARD, ROWS = "card.json", "images.csv"
PACKAGES = ("torch", "diffusers", "transformers", "torchmetrics")


@dataclass(frozen=True)
class Data:
    """Where the images of an evaluation came from.

    source: the folder or data set as it was named. names: a text file with the images to take. limit: only the first so
    many.
    """

    source: str
    layout: str
    split: str
    names: str | None = None
    limit: int | None = None


def make_card(
    method: Method, protocol: str, data: Data, rows: list[dict], bad: list[str], seed: int, **figures
) -> dict:
    """The result card of an evaluation; `figures` are those of the whole set, such as FID."""
    fingerprint = hashlib.sha256("".join(row["digest"] for row in rows).encode()).hexdigest()
    return {
        "entry": {"name": method.name, "weights_sha256": method.weights, "settings": method.settings},
        "protocol": protocol,
        "data": {**vars(data), "images": len(rows), "skipped": bad, "fingerprint": fingerprint},
        "seed": seed,
        "results": summarize(rows),
        **({"set": figures} if figures else {}),
        "seconds": sum(row["seconds"] for row in rows),
        "peak_memory_mib": peak_memory(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "versions": {
            "bd-diff": bd_diff.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "rows": ROWS,
    }


def peak_memory() -> int:
    """Peak memory in MiB: of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def write_card(result_card: dict, rows: list[dict], folder: Path) -> None:
    """Write `card.json` and `images.csv` into a folder."""
    with replacing(folder / ROWS) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with replacing(folder / CARD) as part:
        part.write_text(json.dumps(result_card, indent=2, ensure_ascii=False) + "\n")


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


def result_table(result_card: dict) -> str:
    """The results of one card as a Markdown table: a row per group, with the worst image."""
    columns = [name for name in METRICS if name in next(iter(result_card["results"].values()))]
    lines = [
        "| group | images | gain dB | " + " | ".join(columns) + " | worst image |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for group, result in result_card["results"].items():
        figures = " | ".join(figure(name, result[name]) for name in columns)
        worst = f"{gain_or_psnr(result, result['worst'])} {result['worst']['name']}"
        lines.append(f"| {group} | {result['count']} | {gain(result)} | {figures} | {worst} |")
    return "\n".join(lines)


def compare(cards: list[dict], anyway: bool = False) -> str:
    """Several cards side by side as a Markdown table: a row per method, with gain, PSNR, SSIM and GMSD of each group.

    Raises `ValueError` for cards of different protocols or images, whose figures are not comparable, unless `anyway`.
    """
    for what, of in (("protocols", lambda c: c["protocol"]), ("images", lambda c: c["data"]["fingerprint"])):
        if len({of(card) for card in cards}) > 1 and not anyway:
            named = ", ".join(f"{card['entry']['name']} ({card['protocol']}, {of(card)[:12]})" for card in cards)
            raise ValueError(f"the cards are of different {what}: {named}; pass --anyway to see them all the same")
    groups = list(dict.fromkeys(group for card in cards for group in card["results"]))
    metrics = [name for name in METRICS if any(name in r for card in cards for r in card["results"].values())]
    titles = [f"{group}: {name}" for group in groups for name in ("gain", *metrics)]
    lines = ["| method | " + " | ".join(titles) + " | s/image |", "|---" * (len(titles) + 2) + "|"]
    for card in cards:
        cells = []
        for group in groups:
            result = card["results"].get(group, {})
            cells += [gain(result), *(figure(name, result.get(name)) for name in metrics)]
        seconds = card["seconds"] / card["data"]["images"]
        lines.append(f"| {card['entry']['name']} | " + " | ".join(cells) + f" | {seconds:.2f} |")
    return "\n".join(lines)


def gain(result: dict) -> str:
    """Mean gain in dB; empty where the input was already sharp."""
    return f"{result['gain']:+.2f}" if result and result["psnr_input"] < IDENTICAL else ""


def gain_or_psnr(result: dict, worst: dict) -> str:
    """The gain of the worst image, or its PSNR where the input was already sharp."""
    return f"{worst['gain']:+.2f}" if gain(result) else f"{worst['psnr']:.2f} dB"


def figure(name: str, value: float | None) -> str:
    """A figure as tables print it: two decimals in dB, otherwise four."""
    return "" if value is None else f"{value:.2f}" if METRICS[name].unit == "dB" else f"{value:.4f}"
