import pytest
import torch
from bd_diff_toys.adarevd import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from bd_diff.data.tiles import Grid, even_tile, tile_starts, tile_windows


@settings(deadline=None, max_examples=200)
@given(length=st.integers(1, 300), tile=st.sampled_from([16, 32, 48, 96]), overlap=st.sampled_from([0, 8, 15]))
def test_weights_sum_to_one_at_every_pixel_of_any_side(length, tile, overlap):
    total = torch.zeros(length)
    for start, window in zip(tile_starts(length, tile, overlap), tile_windows(length, tile, overlap), strict=True):
        assert window.min() > 0
        total[start : start + len(window)] += window
    torch.testing.assert_close(total, torch.ones(length))


@pytest.mark.parametrize("length", [16, 384, 385, 400, 415, 737, 752, 767, 1104, 1280, 2160, 4096])
def test_released_tiles_cover_the_sides_that_the_released_code_got_wrong(length):
    starts = tile_starts(length, 384, 32)
    assert starts[0] == 0 and starts[-1] + min(384, length) == length
    assert all(after - before <= 352 for before, after in zip(starts, starts[1:], strict=False))
    windows = tile_windows(length, 384, 32)
    assert windows[0, 0] == 1 and windows[-1, -1] == 1  # not lowered at the image's border
    if length <= 384:
        assert torch.equal(windows, torch.ones(1, length))


def test_a_720p_frame_is_cut_as_the_released_code_cuts_it():
    assert tile_starts(720, 384, 32) == [0, 336]
    assert tile_starts(1280, 384, 32) == [0, 352, 704, 896]


@pytest.mark.parametrize("height, width", [(16, 16), (80, 48), (112, 144)])
def test_cutting_and_pasting_gives_the_map_back(height, width):
    grid, image = Grid(height, width, 48, 16), noise(3, height, width)
    canvas = torch.zeros_like(image)
    grid.paste(canvas, grid.cut(image, range(len(grid))), range(len(grid)))
    torch.testing.assert_close(canvas, image)


def test_tiles_of_feature_maps_line_up_with_those_of_the_image():
    grid = Grid(112, 144, 48, 16)
    rows = torch.arange(112.0)[:, None].expand(112, 144)
    image = torch.stack([rows, torch.arange(144.0).expand(112, 144)])
    for scale in (2, 4, 16):
        coarse = image[:, ::scale, ::scale]
        tiles = grid.cut(coarse, range(len(grid)))
        assert torch.equal(tiles, grid.cut(image, range(len(grid)))[:, :, ::scale, ::scale])


def test_an_overlap_as_large_as_the_tile_is_refused():
    with pytest.raises(ValueError, match="overlap is 32 and tile 32"):
        Grid(64, 64, 32, 32)


@settings(deadline=None, max_examples=100)
@given(length=st.integers(1, 600).map(lambda count: 8 * count), tile=st.sampled_from([192, 768]))
def test_even_tiles_are_as_many_as_large_ones_and_share_hardly_more_than_the_overlap(length, tile):
    even = even_tile(length, tile, 96, 8)
    starts = tile_starts(length, even, 96)
    assert even <= max(tile, 8) and even % 8 == 0 and len(starts) == len(tile_starts(length, tile, 96))
    assert all(after - before >= even - 96 - 8 * len(starts) for before, after in zip(starts, starts[1:], strict=False))
