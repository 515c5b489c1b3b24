import pytest
import torch

from bd_diff.baselines.uresnet import UResNet
from bd_diff.baselines.validation import Plateau, box_cases, centre_and_margin, family_cases, measure, save_whole
from bd_diff.blur.kernels import blur, box


@pytest.fixture
def photographs():
    return list(torch.randint(256, (2, 3, 80, 90), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))


def test_a_box_of_each_level_blurs_the_centre_of_each_photograph(photographs):
    cases = box_cases(photographs, [3, 29], size=32)
    assert list(cases) == ["3", "29"]
    whole = torch.stack(photographs) / 255
    for level, (blurry, sharp) in cases.items():
        assert torch.allclose(sharp, whole[..., 24:56, 29:61], atol=1e-6)
        expected = blur(whole, box(torch.full((2,), float(level))))[..., 24:56, 29:61]
        assert (blurry - expected).abs().max() < 0.51 / 255


def test_the_families_are_those_of_the_table(photographs):
    cases = family_cases(photographs, size=32)
    assert list(cases) == ["gaussian", "line", "shake", "sharp"]
    assert all(blurry.shape == sharp.shape == (2, 3, 32, 32) for blurry, sharp in cases.values())


@pytest.mark.parametrize("side", range(32, 70, 3))
def test_the_centre_and_its_margin_are_all_that_cases_are_made_of(side):
    image = torch.randint(256, (3, side, side + 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    centre = centre_and_margin(image, 32)
    assert max(centre.shape) <= 64 and centre.untyped_storage().nbytes() == centre.numel()
    for name, pair in family_cases([image], size=32).items():
        assert all(torch.equal(*both) for both in zip(pair, family_cases([centre], size=32)[name], strict=True))
    assert torch.equal(box_cases([image], [5], size=32)["5"][0], box_cases([centre], [5], size=32)["5"][0])


def test_leaving_the_image_alone_measures_its_blur(photographs):
    figures, pictures = measure(lambda images: images, family_cases(photographs, size=32))
    assert figures["psnr/sharp"] == 100 and figures["ssim/sharp"] == pytest.approx(1)
    assert figures["psnr/shake"] < 30 and set(pictures) == {"gaussian", "line", "shake", "sharp"}


def test_the_rate_falls_after_more_than_patience_validations_without_gain_and_stops_at_the_floor():
    plateau = Plateau(factor=0.1, patience=2, floor=0.05)
    shares = []
    for figure in [20, 21, 21, 20, 19, 22, 1, 1, 1, 1]:
        plateau.observe(figure)
        shares.append(plateau.share)
    assert shares == [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_plateau_continues_where_it_was_saved():
    first, second = Plateau(patience=3), Plateau(patience=3)
    for figure in [20, 19, 18]:
        first.observe(figure)
    second.load_state_dict(first.state_dict())
    for figure in [17, 16]:
        second.observe(figure)
    assert second.share == pytest.approx(0.1)


def test_a_saved_network_loads_and_leaves_nothing_else_behind(tmp_path):
    (tmp_path / "logs").mkdir()
    save_whole(UResNet(width=2), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors", "logs"]
    assert UResNet.from_pretrained(tmp_path).config.width == 2
