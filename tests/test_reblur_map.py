"""The re-blur map is dark where a result is consistent with its photograph and bright where it is not."""

import pytest
import torch

from bd_diff.blur.kernels import gaussian
from bd_diff.data.procedural import procedural_image
from bd_diff.models.blur_operator import reblur
from bd_diff.reblur_map import FULL, correlation, draw_map, error_map, reblur_map


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


def test_deblur_writes_the_map_beside_the_result(tiny_pipeline_folder, tmp_path, sharp):
    from bd_diff.commands.deblur import deblur
    from bd_diff.data.images import read_image, save_image, to_image

    save_image(to_image(sharp[0]), tmp_path / "in/photograph.jpg")
    deblur([str(tmp_path / "in")], tmp_path / "out", str(tiny_pipeline_folder), maps=True)
    assert read_image(tmp_path / "out/photograph-reblur.png").size == read_image(tmp_path / "out/photograph.jpg").size
