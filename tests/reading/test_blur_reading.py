"""Kernel and picture improve each other after the search, where there is a shake."""

import pytest
import torch
from bd_diff_toys.short_search import short_search

from bd_diff.blur.camera import compress, to_display, to_light
from bd_diff.blur.kernels import blur, delta, gaussian, line, shake
from bd_diff.data.pixels import luminance
from bd_diff.data.procedural import procedural_image
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading import blur_reading, confidence
from bd_diff.reading.blur_reading import Rivals, certain, shows_blocks
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import KEPT, reblur_residual, search_evidence
from bd_diff.reading.refinement import refine


@pytest.fixture(scope="module")
def shaken():
    """A sharp scene in [-1, 1], the same shaken by 14 pixels, and the kernel."""
    sharp = procedural_image(288, torch.Generator().manual_seed(3))[None] * 2 - 1
    kernel = shake(torch.tensor([14.0]), torch.Generator().manual_seed(4))
    return sharp[..., 16:-16, 16:-16], blur(sharp, kernel, mode="valid"), kernel


@pytest.fixture(scope="module")
def found(shaken):
    """What the search finds in the shaken scene."""
    return search_evidence(luminance(reduce_noise((shaken[1] + 1) / 2)))


@pytest.fixture
def refining(tiny_pipeline):
    """The untrained pipeline, which searches and refines once."""
    return BDDiffPipeline(**tiny_pipeline.components, refinements=1)


def set_confidence(pipeline, monkeypatch, confidence):
    encode = pipeline.image_encoder.encode_blur

    def confident(*given):
        features = encode(*given)
        features.confidence = torch.full_like(features.confidence, confidence)
        return features

    monkeypatch.setattr(pipeline.image_encoder, "encode_blur", confident)


def test_a_cloud_read_of_a_shake_is_not_certain_and_what_can_be_right_is(shaken):
    sharp, blurry, _ = shaken
    light = (luminance(blurry) + 1) / 2
    cloud, soft = gaussian(torch.tensor([3.5])), gaussian(torch.tensor([1.5]))
    assert not certain(cloud, light)
    straight = line(torch.tensor([12.0]), torch.tensor([0.4]))
    assert certain(delta(1), light) and not certain(straight, light)
    softened, moved = (blur((luminance(sharp) + 1) / 2, kernel) for kernel in (soft, straight))
    assert certain(soft, softened) and not certain(cloud, softened) and certain(straight, moved)


def test_two_pulses_that_look_like_a_line_are_searched(shaken):
    sharp, *_ = shaken
    pulses = torch.zeros(1, 33, 33)
    pulses[0, 16, 7] = pulses[0, 16, 25] = 0.5
    doubled = blur((luminance(sharp) + 1) / 2, pulses)
    assert not certain(line(torch.tensor([26.0]), torch.tensor([0.0])), doubled)


@pytest.mark.parametrize("sure", [True, False])
def test_the_search_ends_early_where_the_reading_without_it_is_certain(refining, shaken, monkeypatch, sure):
    given = []
    monkeypatch.setattr(blur_reading, "certain", lambda *_: sure)
    monkeypatch.setattr(blur_reading, "search_evidence", lambda light, rival: given.append(rival))
    free = refining.read_blur(shaken[1])
    reading = blur_reading.search_blur(refining, shaken[1], free=free)
    assert (given[0] is free.kernels) == sure and (given[0] is None) != sure
    assert torch.equal(reading.kernels, free.kernels) and not reading.doubtful


def test_the_kernel_kept_is_refined_from_the_one_that_explains_most(refining, shaken, found, monkeypatch):
    _, blurry, _ = shaken
    light = (luminance(blurry) + 1) / 2
    given, seen = [], []

    def watched(pipeline, window, kernels, linear=False):
        given.append(kernels)
        seen.append(refine(pipeline, window, kernels, linear))
        return seen[-1]

    monkeypatch.setattr(blur_reading, "refine", watched)
    monkeypatch.setattr(blur_reading, "refine_in_their_light", lambda *given: (watched(*given), False))
    set_confidence(refining, monkeypatch, 0.9)
    monkeypatch.setattr(refining, "tell", lambda reading: reading)  # an untrained decoder tells another kernel
    monkeypatch.setattr(blur_reading, "uncertain", lambda *_: torch.tensor([False]))
    reading = refining.encode_image(blurry, found=found)
    assert [len(kernels) for kernels in seen] == [1 + KEPT[0], 1]  # from the reading and all hypotheses; once more
    assert torch.equal(reading.kernels, seen[-1])
    start = reblur_residual(light, given[-1])
    assert all(start <= reblur_residual(light, kernel[None]) for kernel in torch.cat([given[0][:1], seen[0]]))


def test_soft_blur_is_not_refined(refining, tiny_pipeline, shaken, found, monkeypatch):
    set_confidence(refining, monkeypatch, 0.2)
    monkeypatch.setattr(blur_reading, "CLEARLY", 0)
    for name in ("refine", "refine_in_their_light"):
        monkeypatch.setattr(blur_reading, name, lambda *given: pytest.fail("soft blur was refined"))
    refined, plain = (pipeline.encode_image(shaken[1], found=found) for pipeline in (refining, tiny_pipeline))
    assert torch.equal(refined.kernels, plain.kernels)


@pytest.mark.parametrize("path", [False, True])
def test_where_a_cloud_was_read_that_may_be_a_path_confidence_counts_more(refining, shaken, found, monkeypatch, path):
    set_confidence(refining, monkeypatch, 0.2)
    monkeypatch.setattr(blur_reading, "CLEARLY", 0)
    monkeypatch.setattr(blur_reading, "seems_path", lambda *_: path)
    seen = []
    monkeypatch.setattr(blur_reading, "refine", lambda *given: seen.append(given) or refine(*given))
    monkeypatch.setattr(blur_reading, "uncertain", lambda *_: torch.tensor([False]))
    reading = refining.encode_image(shaken[1], found=found)
    assert bool(seen) == path and float(reading.search_confidence) == pytest.approx(0.4 if path else 0.2)


@pytest.mark.parametrize("path", [False, True])
def test_where_a_cloud_was_read_the_search_goes_on_to_its_end(refining, shaken, monkeypatch, path):
    rivals = []
    monkeypatch.setattr(blur_reading, "certain", lambda *_: True)
    monkeypatch.setattr(blur_reading, "seems_path", lambda *_: path)
    monkeypatch.setattr(blur_reading, "search_evidence", lambda light, rival: rivals.append(rival))
    blur_reading.search_blur(refining, shaken[1])
    assert (rivals[0] is None) == path


def test_what_may_be_a_path_is_not_in_doubt_for_finding_none(refining, shaken, found, monkeypatch):
    monkeypatch.setattr(blur_reading, "CLEARLY", 0)
    monkeypatch.setattr(blur_reading, "seems_path", lambda *_: True)
    monkeypatch.setattr(blur_reading, "certain", lambda *_: False)
    monkeypatch.setattr(blur_reading, "contradict", lambda *_: torch.tensor([False]))
    monkeypatch.setattr(blur_reading, "uncertain", lambda *_: torch.tensor([True]))
    free = refining.encode_image(shaken[1], fast=True)
    for trust, doubtful in ((0.2, False), (0.4, True)):
        set_confidence(refining, monkeypatch, trust)
        reading = refining.encode_image(shaken[1], found=found)
        assert torch.equal(reading.kernels, free.kernels) and reading.doubtful == doubtful
        assert float(reading.search_confidence) == pytest.approx(trust)  # no path was found


def test_a_hypothesis_that_explains_clearly_more_is_refined_without_trust(refining, shaken, found, monkeypatch):
    set_confidence(refining, monkeypatch, 0.2)  # an untrained decoder's kernels explain little
    seen = []
    monkeypatch.setattr(blur_reading, "refine", lambda *given: seen.append(given) or refine(*given))
    refining.encode_image(shaken[1], found=found)
    assert len(seen) == 1


@pytest.mark.parametrize("confidence", [0.2, 0.9])
def test_where_uncertain_the_reading_without_the_search_stays_in_doubt(
    refining, shaken, found, monkeypatch, confidence
):
    set_confidence(refining, monkeypatch, confidence)
    free = refining.encode_image(shaken[1], fast=True)
    monkeypatch.setattr(blur_reading, "uncertain", lambda *_: torch.tensor([True]))
    for plausible in (False, True):  # what can be right by itself is not put in doubt by a search that finds nothing
        monkeypatch.setattr(blur_reading, "certain", lambda *_, so=plausible: so)
        reading = refining.encode_image(shaken[1], found=found)
        assert torch.equal(reading.kernels, free.kernels) and reading.doubtful != plausible and not reading.linear
    monkeypatch.setattr(blur_reading, "uncertain", lambda *_: torch.tensor([False]))
    agreed = refining.encode_image(shaken[1], found=found)
    assert not torch.equal(agreed.kernels, free.kernels) and not agreed.doubtful


def test_the_reading_without_the_search_stays_unless_another_explains_more(refining, shaken, found, monkeypatch):
    set_confidence(refining, monkeypatch, 0.9)
    free = refining.encode_image(shaken[1], fast=True)
    for module in (blur_reading, confidence):
        monkeypatch.setattr(module, "BETTER", 0.0)
    assert torch.equal(refining.encode_image(shaken[1], found=found).kernels, free.kernels)


@short_search()
def test_a_batch_equals_its_singles_with_refinement(refining, shaken, monkeypatch):
    set_confidence(refining, monkeypatch, 0.9)
    sharp, blurry, _ = shaken
    images = torch.cat([blurry, sharp])
    batch = refining.encode_image(images)
    for index in range(2):
        single = refining.encode_image(images[index, None])
        for name in ("tokens", "kernels", "search_confidence", "doubtful"):
            together, alone = getattr(batch, name)[index].float(), getattr(single, name)[0].float()
            assert torch.allclose(together, alone, atol=1e-6), name


@pytest.mark.parametrize(("rounded", "apart"), [(False, 1e-5), (True, 0.02)])
def test_a_window_is_deblurred_as_the_pipeline_does_it(tiny_pipeline, shaken, monkeypatch, rounded, apart):
    monkeypatch.setattr("bd_diff.models.unet.has_bfloat16", lambda: rounded)
    blurry = shaken[1][..., :200, :203]  # no multiple of the networks' step
    reading = tiny_pipeline.encode_image(blurry, fast=True)
    shape = tiny_pipeline.latent_shape(tiny_pipeline.grid(200, 203, 0), 1)
    given = dict(fast=True, num_inference_steps=1, output_type="pt")
    expected = tiny_pipeline((blurry + 1) / 2, latents=torch.zeros(shape), **given).images
    random = torch.get_rng_state()
    result = tiny_pipeline.deblur_window(blurry, reading.kernels)
    assert torch.allclose((result + 1) / 2, expected, atol=apart)
    assert torch.equal(random, torch.get_rng_state())


def test_the_number_of_refinements_is_saved(refining, tmp_path):
    refining.save_pretrained(tmp_path)
    assert BDDiffPipeline.from_pretrained(tmp_path).config.refinements == 1


def test_rivals_are_compared_by_what_they_leave_of_the_light_they_are_seen_in(shaken):
    sharp, _, kernel = shaken
    lit = to_display(blur(to_light((sharp + 1) / 2, "srgb"), kernel), "srgb")
    wrong = kernel.flip(1, 2)
    for linear in (False, True):
        rivals = Rivals(lit, linear, [delta(1), wrong])
        assert rivals.best_found() == 1 and rivals.share(delta(1)) == 1
        rivals.add(kernel)
        assert rivals.best() == rivals.best_found() == 2
    assert shows_blocks(compress(lit, 60)) and not shows_blocks(lit)
    display, light = (float(Rivals(lit, linear, [delta(1), kernel]).left()[1]) for linear in (False, True))
    assert light < display < 1
