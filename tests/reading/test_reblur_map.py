"""The re-blur map is dark where a result is consistent with its photograph and bright where it is not."""

import pytest
import torch
from bd_diff_toys import TINY

from bd_diff.blur.kernels import gaussian
from bd_diff.blur.operator import reblur
from bd_diff.commands.deblur import deblur
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.models.unet import NAFUNet
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading import blur_reading
from bd_diff.reading.kernel_search import search_evidence
from bd_diff.reading.reblur_map import FULL, correlation, draw_map, error_map, reblur_map
from bd_diff.restore import load


@pytest.fixture
def sharp():
    return procedural_image(64, torch.Generator().manual_seed(0))[None]


def test_the_truth_explains_its_photograph_and_an_invention_does_not(sharp):
    kernel = gaussian(torch.tensor([1.5]))
    blurry = reblur(sharp, kernel)
    assert reblur_map(blurry, sharp, kernel).max() < 1e-4
    invented = sharp.clone()
    invented[..., 20:30, 40:50] = 1 - invented[..., 20:30, 40:50]
    shown = reblur_map(blurry, invented, kernel)[0, 0]
    assert shown[22:28, 42:48].mean() > 20 * shown[45:, :30].mean()
    assert correlation(reblur_map(blurry, invented, kernel), error_map(invented, sharp)).item() > 0.3


def test_correlation_is_by_rank():
    values = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(correlation(values, values**3), torch.ones(2).double())
    assert torch.allclose(correlation(values, -values), -torch.ones(2).double())


def test_the_picture_is_black_for_agreement_and_white_at_full_difference():
    picture = draw_map(torch.tensor([[[0.0, FULL / 3, FULL, 9.0]]]))
    assert [picture.getpixel((x, 0)) for x in range(4)] == [(0, 0, 0), (255, 0, 0), (255,) * 3, (255,) * 3]


def test_deblur_writes_each_photographs_map_beside_its_result_and_reads_its_blur_once(
    tiny_pipeline_folder, tmp_path, monkeypatch
):
    searches = []
    monkeypatch.setattr(blur_reading, "search_evidence", lambda *given: searches.append(1) or search_evidence(*given))
    for index in range(2):
        image = procedural_image(200, torch.Generator().manual_seed(index))
        save_image(
            to_image(reblur(image[None], gaussian(torch.tensor([1.0 + index])))[0]), tmp_path / f"in/{index}.png"
        )
    deblur([str(tmp_path / "in")], tmp_path / "out", str(tiny_pipeline_folder), maps=True, batch_size=2)
    assert len(searches) == 2
    restorer = load(tiny_pipeline_folder)
    for index in range(2):
        names = f"in/{index}.png", f"out/{index}.png", f"out/{index}-reblur.png"
        blurry, result, drawn = (to_tensor(read_image(tmp_path / name))[None] for name in names)
        kernel = restorer.pipeline.estimate_kernel(blurry)
        expected = to_tensor(draw_map(reblur_map(blurry, result, kernel)[0]))
        assert (drawn[0] - expected).abs().mean() < 0.02 < expected.std()


def test_a_map_needs_a_model_that_sees_kernels(tiny_pipeline, tmp_path, sharp):
    unet = NAFUNet(**TINY["unet"], in_channels=24)  # noise and the photograph
    parts = tiny_pipeline.components | {"blur_decoder": None, "unet": unet}
    BDDiffPipeline(**parts).save_pretrained(tmp_path / "model")
    save_image(to_image(sharp[0]), tmp_path / "in.png")
    with pytest.raises(ValueError, match="--map: .*model has no blur_decoder"):
        deblur([str(tmp_path / "in.png")], tmp_path / "out.png", str(tmp_path / "model"), maps=True)
