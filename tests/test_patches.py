"""Blur tokens are patches of the kernel, and the only way from what was read or known to the kernel."""

import pytest
import torch
from torch import nn

from bd_diff import blur_reading
from bd_diff.blur.kernels import blur, delta, shake
from bd_diff.data.batches import JointSamples, SharpCrops, collate_joint, seeded
from bd_diff.data.procedural import procedural_image
from bd_diff.metrics import luminance
from bd_diff.models.kernel_search import search_evidence
from bd_diff.models.patch_decoder import PatchDecoder
from bd_diff.models.patch_qformer import PatchQFormer
from bd_diff.models.patches import PATCH, patch_rows, patches_a_side, place_codes, places
from bd_diff.noise import calm
from bd_diff.objective import JointObjective
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.variants import build_pipeline
from tests.conftest import TINY

PATCHES = TINY | {
    "image_encoder": TINY["image_encoder"] | {"blur_patches": True},
    "blur_qformer": {
        "class": "PatchQFormer",
        "feature_channels": 16,
        "token_channels": 16,
        "hidden_size": 16,
        "num_layers": 1,
    },
    "blur_decoder": {"class": "PatchDecoder", "token_channels": 16, "pictures": 2, "map_channels": 4},
}


@pytest.fixture(scope="module")
def pipeline():
    """An untrained pipeline whose kernels are far from even, refining once."""
    torch.manual_seed(0)
    parts = build_pipeline(PATCHES).components
    torch.nn.init.normal_(parts["blur_decoder"].paint.weight, std=1.0)
    torch.nn.init.normal_(parts["blur_decoder"].to_logits.weight, std=0.1)
    return BDDiffPipeline(**parts, refinements=1)


@pytest.fixture(scope="module")
def shaken():
    """A photograph in [-1, 1], shaken by 14 pixels."""
    sharp = procedural_image(256, torch.Generator().manual_seed(3))[None] * 2 - 1
    return blur(sharp, shake(torch.tensor([14.0]), torch.Generator().manual_seed(4)), mode="valid")


@pytest.fixture(scope="module")
def found(shaken):
    return search_evidence(luminance(calm((shaken + 1) / 2)))


@pytest.mark.parametrize("size, rows", [(33, 7), (65, 13), (97, 21), (129, 27), (5, 1), (7, 3)])
def test_patches_hold_a_kernel_of_any_size_with_its_middle_in_their_middle(size, rows):
    assert patches_a_side(size) == rows and PATCH * rows >= size and (PATCH * rows - size) % 2 == 0
    assert places(rows)[rows**2 // 2].tolist() == [0, 0]
    assert patch_rows(rows**2) == patch_rows(rows**2 + 1) == rows


def test_no_two_places_of_a_large_kernel_have_the_same_code():
    codes = place_codes(places(27))
    assert torch.pdist(codes).min() > 0.1


@pytest.mark.parametrize("size", [33, 65])
def test_a_larger_kernel_has_more_tokens(pipeline, size):
    reading = pipeline.carry_blur(delta(2, size))
    assert reading.tokens.shape == (2, patches_a_side(size) ** 2, 16)
    assert reading.kernels.shape == (2, size, size) and torch.allclose(reading.kernels.sum((1, 2)), torch.ones(2))


def test_a_decoder_refuses_the_tokens_of_another_size(pipeline):
    with pytest.raises(ValueError, match="a kernel of 33 pixels a side has 49 tokens, not 169"):
        pipeline.blur_decoder(pipeline.carry_blur(delta(1, 65)).tokens)


def test_tokens_keep_the_amplitude_of_what_they_read():
    qformer = PatchQFormer(feature_channels=16, token_channels=16, hidden_size=16)
    features = torch.randn(1, 50, 16)
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


def test_strength_zero_gives_the_null_token_everywhere(pipeline):
    tokens = pipeline.blur_qformer(torch.randn(2, 49, 16), 0.0)
    assert torch.equal(tokens, pipeline.blur_qformer.null_tokens.expand(2, 49, -1))


def test_whatever_the_way_the_kernel_is_decoded_of_the_tokens_alone(pipeline, shaken, found, monkeypatch):
    readings = {"fast": pipeline.encode_image(shaken, fast=True)}
    for trust, doubt in ((0.9, False), (0.9, True), (0.1, False)):
        monkeypatch.setattr(pipeline.blur_decoder, "trusts", lambda t, trust=trust: torch.full((len(t),), trust))
        monkeypatch.setattr(blur_reading, "uncertain", lambda *_, doubt=doubt: torch.tensor([doubt]))
        readings[f"trust {trust}, doubt {doubt}"] = pipeline.encode_image(shaken, found=found)
    for name, reading in readings.items():
        assert torch.allclose(pipeline.blur_decoder(reading.tokens), reading.kernels, atol=1e-7), name
    assert not torch.equal(readings["trust 0.9, doubt False"].kernels, readings["fast"].kernels)


def test_swapping_tokens_swaps_kernels(pipeline, shaken):
    readings = [pipeline.encode_image(image, fast=True) for image in (shaken, shaken.flip(-1) * 0.5)]
    kernels = [reading.kernels for reading in readings]
    assert (kernels[0] - kernels[1]).abs().sum() > 0.01
    swapped = pipeline.blur_decoder(torch.cat([readings[1].tokens, readings[0].tokens]))
    assert torch.allclose(swapped, torch.cat(kernels[::-1]), atol=1e-6)


def test_a_carried_kernel_has_the_same_tokens_whatever_the_photograph(pipeline):
    kernels = shake(torch.tensor([14.0, 9.0]), torch.Generator().manual_seed(4))
    both, one = pipeline.carry_blur(kernels), pipeline.carry_blur(kernels[1:])
    assert torch.allclose(both.tokens[1:], one.tokens, atol=1e-6)


@pytest.mark.parametrize("size", [33, 65])
def test_tokens_are_found_that_decode_to_known_kernels_nearly_exactly(size):
    torch.manual_seed(0)
    decoder = PatchDecoder(token_channels=64, pictures=2, map_channels=4)
    kernels = shake(torch.tensor([9.0, 14.0, 20.0]), torch.Generator().manual_seed(4), size)
    carried = decoder(decoder.fit_tokens(torch.randn(3, patches_a_side(size) ** 2, 64), kernels), size)
    assert (nn.functional.cosine_similarity(carried.flatten(1), kernels.flatten(1)) > 0.995).all()


def test_a_pipeline_of_patches_saves_and_loads(pipeline, shaken, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = BDDiffPipeline.from_pretrained(tmp_path)
    assert isinstance(again.blur_decoder, PatchDecoder)
    before, after = (one.encode_image(shaken, fast=True).kernels for one in (pipeline, again))
    assert torch.equal(before, after)


READER = {"kernel": 1.0, "carry": 0.5, "trust": 0.1}


@pytest.fixture(scope="module")
def batch(shaken, found):
    """Two banked photographs and two new ones."""
    hypothesis, evidence = found[0][:, 0], found[1]
    bank = {
        "blurry": ((shaken + 1) * 127.5).byte(),
        "kernel": shake(torch.tensor([14.0]), torch.Generator().manual_seed(4)),
        "hypothesis": hypothesis,
        "evidence": evidence,
    }
    photographs = [(procedural_image(300, seeded(index)) * 255).byte() for index in range(2)]
    samples = JointSamples(SharpCrops(photographs, 256, 0), 64, bank=bank)
    return collate_joint([samples[index] for index in range(4)])


def reading_objective(pipeline, **weights):
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    families = {"line": 0.5, "hand_shake": 0.5}
    return JointObjective(networks.train(), pipeline.scheduler, weights or READER, families, crop=64)


def test_every_parameter_of_the_reader_learns_from_reading_carrying_and_trusting(batch):
    torch.manual_seed(0)
    pipeline = build_pipeline(PATCHES)
    for zero in (pipeline.blur_decoder.to_logits.weight, pipeline.blur_decoder.trust.weight):
        nn.init.normal_(zero, std=0.02)
    losses = reading_objective(pipeline)(batch, seeded(1))
    assert set(losses) == {*READER, "loss"} and all(loss.isfinite() for loss in losses.values())
    losses["loss"].backward()
    parts = {"blur": pipeline.image_encoder.blur, "qformer": pipeline.blur_qformer, "decoder": pipeline.blur_decoder}
    idle = [f"{part} {name}" for part, net in parts.items() for name, p in net.named_parameters() if not p.grad.any()]
    assert idle == ["qformer null_tokens"]  # they mean no blur, and learn with the UNet
    others = [p.grad for p in pipeline.unet.parameters()]
    assert all(grad is not None and not grad.any() for grad in others)  # there, so that processes stay in step


def test_a_decoder_learns_to_carry_any_kernel(batch):
    torch.manual_seed(0)
    pipeline = build_pipeline(PATCHES)
    objective = reading_objective(pipeline, carry=1.0)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = objective.carry(None, seeded(step))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_trust_is_taught_whether_the_search_was_right(batch):
    pipeline = build_pipeline(PATCHES)
    objective = reading_objective(pipeline)
    kernels = shake(torch.tensor([14.0, 20.0]), torch.Generator().manual_seed(4))
    tokens = torch.randn(2, 49, 16)
    for hypotheses, target in ((kernels, 1.0), (kernels.flip(0), 0.0)):
        nn.init.constant_(pipeline.blur_decoder.trust.bias, 4.0)
        assert (objective.trust(tokens, hypotheses, kernels) < 0.1) == bool(target)
