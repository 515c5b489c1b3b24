"""Result cards: the figures of an evaluation and what is needed to reproduce them; tables of several cards."""

import csv
import hashlib
import json
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

import bd_diff
from bd_diff.data.writing import replacing
from bd_diff.evaluation.card_tables import CARD
from bd_diff.evaluation.evaluate import summarize
from bd_diff.evaluation.methods import Method

ROWS = "images.csv"
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
        # "entry" is the key of saved cards for the method that was evaluated.
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
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset // 2**20
    import resource  # which Windows lacks

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
