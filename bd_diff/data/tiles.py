"""Overlapping tiles of an image and its feature maps, and the weights that blend them."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

CONTEXT = 48  # pixels around a tile that its deconvolution sees
SMALLEST_TILE = 192  # pixels: below, a deconvolution is mostly border


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along a side: every `tile - overlap` pixels, the last shifted back to end with the side."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def even_tile(length: int, tile: int, overlap: int, multiple: int = 1) -> int:
    """The smallest tile, a `multiple`, of which a side needs no more than of `tile` pixels: the last one then shares
    `overlap` pixels with the one before, as all others do, and not nearly all of them.
    """
    count = len(tile_starts(length, tile, overlap))
    if count == 1:
        return tile
    return -(-(length + (count - 1) * overlap) // (count * multiple)) * multiple


def tile_windows(length: int, tile: int, overlap: int) -> Tensor:
    """Weights `(tiles, min(tile, length))` that sum to one at every pixel of the side.

    A window rises and falls linearly over what it shares with its neighbours, and is not lowered at the image's ends.
    """
    starts, tile = tile_starts(length, tile, overlap), min(tile, length)
    windows = torch.ones(len(starts), tile)
    for index, (before, after) in enumerate(zip(starts, starts[1:], strict=False)):
        shared = before + tile - after
        ramp = torch.arange(1, shared + 1) / (shared + 1)
        windows[index + 1, :shared] *= ramp
        windows[index, tile - shared :] *= 1 - ramp
    total = torch.zeros(length)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return torch.stack([w / total[start : start + tile] for start, w in zip(starts, windows, strict=True)])


class Grid:
    """The tiles of an image of `height` x `width` pixels, row by row.

    `tile`, of both sides or of each, and `overlap` are in pixels of the image; where feature maps are cut too, all four
    must be multiples of their scale, so that the tiles of every map line up.
    """

    def __init__(self, height: int, width: int, tile: int | tuple[int, int], overlap: int):
        high, wide = tile if isinstance(tile, tuple) else (tile, tile)
        if not 0 <= overlap < min(high, wide):
            raise ValueError(f"overlap is {overlap} and tile {tile}; the overlap must be from 0 to below the tile")
        self.height, self.width = height, width
        self.tile = min(high, height), min(wide, width)
        self.starts = [*product(tile_starts(height, high, overlap), tile_starts(width, wide, overlap))]
        self.windows = [*product(tile_windows(height, high, overlap), tile_windows(width, wide, overlap))]

    def __len__(self) -> int:
        return len(self.starts)

    def around(self, tile: int, context: int) -> tuple[tuple, tuple]:
        """Where the numbered tile lies with `context` pixels around it, and where the tile is in that: two indices."""
        (top, left), (high, wide) = self.starts[tile], self.tile
        above, before = min(top, context), min(left, context)
        region = (..., slice(top - above, top + high + context), slice(left - before, left + wide + context))
        return region, (..., slice(above, above + high), slice(before, before + wide))

    def cut(self, features: Tensor, tiles: Sequence[int]) -> Tensor:
        """The numbered tiles of a map `(..., h, w)`, whose sides divide the image's: `(len(tiles), ...)`."""
        scale = self.height // features.shape[-2]
        high, wide = self.tile[0] // scale, self.tile[1] // scale
        corners = [(self.starts[tile][0] // scale, self.starts[tile][1] // scale) for tile in tiles]
        return torch.stack([features[..., top : top + high, left : left + wide] for top, left in corners])

    def paste(self, canvas: Tensor, parts: Tensor, tiles: Sequence[int]) -> None:
        """Add the weighted tiles `(len(tiles), ...)` of a map to it, `canvas (..., h, w)`, in place."""
        scale = self.height // canvas.shape[-2]
        for part, tile in zip(parts, tiles, strict=True):
            top, left = (start // scale for start in self.starts[tile])
            rows, columns = (window[::scale].to(part) for window in self.windows[tile])
            canvas[..., top : top + len(rows), left : left + len(columns)] += part * (rows[:, None] * columns)
