"""Frozen vision towers give structure, the native resolution gives blur; they save, load and run like the small one."""

import open_clip
import pytest
import torch
from bd_diff_toys.stable_diffusion import SIZES, save_base
from bd_diff_toys.towers import TOWERS
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import blur, gaussian
from bd_diff.models.clip_encoder import NO_TEXT, ClipImageEncoder
from bd_diff.stable_diffusion.adapters import add_lora, save_adapter
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.training.pipelines import pipeline_from_base


@pytest.fixture(params=TOWERS)
def encoder(request):
    torch.manual_seed(0)
    return ClipImageEncoder(TOWERS[request.param], request.param, feature_channels=12, map_channels=4).eval()


def source(library, folder):
    """Weights of a tower as its library saves them."""
    torch.manual_seed(5)
    if library == "transformers":
        CLIPVisionModel(CLIPVisionConfig(**TOWERS[library])).save_pretrained(folder / "clip")
        return str(folder / "clip")
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=TOWERS[library], text_cfg=NO_TEXT)
    visual = {name: t.contiguous() for name, t in clip.state_dict().items() if name.startswith("visual.")}
    save_file(visual, folder / "clip.safetensors")
    return str(folder / "clip.safetensors")


def test_features_have_their_shapes_for_any_size(encoder):
    for size in ((64, 48), (33, 97)):
        features = encoder(torch.rand(2, 3, *size) * 2 - 1)
        assert features.structure.shape == (2, 16, 16)
        assert features.blur.shape == (2, 49, 12) and features.kernels.shape == (2, 33, 33)


def test_a_small_blur_shows_in_the_blur_features_and_hardly_in_the_structure(encoder):
    sharp = torch.nn.functional.interpolate(torch.rand(1, 3, 60, 60), scale_factor=4) * 2 - 1
    soft = blur(sharp, gaussian(torch.tensor([1.5])))
    torch.nn.init.normal_(encoder.blur.kernel_reader.to_logits.weight)  # untrained it is zero
    before, after = encoder(sharp), encoder(soft)

    def change(name):
        return (getattr(after, name) - getattr(before, name)).norm() / getattr(before, name).norm()

    assert 2 * change("structure") < change("kernels")


def test_the_tower_is_frozen_and_the_rest_learns(encoder):
    encoder(torch.rand(1, 3, 64, 64)).blur.sum().backward()
    assert not any(parameter.requires_grad for parameter in encoder.vision.parameters())
    assert any(parameter.grad is not None for parameter in encoder.blur.parameters())
    assert not encoder(torch.rand(1, 3, 64, 64)).structure.requires_grad


def test_it_saves_and_loads_to_the_bit(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again, pixels = ClipImageEncoder.from_pretrained(tmp_path), torch.rand(1, 3, 64, 64)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in encoder.state_dict().items())
    assert torch.allclose(again(pixels).structure, encoder(pixels).structure, atol=1e-5)


@pytest.mark.parametrize("library", TOWERS)
def test_a_pipeline_over_a_base_fetches_the_tower_and_its_adapter_leaves_it_out(library, tmp_path):
    tower = {"class": "ClipImageEncoder", "tower": TOWERS[library], "library": library, "feature_channels": 12}
    sections = SIZES | {"image_encoder": tower | {"map_channels": 4, "source": source(library, tmp_path)}}
    pipeline = pipeline_from_base(load_base(save_base(tmp_path / "sd")), sections)
    assert pipeline.structure_qformer.config.feature_channels == 16
    assert pipeline.blur_qformer.config.feature_channels == 12
    add_lora(pipeline.unet, 2)
    save_adapter(pipeline, tmp_path / "adapter")
    again = BDDiffPipeline.from_pretrained(tmp_path / "adapter")
    for one in (pipeline, again):
        one.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 40, 48)
    results = [
        one(image, num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="pt").images
        for one in (pipeline, again)
    ]
    assert torch.equal(*results)
    assert "vision" not in (tmp_path / "adapter/adapter.safetensors").read_bytes()[:100_000].decode(errors="ignore")


@pytest.mark.parametrize("library", TOWERS)
def test_a_tower_that_is_not_there_or_of_another_size_is_named(library, tmp_path):
    size = TOWERS[library] | {"patch_size": 16}
    with pytest.raises(ValueError, match="the vision tower cannot be loaded from .*clip"):
        ClipImageEncoder(size, library, source=source(library, tmp_path)).load_tower()
    with pytest.raises(ValueError, match="the vision tower cannot be loaded from /no/where"):
        ClipImageEncoder(size, library, source="/no/where").load_tower()


def test_an_unknown_library_is_named():
    with pytest.raises(ValueError, match="there is no library 'timm'"):
        ClipImageEncoder(TOWERS["open_clip"], "timm")
