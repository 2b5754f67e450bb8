"""A network over a large picture by tiles that overlap, so that memory stays bounded."""

from collections.abc import Callable

import torch
from torch import Tensor

TILE = 256  # px of what a network is given at once, along a side
MARGIN = 16  # px at a tile's edge that aren't used: what lies beyond them is missing there
BLEND = 32  # px over which one tile becomes the next
OVERLAP = 2 * MARGIN + BLEND


def by_tiles(
    network: Callable[[Tensor], Tensor], pixels: Tensor, scale: int, *, tile: int = TILE
) -> Tensor:
    """`network`, which gives pictures `scale` times as large, over pixels [1, channels, h, w].

    The result is in fp32 where `pixels` are. A picture of one tile goes through as a whole.
    """
    height, width = pixels.shape[-2:]
    if max(height, width) <= tile:
        return network(pixels).float().to(pixels.device)
    total = pixels.new_zeros(*pixels.shape[:2], height * scale, width * scale)
    weights = total.new_zeros(1, 1, *total.shape[-2:])
    for top in starts(height, tile):
        for left in starts(width, tile):
            piece = pixels[..., top : top + tile, left : left + tile]
            larger = network(piece).float().to(pixels.device)
            rows, columns = (
                _ramp(start, length, whole, scale)
                for start, length, whole in (
                    (top, piece.shape[-2], height),
                    (left, piece.shape[-1], width),
                )
            )
            weight = (rows[:, None] * columns).to(pixels.device)
            place = (
                ...,
                slice(top * scale, (top + piece.shape[-2]) * scale),
                slice(left * scale, (left + piece.shape[-1]) * scale),
            )
            total[place] += larger * weight
            weights[place] += weight
    return total / weights


def starts(length: int, tile: int = TILE) -> list[int]:
    """Where the tiles along a side begin; the last one ends with it."""
    if length <= tile:
        return [0]
    step = tile - OVERLAP
    return [*range(0, length - tile, step), length - tile]


def _ramp(start: int, length: int, whole: int, scale: int) -> Tensor:
    """The weight of a tile along one side: 0 in a margin, then up to 1; 1 at the picture's edge."""
    place = (torch.arange(length * scale) + 0.5) / scale
    weight = torch.ones(length * scale)
    if start > 0:
        weight *= ((place - MARGIN) / BLEND).clamp(0, 1)
    if start + length < whole:
        weight *= ((length - place - MARGIN) / BLEND).clamp(0, 1)
    return weight
