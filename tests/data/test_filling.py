"""A fill is what its plain definition gives, block by block, and finds its way into every corner."""

import numpy as np
import pytest
from scipy import ndimage

from bd_diff.data import filling
from bd_diff.data.filling import MIRRORED, SWEEPS, filled, spread

SHAPES = {
    "around an oval": lambda rows, columns: np.hypot(rows, columns) > 0.8,
    "a border": lambda rows, columns: rows + 0 * columns < -0.9,
    "letters": lambda rows, columns: (np.abs(rows) < 0.1) & (np.abs(columns) < 0.4),
    "every second pixel": lambda rows, columns: (
        np.random.default_rng(1).random(np.broadcast(rows, columns).shape) > 0.5
    ),
}


def picture(height, width):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((height, width, 3)), (3, 3, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def plain_spread(pixels, valid):
    weight = valid[..., None].astype(np.float32)
    if min(valid.shape) <= 2 or valid.all():
        mean = (pixels * weight).sum((0, 1)) / max(weight.sum(), 1e-6)
        return np.where(valid[..., None], pixels, mean)
    height, width = valid.shape
    even = [(0, height % 2), (0, width % 2), (0, 0)]
    sums = [
        np.pad(one, even).reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3))
        for one in (pixels * weight, weight)
    ]
    coarse = plain_spread(sums[0] / np.maximum(sums[1], 1e-6), sums[1][..., 0] > 0)
    fine = ndimage.zoom(coarse, (2, 2, 1), order=1, mode="nearest", grid_mode=True)[:height, :width]
    for _ in range(SWEEPS):
        fine = ndimage.uniform_filter(np.where(valid[..., None], pixels, fine), (3, 3, 1), mode="nearest")
    return np.where(valid[..., None], pixels, fine)


def plain_fill(pixels, hidden):
    distance, (rows, columns) = ndimage.distance_transform_edt(hidden, return_indices=True)
    down, right = np.indices(hidden.shape)
    across = (2 * rows - down).clip(0, hidden.shape[0] - 1), (2 * columns - right).clip(0, hidden.shape[1] - 1)
    smooth = plain_spread(pixels, ~hidden)
    mirrored = np.where(hidden[across][..., None], smooth, 2 * pixels[rows, columns] - pixels[across])
    share = (1 - distance / MIRRORED).clip(0, 1)[..., None]
    return np.where(hidden[..., None], (smooth + share * (mirrored - smooth)).clip(0, 1), pixels)


@pytest.mark.parametrize("block", [16, 128])
@pytest.mark.parametrize("size", [(61, 90), (64, 64), (33, 7)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fill_in_blocks_is_the_plain_one(monkeypatch, shape, size, block):
    monkeypatch.setattr(filling, "BLOCK", block)
    pixels, (height, width) = picture(*size), size
    hidden = SHAPES[shape](*np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    assert np.abs(spread(pixels, ~hidden) - plain_spread(pixels, ~hidden)).max() < 1e-5
    assert np.abs(filled(pixels, hidden) - plain_fill(pixels, hidden)).max() < 1e-4


def test_what_is_visible_stays_as_it_is_and_nothing_is_filled_where_all_or_nothing_is_hidden():
    pixels = picture(20, 30)
    hidden = np.zeros((20, 30), bool)
    assert filled(pixels, hidden) is pixels and filled(pixels, ~hidden) is pixels
    hidden[5:9] = True
    assert np.array_equal(filled(pixels, hidden)[~hidden], pixels[~hidden])
