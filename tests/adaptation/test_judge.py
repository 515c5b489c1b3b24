"""Judging without truth: what explains unseen photographs better is kept, all else gives back what one began with."""

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.adaptation.candidates import LENS, READER, WHOLE, with_lens, with_reader
from bd_diff.adaptation.judge import Compared, Judgement, compare, judge
from bd_diff.adaptation.lens import shared_kernel
from bd_diff.blur.kernels import blur, centre, gaussian
from bd_diff.data.images import read_image, to_tensor
from bd_diff.reading.confidence import distances

NAMES = ("dog", "city", "grass", "guitar", "flowers", "girl", "baby", "mc1")


@pytest.fixture(scope="module")
def ghost():
    """A kernel of no family: two soft points, 8 pixels apart."""
    kernel = 0.6 * gaussian(torch.tensor([0.8])) + 0.4 * gaussian(torch.tensor([0.8])).roll((4, 7), (1, 2))
    return centre(kernel)


@pytest.fixture(scope="module")
def photographs(ghost):
    """Eight photographs of the same lens, `(1, 3, 200, 200)`."""
    taken = []
    for index, name in enumerate(NAMES):
        image = to_tensor(read_image(ROOT / f"assets/sharp/gb82_{name}.webp"))[None, :, :232, :232] / 255
        noise = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(index)) / 255
        taken.append((blur(image, ghost, "valid") + noise).clamp(0, 1))
    return taken


def test_photographs_of_one_lens_tell_its_kernel_better_together_than_each_alone(photographs, ghost):
    pipeline = BDDiffPipeline.from_pretrained()
    read = torch.cat([pipeline.encode_image(one * 2 - 1, fast=True).kernels for one in photographs])
    together = float(distances(ghost, shared_kernel(photographs, read)))
    assert together < 0.5 * float(distances(ghost, read).min())


def test_a_lens_that_explains_unseen_photographs_is_kept_and_a_wrong_one_is_not(photographs):
    begun = BDDiffPipeline.from_pretrained()
    right, wrong = with_lens(BDDiffPipeline.from_pretrained(), photographs[:6]), BDDiffPipeline.from_pretrained()
    wrong.register_to_config(lens={"kernel": gaussian(torch.tensor([4.0]))[0].tolist()})
    judgement = judge(begun, {"wrong": wrong, LENS: right}, photographs[6:])
    assert judgement.kept == LENS and judgement.sentence().startswith("Kept: 2 held-out photographs")
    assert judgement.compared["wrong"].why_not
    rejected = judge(begun, {"wrong": wrong}, photographs[6:])
    assert rejected.kept is None and rejected.sentence().startswith("rejected: on 2 held-out photographs")


@pytest.mark.parametrize(
    ("compared", "why"),
    [
        (Compared(better=0.05, error=0.01, wins=0.9, changed=0.1), "hardly differ"),
        (Compared(better=-0.05, error=0.01, wins=0.1, changed=2.0), "worse, by 5.0%"),
        (Compared(better=0.05, error=0.08, wins=0.9, changed=2.0), "by 5.0% only, +- 8.0%"),
        (Compared(better=0.05, error=0.01, wins=0.4, changed=2.0), "by 5.0% only"),
        (Compared(better=0.05, error=0.01, wins=0.9, changed=2.0), None),
    ],
)
def test_a_candidate_must_be_better_by_a_margin_on_most_photographs_and_change_something(compared, why):
    assert (compared.why_not is None) == (why is None)
    assert why is None or why in compared.why_not


def test_photographs_are_compared_in_pairs():
    images = torch.zeros(3, 1, 3, 4, 4)
    before = list(zip(images, (-1.0, -3.0, -5.0), strict=True))
    after = list(zip(images + 1 / 255, (-1.1, -3.1, -5.1), strict=True))
    found = compare(before, after)
    assert (found.better, found.wins, found.changed) == pytest.approx((0.1, 1.0, 1.0), rel=1e-3)
    assert found.error < 1e-6  # the photographs differ, the differences do not


def test_nothing_gained_is_said_in_plain_words():
    assert (
        Judgement(None, {}, 5).sentence()
        == "rejected: training gained nothing. The result is the model you began with."
    )


def test_a_reader_alone_restores_as_before(tiny_pipeline_folder):
    begun, trained = (BDDiffPipeline.from_pretrained(tiny_pipeline_folder) for _ in range(2))
    for network in trained.components.values():
        for weight in getattr(network, "parameters", list)():
            weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    kernel, noise = gaussian(torch.tensor([1.0])), {"generator": torch.Generator().manual_seed(0)}
    expected = begun(image, kernels=kernel, output_type="pt", **noise).images
    trained_reads = trained.encode_image(image * 2 - 1, fast=True).kernels
    merged = with_reader(begun, trained)
    noise = {"generator": torch.Generator().manual_seed(0)}
    assert torch.equal(merged(image, kernels=kernel, output_type="pt", **noise).images, expected)
    assert torch.equal(merged.encode_image(image * 2 - 1, fast=True).kernels, trained_reads)
    assert READER != WHOLE
