"""`strength` goes from the photograph to the result without a detour: PSNR rises with it where blur is to be seen.

Where hardly any is (gb82_haze: 43 dB before), three quarters of it are best, by 0.1 dB.
"""

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.data.images import read_image, to_tensor
from bd_diff.evaluation.metrics import psnr

ASSETS = ROOT / "assets"


@pytest.mark.parametrize("name", ["gb82_sand.png", "gb82_mies.png"])
def test_more_strength_is_more_psnr(name, monkeypatch):
    pipe = BDDiffPipeline.from_pretrained(ASSETS / "bd-diff-tiny")
    pipe.set_progress_bar_config(disable=True)
    blurry, sharp = (to_tensor(read_image(ASSETS / "samples" / kind / name))[None] for kind in ("blurry", "sharp"))
    window = (..., slice(0, 256), slice(0, 256))
    reading = pipe.encode_image(blurry[window] * 2 - 1)  # once, with the search: the strength has no part in it
    monkeypatch.setattr(pipe, "read_at_scales", lambda pixels, fast: reading)
    figures = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        generator = torch.Generator().manual_seed(0)
        result = pipe(blurry[window], strength=strength, generator=generator, output_type="pt").images
        figures.append(psnr(result, sharp[window]).item())
    assert figures == sorted(figures) and figures[-1] > figures[0] + 1, figures
    assert figures[0] == pytest.approx(psnr(blurry[window], sharp[window]).item(), abs=0.01)
