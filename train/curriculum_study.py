"""Does a curriculum help? X-DECODE trained with each of its curricula and with none, on the same data and steps.

`python train/curriculum_study.py --config configs/xdecode/study.yaml [section.name=value ...]`; where it was stopped,
the same command goes on. Leaves study.csv, study.md and study.png in `training.run.folder`.
"""

import statistics
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from bd_diff.baselines.sweep import markdown, train_all, write_csv
from bd_diff.baselines.validation import measure, validation_cases
from bd_diff.data.writing import replacing
from bd_diff.restore import load
from bd_diff.training.config import load_config

sys.path.insert(0, str(Path(__file__).parent))
from xdecode import XDecodeConfig, train

PUBLISHED = ("linear", "stepwise", "exponential", "slow_stepwise", "sigmoid")  # best first, on Extreme-KITTI


@dataclass(frozen=True)
class StudyConfig:
    """What is compared, and the training that all share. Tested on `training.data.validation` at its `levels`."""

    training: XDecodeConfig
    curricula: tuple[str, ...] = (*PUBLISHED, "none")
    seeds: tuple[int, ...] = (0, 1, 2)


def study(config: StudyConfig) -> str:
    """Train and test what is not yet; returns the report, which is also written."""
    if not find_spec("matplotlib"):
        raise ValueError("matplotlib, which draws the plot, is not installed; pip install 'bd-diff[eval]'")
    folder, base = Path(config.training.run.folder), config.training
    if not base.data.validation or not base.data.levels:
        raise ValueError("the study is tested on training.data.validation at training.data.levels; give both")
    cells = {
        f"{name}-{seed}": replace(base, blur=replace(base.blur, curriculum=name), run=replace(base.run, seed=seed))
        for seed in config.seeds
        for name in config.curricula
    }
    folders = train_all(cells, train, folder)
    cases = validation_cases(base.data)
    rows = rows_of("as it is", "", measure(lambda images: images, cases)[0])
    for cell, path in folders.items():
        rows += rows_of(*cell.rsplit("-", 1), measure(load(path, device="cpu"), cases)[0])
    write_csv(rows, folder / "study.csv")
    report = f"{markdown(table(rows))}\n{ranking(rows, config)}\n"
    with replacing(folder / "study.md") as part:
        part.write_text(report)
    plot(rows, folder / "study.png")
    return report


def rows_of(curriculum: str, seed: str, figures: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each level."""
    levels = [name.split("/")[1] for name in figures if name.startswith("psnr/")]
    return [
        {"curriculum": curriculum, "seed": seed, "level": level}
        | {metric: round(figures[f"{metric}/{level}"], 4) for metric in ("psnr", "ssim")}
        for level in levels
    ]


def values(rows: list[dict], metric: str, curriculum: str, level: str) -> list[float]:
    """The seeds' figures."""
    return [row[metric] for row in rows if (row["curriculum"], row["level"]) == (curriculum, level)]


def spread(figures: list[float]) -> float:
    """Sample standard deviation over the seeds; 0 for one."""
    return statistics.stdev(figures) if len(figures) > 1 else 0.0


def table(rows: list[dict]) -> list[dict[str, str]]:
    """A line for each curriculum: PSNR (dB) and SSIM at each level, mean ± standard deviation over the seeds."""
    lines = []
    for curriculum in dict.fromkeys(row["curriculum"] for row in rows):
        line = {"curriculum": curriculum}
        for level in dict.fromkeys(row["level"] for row in rows):
            psnr, ssim = (values(rows, metric, curriculum, level) for metric in ("psnr", "ssim"))
            line[f"level {level}: dB / SSIM"] = (
                f"{statistics.mean(psnr):.2f} ± {spread(psnr):.2f} / {statistics.mean(ssim):.3f} ± {spread(ssim):.3f}"
            )
        lines.append(line)
    return lines


def ranking(rows: list[dict], config: StudyConfig) -> str:
    """The order by mean PSNR over levels and seeds beside the published one, and how far they agree."""
    means = {
        name: statistics.mean(row["psnr"] for row in rows if row["curriculum"] == name) for name in config.curricula
    }
    order = ", ".join(f"{name} ({means[name]:.2f} dB)" for name in sorted(means, key=means.get, reverse=True))
    common = [name for name in PUBLISHED if name in means]
    text = f"Order here, best first, mean over levels and {len(config.seeds)} seeds: {order}."
    if len(common) > 2:
        agreement = spearmanr(range(len(common)), [-means[name] for name in common]).statistic
        text += f" Published order: {', '.join(common)}. Rank correlation (Spearman) of the two: {agreement:.2f}."
    return text


def plot(rows: list[dict], path: Path) -> None:
    """PSNR over the level, a line for each curriculum, with the seeds' standard deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    levels = list(dict.fromkeys(row["level"] for row in rows))
    for curriculum in dict.fromkeys(row["curriculum"] for row in rows):
        psnr = [values(rows, "psnr", curriculum, level) for level in levels]
        style = "--" if curriculum == "as it is" else "-"
        axes.errorbar(levels, [statistics.mean(v) for v in psnr], [spread(v) for v in psnr], label=curriculum, ls=style)
    axes.set(xlabel="box of the test, pixels a side", ylabel="PSNR, dB")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    try:
        print(study(load_config(StudyConfig, sys.argv[1:])))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
