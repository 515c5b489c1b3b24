"""Where the corners of a photograph contradict its kernel, they are searched, and the best against its copies wins."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.kernels import blur, gaussian, line, shake
from bd_diff.blur.operator import wiener
from bd_diff.reading import corner_search
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.corner_search import SECOND, ask_corners, astray, found_at_corners, lights_of

SIDE = 192  # pixels
RIGHT, NEARLY, THING, OTHER, ANOTHER = (
    line(torch.tensor([13.0]), torch.tensor([angle])) for angle in (0.2, 0.22, 1.0, 1.8, 2.6)
)
WALK, WRONG = (shake(torch.tensor([14.0]), torch.Generator().manual_seed(seed)) for seed in (0, 3))
ROUND = gaussian(torch.tensor([1.8]))
SURE = {"search_confidence": torch.ones(1), "doubtful": torch.tensor([False])}


@pytest.fixture(scope="module")
def blurry(leaves):
    return blur(leaves, RIGHT)


@pytest.fixture(scope="module")
def shaken(leaves):
    return blur(leaves, WALK)


@pytest.fixture
def found(blurry, monkeypatch):
    """What is found where the search finds these kernels at the corners, and in windows of which size."""

    def run(before, *seen):
        remaining, sides = list(seen), []

        def search(pipeline, window):
            sides.append(window.shape[-1])
            return BlurReading(remaining.pop(0))

        monkeypatch.setattr(corner_search, "search_blur", search)
        reader = SimpleNamespace(tell=lambda reading: reading)
        winner = found_at_corners(reader, blurry, [BlurReading(one) for one in before], SIDE)
        return winner if winner is None else winner.kernels, sides

    return run


def test_the_kernel_that_explains_best_against_its_copies_wins_by_itself(found):
    kernel, sides = found([THING], OTHER, RIGHT, OTHER, OTHER)
    assert torch.equal(kernel, RIGHT) and sides == 4 * [SIDE]


def test_what_was_found_stays_where_it_is_best(found):
    kernel, _ = found([RIGHT], OTHER, THING, OTHER, ANOTHER)
    assert torch.equal(kernel, RIGHT)


def test_larger_windows_are_searched_where_smaller_ones_find_nothing(found):
    kernel, sides = found([], OTHER, THING, ROUND, ANOTHER, OTHER, OTHER, RIGHT, THING)
    assert torch.equal(kernel, RIGHT) and sides == 4 * [SIDE] + 4 * [SECOND]


def test_no_kernel_wins_where_none_is_right(found):
    kernel, _ = found([THING], *2 * [OTHER, ANOTHER, ROUND, OTHER.mT])
    assert kernel is None


def test_one_corner_that_shows_nothing_contradicts_nothing():
    assert not astray(RIGHT, torch.cat([OTHER, RIGHT, NEARLY, RIGHT]))
    assert astray(RIGHT, torch.cat([OTHER, RIGHT, ANOTHER, THING]))


def asked(monkeypatch, pixels, reading, winner):
    """What `ask_corners` answers where this reading, or none, wins."""
    monkeypatch.setattr(corner_search, "found_at_corners", lambda pipeline, pixels, found, side: winner)
    sharpened = lambda pixels, kernels: wiener(pixels, kernels)[:, 1].clamp(-1, 1)  # noqa: E731
    return ask_corners(SimpleNamespace(deblur_window=sharpened), pixels, reading)


@pytest.mark.parametrize(("voice", "doubted"), [(WALK, False), (None, True)])
def test_a_kernel_that_the_corners_contradict_is_looked_for_and_else_in_doubt(monkeypatch, shaken, voice, doubted):
    winner = None if voice is None else BlurReading(voice, linear=torch.tensor([True]))
    stays, differs = asked(monkeypatch, shaken, BlurReading(WALK, **SURE), winner)
    assert stays.kernels is WALK and not stays.doubtful and not differs
    one, differs = asked(monkeypatch, shaken, BlurReading(WRONG, **SURE), winner)
    assert bool(one.doubtful) == doubted and torch.equal(one.kernels, WRONG if doubted else WALK)
    assert differs and is_linear(one) != doubted  # the winner's kernel and its light


def test_a_kernel_no_better_than_its_copies_is_looked_for_though_corners_refine_it_to_nothing_else(monkeypatch, shaken):
    monkeypatch.setattr(corner_search, "astray", lambda kernels, refined: False)
    one, differs = asked(monkeypatch, shaken, BlurReading(WRONG, **SURE), BlurReading(WALK))
    assert one.kernels is WALK and differs
    for kernel in (WALK, ROUND):  # of a round one nothing is known
        one, _ = asked(monkeypatch, shaken, BlurReading(kernel, **SURE), BlurReading(WRONG))
        assert one.kernels is kernel


def test_a_shake_in_doubt_is_looked_for_and_stays_so_where_none_is_right(monkeypatch, shaken):
    doubted = BlurReading(WRONG, search_confidence=torch.ones(1), doubtful=torch.tensor([True]))
    one, differs = asked(monkeypatch, shaken, doubted, BlurReading(WALK))
    assert one.kernels is WALK and not one.doubtful and differs
    assert asked(monkeypatch, shaken, doubted, None) == (doubted, False)
    wide = shake(torch.tensor([30.0]), torch.Generator().manual_seed(0))
    assert asked(monkeypatch, shaken, doubted, BlurReading(wide)) == (doubted, False)
    soft = BlurReading(WRONG, search_confidence=torch.zeros(1), doubtful=torch.tensor([True]))
    assert asked(monkeypatch, shaken, soft, BlurReading(WALK)) == (soft, False)  # no shake was seen


def test_where_a_line_wins_the_camera_turned(monkeypatch, shaken):
    one, _ = asked(monkeypatch, shaken, BlurReading(WRONG, **SURE), BlurReading(RIGHT))
    assert one.kernels is WRONG and not one.doubtful


def test_of_a_large_photograph_the_corners_are_seen():
    assert lights_of(torch.rand(1, 3, 320, 448)).shape == (1, 1, 320, 448)
    assert lights_of(torch.rand(1, 3, 900, 1200)).shape == (4, 1, 256, 256)
