"""Judging without truth: what explains unseen photographs better is kept, all else gives back what one began with."""

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.adaptation.candidates import with_reader
from bd_diff.adaptation.judge import Compared, Judgement, compare, judge
from bd_diff.blur.kernels import blur, disc, gaussian
from bd_diff.data.images import read_image, to_tensor


@pytest.mark.parametrize(
    ("compared", "why"),
    [
        (Compared(better=0.05, error=0.01, wins=0.9, changed=0.1, photographs=8), "hardly differ"),
        (Compared(better=-0.05, error=0.01, wins=0.1, changed=2.0, photographs=8), "less sharp, by 5.0%"),
        (Compared(better=0.05, error=0.04, wins=0.9, changed=2.0, photographs=8), "by 5.0% only, +- 4.0%"),
        (Compared(better=0.05, error=0.01, wins=0.4, changed=2.0, photographs=8), "by 5.0% only"),
        (
            Compared(better=-0.05, error=0.01, wins=0.1, changed=2.0, photographs=8, by_kernel=True),
            "worse explained, by 5.0%",
        ),
        (
            Compared(better=0.008, error=0.006, wins=0.9, changed=2.0, photographs=8, by_kernel=True),
            "by 0.8% only, +- 0.6%",
        ),
        (Compared(better=0.008, error=0.004, wins=0.9, changed=2.0, photographs=8, by_kernel=True), None),
        (Compared(better=0.05, error=0.01, wins=0.9, changed=2.0, photographs=8), None),
        # Student's t at 95 %: 1.89 standard errors of eight photographs, 2.35 of four.
        (Compared(better=0.05, error=0.027, wins=0.9, changed=2.0, photographs=8), "by 5.0% only"),
        (Compared(better=0.05, error=0.026, wins=0.9, changed=2.0, photographs=8), None),
        (Compared(better=0.05, error=0.022, wins=0.9, changed=2.0, photographs=4), "by 5.0% only"),
        (Compared(better=0.05, error=0.021, wins=0.9, changed=2.0, photographs=4), None),
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


def test_a_picture_of_one_colour_says_nothing_and_results_that_are_none_are_rejected():
    nothing, image = -float("inf"), torch.zeros(1, 3, 4, 4)
    before = [(image, nothing), (image, 0.0), (image, 0.0), (image, 0.0)]
    after = [(image + 0.1, nothing), (image + 0.1, 0.9), (image + 0.1, -0.001), (image + 0.1, -0.001)]
    assert compare(before, after).photographs == 3 and "worse explained" in compare(before, after).why_not
    assert compare(before[:1], after[:1]).why_not is not None
    for score, made in ((float("nan"), image), (nothing, image), (-0.5, image * float("nan"))):
        assert "no photographs" in compare(before[1:], [*after[1:3], (made, score)]).why_not


def test_nothing_gained_is_said_in_plain_words():
    assert (
        Judgement(None, {}, 5).sentence()
        == "rejected: training gained nothing. The result is the model you began with."
    )


def test_a_kernel_that_is_kept_is_said_to_explain_and_not_to_sharpen():
    kernel, trained = (Compared(0.03, 0.01, 0.9, 2.0, 8, by_kernel) for by_kernel in (True, False))
    assert "are explained better, by 3.0% on average" in Judgement("lens", {"lens": kernel}, 8).sentence()
    assert "are explained better or sharper, by 3.0%" in Judgement("whole", {"whole": trained}, 8).sentence()


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


def test_where_kernels_alone_differ_the_right_one_wins_over_wider_and_narrower_ones():
    pipeline = BDDiffPipeline.from_pretrained()

    class Knowing:
        """The pipeline with a disc of this radius as its kernel."""

        def __init__(self, radius):
            self.kernel = disc(torch.tensor([radius]))

        def set_progress_bar_config(self, disable):
            pipeline.set_progress_bar_config(disable=disable)

        def __call__(self, image, **given):
            return pipeline(image, kernels=self.kernel, **given)

    sharp = to_tensor(read_image(ROOT / "assets/sharp/gb82_dog.webp"))[None, :, 100:260, 100:260].float()
    photograph = blur(sharp, disc(torch.tensor([3.0])), "valid")
    right, wide, narrow = Knowing(3.0), Knowing(3.8), Knowing(2.4)
    found = judge(right, {"wide": wide, "narrow": narrow}, [photograph], by_kernel=True)
    assert max(one.better for one in found.compared.values()) < 0
    assert judge(wide, {"right": right}, [photograph], by_kernel=True).kept == "right"
