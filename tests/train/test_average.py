"""The average of two pipelines: weights between theirs, whole networks where asked, and an error where none exists."""

import pytest
import torch
from bd_diff_toys import TINY

from bd_diff.training.joint import see_linear_light
from bd_diff.training.pipelines import build_pipeline, load_pipeline, save_pipeline
from train import average


@pytest.fixture
def folders(tmp_path):
    """Two pipelines of one shape but that the second sees linear light, too."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        pipeline = build_pipeline(TINY)
        if name == "second":
            see_linear_light(pipeline)
            torch.nn.init.normal_(pipeline.unet.enter.weight)
        save_pipeline(pipeline, tmp_path / name)
    return tmp_path / "first", tmp_path / "second"


def test_weights_lie_between_and_the_networks_that_are_not_named_are_the_seconds(folders, tmp_path):
    average.main([*map(str, folders), "--share", "0.25", "--networks", "unet", "--out", str(tmp_path / "both")])
    first, second, both = (load_pipeline(str(folder)) for folder in (*folders, tmp_path / "both"))
    assert both.config.linear_light and both.unet.config.in_channels == second.unet.config.in_channels
    old, new, found = (pipeline.unet.enter.weight for pipeline in (first, second, both))
    seen = old.shape[1]
    assert torch.allclose(found[:, :seen], 0.75 * old + 0.25 * new[:, :seen], atol=1e-6)
    assert torch.allclose(found[:, seen:], 0.25 * new[:, seen:], atol=1e-6)  # the first gave them no weight
    for name, value in both.blur_qformer.state_dict().items():
        assert torch.equal(value, second.blur_qformer.state_dict()[name])


def test_a_pipeline_takes_over_the_unet_of_another_that_sees_more(folders, tmp_path):
    average.main(
        [str(folders[1]), str(folders[0]), "--share", "0", "--networks", "unet", "--out", str(tmp_path / "it")]
    )
    first, second, found = (load_pipeline(str(folder)) for folder in (*folders, tmp_path / "it"))
    assert found.config.linear_light
    assert torch.equal(found.unet.enter.weight, second.unet.enter.weight)
    assert torch.equal(found.blur_decoder.paint.weight, first.blur_decoder.paint.weight)


def test_shares_outside_and_other_shapes_are_errors(folders, tmp_path):
    out = ["--out", str(tmp_path / "both")]
    with pytest.raises(ValueError, match="--share is 1.5; it must be between 0 and 1"):
        average.main([*map(str, folders), "--share", "1.5", *out])
    wider = build_pipeline(TINY | {"unet": TINY["unet"] | {"width": 16}})
    save_pipeline(wider, tmp_path / "wider")
    with pytest.raises(ValueError, match="unet is not of one shape in the two pipelines"):
        average.main([str(folders[0]), str(tmp_path / "wider"), "--networks", "unet", *out])
    assert not (tmp_path / "both").exists()
