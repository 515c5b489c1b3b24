"""Validation during training: gains by blur family on held-out photographs, and a sheet of images."""

from itertools import islice
from pathlib import Path

import torch
from torchvision.utils import make_grid

from bd_diff.data.images import save_image, to_image
from bd_diff.data.photographs import Photographs
from bd_diff.evaluation.evaluate import family_pairs
from bd_diff.evaluation.metrics import psnr, ssim


class Validation:
    """Scores the pipeline during training: `validation(step)` returns figures by name, and prints them.

    By blur family (`evaluation.evaluate.family_pairs`): `<family>/psnr_gain`, the mean gain over the blurry photograph
    in dB, `<family>/worst`, the lowest gain, and `<family>/ssim`; of the family `sharp` the PSNR in dB itself instead
    of a gain. It also writes `out/validation/<step>.png`, a row for each family: blurry, result, sharp.

    folder, names: the photographs that the text file `names` lists in `folder`; count: how many of them, from the
    first. Raises ValueError for a listed name that is not in the folder.
    """

    def __init__(self, pipeline, folder: str, names: str, count: int, out: Path, batch: int = 8):
        photographs = list(islice(Photographs(folder, only=names), count))
        self.pipeline, self.pairs, self.out, self.batch = pipeline, family_pairs(photographs), out / "validation", batch

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        networks = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        for network in networks:
            network.eval()
        self.pipeline.set_progress_bar_config(disable=True)
        figures: dict[str, float] = {}
        rows = []
        for family in dict.fromkeys(pair.family for pair in self.pairs):
            pairs = [pair for pair in self.pairs if pair.family == family]
            results = []
            for pair in pairs:
                generator = torch.Generator().manual_seed(0)
                results.append(
                    self.pipeline(pair.blurry, fast=True, generator=generator, output_type="pt").images.cpu()
                )
            sharp, blurry = (torch.stack([getattr(pair, name) for pair in pairs]) for name in ("sharp", "blurry"))
            result = torch.cat(results)
            scores, name = psnr(result, sharp), "psnr"
            if family != "sharp":  # whose own PSNR is infinite
                scores, name = scores - psnr(blurry, sharp), "psnr_gain"
            figures |= {f"{family}/{name}": scores.mean().item(), f"{family}/worst": scores.min().item()}
            figures[f"{family}/ssim"] = ssim(result, sharp).mean().item()
            rows.append(torch.cat([blurry[0], result[0], sharp[0]], -1))
        save_image(to_image(make_grid(torch.stack(rows), nrow=1)), self.out / f"{step:07d}.png")
        for network in networks:
            network.train()
        print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)
        return figures
