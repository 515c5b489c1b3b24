"""Blur tokens are patches of the kernel, and the only way from what was read to the kernel."""

import pytest
import torch
from bd_diff_toys import TINY

from bd_diff.blur.kernels import blur, delta, shake
from bd_diff.data.crops import seeded
from bd_diff.data.pixels import luminance
from bd_diff.data.procedural import procedural_image
from bd_diff.models.patch_qformer import NULL_TOKENS, PatchQFormer
from bd_diff.models.patches import PATCH, patches_a_side, place_codes, places
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading import blur_reading
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import search_evidence
from bd_diff.training.objective import JointObjective
from bd_diff.training.pipelines import build_pipeline


@pytest.fixture(scope="module")
def pipeline():
    """An untrained pipeline whose kernels are far from even and change the result, refining once."""
    torch.manual_seed(0)
    parts = build_pipeline(TINY).components
    torch.nn.init.normal_(parts["blur_decoder"].paint.weight, std=1.0)
    torch.nn.init.normal_(parts["blur_decoder"].to_logits.weight, std=0.1)
    torch.nn.init.normal_(parts["image_encoder"].kernel_reader.to_logits.weight, std=0.1)
    torch.nn.init.normal_(parts["unet"].shortcut.weight, std=0.1)
    return BDDiffPipeline(**parts, refinements=1)


@pytest.fixture(scope="module")
def shaken():
    """A photograph in [-1, 1], shaken by 14 pixels."""
    sharp = procedural_image(256, torch.Generator().manual_seed(3))[None] * 2 - 1
    return blur(sharp, shake(torch.tensor([14.0]), torch.Generator().manual_seed(4)), mode="valid")


@pytest.fixture(scope="module")
def found(shaken):
    return search_evidence(luminance(reduce_noise((shaken + 1) / 2)))


@pytest.mark.parametrize(("size", "rows"), [(33, 7), (65, 13), (97, 21), (129, 27), (5, 1), (7, 3)])
def test_patches_hold_a_kernel_of_any_size_with_its_middle_in_their_middle(size, rows):
    assert patches_a_side(size) == rows and PATCH * rows >= size and (PATCH * rows - size) % 2 == 0
    assert places(rows**2)[rows**2 // 2].tolist() == [0, 0]


def test_no_two_places_of_a_large_kernel_have_the_same_code():
    assert torch.pdist(place_codes(places(27**2))).min() > 0.1


@pytest.mark.parametrize("size", [33, 65])
def test_a_larger_kernel_has_more_tokens(pipeline, size):
    reading = pipeline.tell(BlurReading(delta(2, size)))
    assert reading.tokens.shape == (2, patches_a_side(size) ** 2, 16)
    assert reading.kernels.shape == (2, size, size) and torch.allclose(reading.kernels.sum((1, 2)), torch.ones(2))


def test_a_decoder_refuses_the_tokens_of_another_size(pipeline):
    with pytest.raises(ValueError, match="a kernel of 33 pixels a side has 49 tokens, not 169"):
        pipeline.blur_decoder(pipeline.tell(BlurReading(delta(1, 65))).tokens)


def test_tokens_keep_the_amplitude_of_what_they_read():
    qformer = PatchQFormer(feature_channels=16, token_channels=16, hidden_size=16)
    features = torch.randn(1, 49, 16)
    none, once, thrice = (qformer(share * features) for share in (0.0, 1.0, 3.0))
    assert (thrice - none).norm() > 1.5 * (once - none).norm()


def test_a_token_reads_its_own_patch_most():
    torch.manual_seed(0)
    qformer = PatchQFormer(feature_channels=16, token_channels=16, hidden_size=16)
    features = torch.randn(1, 49, 16)
    changed = features.clone()
    changed[:, 10] += 1
    moved = (qformer(changed) - qformer(features))[0].norm(dim=1)
    assert moved.argmax() == 10 and moved[10] > 2 * moved[48]


def test_no_blur_is_the_same_condition_whatever_the_size_of_the_kernel(pipeline):
    qformer = pipeline.blur_qformer
    faded = qformer(torch.randn(2, 169, 16), 0.0)
    assert torch.equal(faded, qformer.null_tokens.expand(2, 169, -1))
    assert torch.equal(qformer.no_blur(2), faded[:, :NULL_TOKENS])


def test_whatever_the_way_the_kernel_is_decoded_of_the_tokens_alone(pipeline, shaken, found, monkeypatch):
    readings = {"fast": pipeline.encode_image(shaken, fast=True)}
    for doubt in (False, True):
        monkeypatch.setattr(blur_reading, "uncertain", lambda *_, doubt=doubt: torch.tensor([doubt]))
        readings[f"doubt {doubt}"] = pipeline.encode_image(shaken, found=found)
    for name, reading in readings.items():
        assert torch.allclose(pipeline.blur_decoder(reading.tokens), reading.kernels, atol=1e-7), name
    assert not torch.equal(readings["doubt False"].kernels, readings["fast"].kernels)


def test_the_pipeline_deblurs_by_what_the_tokens_say(pipeline, shaken, monkeypatch):
    """Tokens of another photograph give that photograph's blur, and another result."""
    other = pipeline.encode_image(shaken.flip(-1) * 0.5, fast=True)
    own = pipeline((shaken + 1) / 2, fast=True, output_type="pt")
    monkeypatch.setattr(pipeline.blur_qformer, "forward", lambda features: other.tokens)
    swapped = pipeline((shaken + 1) / 2, fast=True, output_type="pt")
    assert torch.equal(swapped.kernels, other.kernels) and not torch.allclose(own.kernels, other.kernels, atol=1e-4)
    assert (own.images - swapped.images).abs().mean() > 1e-4


def test_carrying_kernels_alone_looks_at_no_photograph_and_teaches_what_carries(pipeline):
    networks = torch.nn.ModuleDict({n: p for n, p in pipeline.components.items() if isinstance(p, torch.nn.Module)})
    objective = JointObjective(networks, pipeline.scheduler, {"carry": 1.0}, {"shake": 0.5, "gaussian": 0.5})
    for index in range(12):  # of all sizes
        loss = objective({"sharp": torch.zeros(0)}, seeded(0, index))["loss"]
        assert 0 < loss < 20
    loss.backward()
    taught = {name.split(".")[0] for name, one in networks.named_parameters() if one.grad is not None}
    assert taught == {"image_encoder", "blur_qformer", "blur_decoder"}
    networks.zero_grad(set_to_none=True)
