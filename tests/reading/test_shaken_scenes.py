"""Things that moved by themselves before a camera that shook stay as they are, and mislead nobody."""

import pytest
import torch

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import blur, delta, gaussian, shake
from bd_diff.reading import shaken_scenes
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.confidence import distances
from bd_diff.reading.pyramid import enlarged
from bd_diff.reading.shaken_scenes import around_things

SHAKE, OTHER = (shake(torch.tensor([14.0]), torch.Generator().manual_seed(seed)) for seed in (0, 3))
EVERYWHERE = (slice(None), slice(None))


@pytest.fixture(scope="module")
def scene(leaves):
    """Something moved by itself at the right."""
    pixels = blur(leaves, SHAKE)
    pixels[..., 192:] = blur(leaves, OTHER)[..., 192:]
    return pixels


@pytest.fixture
def no_own_kernel(monkeypatch):
    monkeypatch.setattr(shaken_scenes, "find_thing", lambda *given: None)


def test_what_moved_by_itself_has_its_own_kernel(shipped, scene):
    reading, found = around_things(shipped, scene, BlurReading(SHAKE))
    assert isinstance(found, BlurField) and not reading.doubtful
    assert torch.equal(found.kernels[:1], reading.kernels) and float(distances(OTHER, found.kernels[1:])) < 0.02
    shares = found.shares_in(320, 320, *EVERYWHERE)
    assert torch.allclose(shares.sum(0), torch.ones(320, 320), atol=1e-6)
    assert shares[1, :, :140].mean() < 0.1 and shares[1, :, 240:].mean() > 0.8


def test_what_moved_by_itself_has_no_blur_where_its_kernel_is_not_found(shipped, scene, no_own_kernel):
    reading, found = around_things(shipped, scene, BlurReading(SHAKE))
    assert isinstance(found, BlurField) and torch.equal(found.kernels[1:], delta(1)) and not reading.doubtful
    shares = found.shares_in(320, 320, *EVERYWHERE)
    assert torch.allclose(shares.sum(0), torch.ones(320, 320), atol=1e-6)
    assert shares[1, :, :140].mean() < 0.1 and shares[1, :, 240:].mean() > 0.8


def test_no_thing_is_looked_for_where_nothing_contradicts_the_kernel(shipped, scene):
    reading, found = around_things(shipped, scene, BlurReading(SHAKE), contradicted=False)
    assert found is reading.kernels and reading.doubtful is None


def test_where_nothing_moved_by_itself_there_is_one_kernel(shipped, leaves):
    reading, found = around_things(shipped, blur(leaves, SHAKE), BlurReading(SHAKE))
    assert isinstance(found, torch.Tensor) and torch.equal(found, reading.kernels) and not reading.doubtful


def test_the_kernel_is_improved_where_it_holds(shipped, scene, no_own_kernel):
    nearly = blur(SHAKE[:, None], gaussian(torch.tensor([1.3])))[:, 0]
    before = float(distances(SHAKE, nearly))
    reading, _ = around_things(shipped, scene, BlurReading(nearly))
    assert float(distances(SHAKE, reading.kernels)) < 0.5 * before


@pytest.mark.parametrize(("extent", "taken"), [(14.0, True), (28.0, False)])
def test_a_better_kernel_is_taken_but_none_that_has_become_much_wider(leaves, monkeypatch, extent, taken):
    true = shake(torch.tensor([extent]), torch.Generator().manual_seed(3))
    monkeypatch.setattr(shaken_scenes, "refine", lambda *_, **__: true)
    kernel, _ = shaken_scenes.improved(None, (blur(leaves, true) + 1) / 2, SHAKE, linear=False)
    assert kernel is (true if taken else SHAKE)


def test_a_kernel_that_holds_nowhere_is_in_doubt(shipped, leaves):
    reading, found = around_things(shipped, leaves, BlurReading(SHAKE))
    assert reading.doubtful and isinstance(found, torch.Tensor)


def test_from_a_mirrored_kernel_the_right_one_is_found(shipped, leaves):
    reading, _ = around_things(shipped, blur(leaves, SHAKE), BlurReading(SHAKE.flip(1)))
    assert not reading.doubtful and float(distances(SHAKE, reading.kernels)) < 0.01


def test_of_a_kernel_like_its_copies_nothing_is_known(shipped, scene):
    round_one = gaussian(torch.tensor([1.8]))
    reading, found = around_things(shipped, scene, BlurReading(round_one))
    assert found is round_one and reading.kernels is round_one


def test_in_a_large_photograph_things_are_found_at_a_smaller_scale_and_the_kernel_stays(shipped, scene, monkeypatch):
    monkeypatch.setattr(shaken_scenes, "LONGEST", 320)
    large = torch.nn.functional.interpolate(scene, scale_factor=1.5, mode="bilinear")
    kernels = enlarged(SHAKE, 1.5)
    reading, found = around_things(shipped, large, BlurReading(kernels))
    assert isinstance(found, BlurField) and reading.kernels is kernels and torch.equal(found.kernels[:1], kernels)
    shares = found.shares_in(480, 480, *EVERYWHERE)
    assert shares[1, :, :210].mean() < 0.15 and shares[1, :, 360:].mean() > 0.7


@pytest.mark.parametrize("shape", [(200, 2400), (9000, 192)])
def test_nothing_is_looked_for_in_narrow_panoramas(shipped, shape):
    reading = BlurReading(SHAKE)
    assert around_things(shipped, torch.zeros(1, 3, *shape), reading) == (reading, SHAKE)
