"""Where the corners of a photograph contradict its kernel, they vote."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.kernels import blur, line
from bd_diff.blur.operator import wiener
from bd_diff.data.procedural import procedural_image
from bd_diff.reading import corner_search
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.corner_search import ask_corners, astray, voted

SIDE = 192  # pixels
RIGHT, NEARLY, THING, OTHER, ANOTHER = (
    line(torch.tensor([13.0]), torch.tensor([angle])) for angle in (0.2, 0.22, 1.0, 1.8, 2.6)
)


@pytest.fixture
def vote(monkeypatch):
    """What is voted where the search finds these kernels at the corners; and that it looks at the corners."""

    def run(found, *seen, doubted=()):
        remaining, windows = list(seen), []

        def search(pipeline, window):
            windows.append(window)
            kernels = remaining.pop(0)
            return BlurReading(kernels, doubtful=torch.tensor([any(kernels is one for one in doubted)]))

        monkeypatch.setattr(corner_search, "search_blur", search)
        numbered = torch.arange(240 * 320.0).view(1, 1, 240, 320).expand(-1, 3, -1, -1)
        winner = voted(SimpleNamespace(tell=lambda reading: reading), numbered, BlurReading(found), SIDE)
        assert {tuple(one.shape[-2:]) for one in windows} == {(SIDE, SIDE)}
        assert [int(one[0, 0, 0, 0]) for one in windows] == [0, 320 - SIDE, 48 * 320, 48 * 320 + 320 - SIDE]
        return winner if winner is None else winner.kernels

    return run


def test_what_several_corners_see_wins_against_what_one_window_saw(vote):
    assert torch.equal(vote(THING, OTHER, RIGHT, RIGHT, NEARLY), RIGHT)


def test_what_was_found_stays_where_most_agree_with_it(vote):
    assert torch.equal(vote(RIGHT, RIGHT, OTHER, OTHER, RIGHT), RIGHT)


def test_corners_in_doubt_abstain(vote):
    assert torch.equal(vote(RIGHT, OTHER, OTHER, OTHER, NEARLY, doubted=[OTHER]), RIGHT)


def test_no_kernel_wins_where_no_two_windows_agree(vote):
    assert vote(THING, OTHER, RIGHT, ANOTHER, OTHER.mT) is None


def test_one_corner_that_shows_nothing_contradicts_nothing():
    assert not astray(RIGHT, torch.cat([OTHER, RIGHT, NEARLY, RIGHT]))
    assert astray(RIGHT, torch.cat([OTHER, RIGHT, ANOTHER, THING]))


@pytest.mark.parametrize(("voice", "doubted"), [(RIGHT, False), (None, True)])
def test_a_kernel_that_the_corners_contradict_is_voted_on_and_else_in_doubt(monkeypatch, voice, doubted):
    pixels = blur(procedural_image(320, torch.Generator().manual_seed(0), "leaves")[None] * 2 - 1, RIGHT)
    sharpened = lambda pixels, kernels: wiener(pixels, kernels)[:, 1].clamp(-1, 1)  # noqa: E731
    winner = None if voice is None else BlurReading(voice, linear=torch.tensor([True]))
    monkeypatch.setattr(corner_search, "voted", lambda pipeline, pixels, found, side: winner)
    sure = {"search_confidence": torch.ones(1), "doubtful": torch.tensor([False])}
    reader = SimpleNamespace(deblur_window=sharpened)
    stays, _ = ask_corners(reader, pixels, BlurReading(RIGHT, **sure))
    assert stays.kernels is RIGHT and not stays.doubtful
    asked, differs = ask_corners(reader, pixels, BlurReading(OTHER, **sure))
    assert bool(asked.doubtful) == doubted and torch.equal(asked.kernels, OTHER if doubted else RIGHT) and not differs
    assert is_linear(asked) != doubted  # the winner's kernel and its light
