"""Which patches are hidden from the student: blocks, as iBOT's.

Source: DINOv2, data/masking.py and data/collate.py (after BEiT). Deviations, for small grids: numbers of patches are
rounded to the nearest, not down; a block may span the crop; where fewer patches are missing than a block has at
least, a smaller block fills them, while there the draws of larger ones mostly fail and leave the mask short.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

MIN_BLOCK_PATCHES = 4
ASPECT_RATIO = (0.3, 1 / 0.3)
NUM_TRIES = 10

_LOG_RATIO = (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))


def sample_masks(
    num_crops: int,
    *,
    grid: tuple[int, int],
    probability: float,
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Draw the masks of a batch of crops.

    The shares that are masked are stratified: the range ``ratio`` is cut into as many equal parts as crops
    are masked, and each takes one part. Which crops are masked is random.

    Args:
        num_crops: Crops of the batch.
        grid: Patches per column and per row.
        probability: Share of the crops that are masked.
        ratio: Least and largest share of a masked crop's patches.
        rng: Where the randomness comes from.

    Returns:
        ``(num_crops, grid[0] * grid[1])`` bool, True = hidden.
    """
    num_masked = int(num_crops * probability)
    edges = np.linspace(*ratio, num_masked + 1)
    shares = rng.uniform(edges[:-1], edges[1:]).tolist()
    num_patches = grid[0] * grid[1]
    num_bytes = -(-num_patches // 8)
    masks = np.zeros((num_crops, num_patches), bool)
    hidden = [_block_mask(grid, round(share * num_patches), rng).to_bytes(num_bytes, "little") for share in shares]
    packed = np.frombuffer(b"".join(hidden), np.uint8).reshape(num_masked, num_bytes)
    masks[:num_masked] = np.unpackbits(packed, axis=1, count=num_patches, bitorder="little")
    return masks[rng.permutation(num_crops)]


def _block_mask(grid: tuple[int, int], num_patches: int, rng: np.random.Generator) -> int:
    """Cover about ``num_patches`` patches by random blocks, never more; return their bits, row by row from the lowest.

    Of a batch of 1,024 images five thousand blocks are drawn, one after the other: whole numbers are the fastest sets.
    """
    hidden = 0
    while (missing := num_patches - hidden.bit_count()) > 0:
        block = _draw_block(grid, hidden, missing, rng)
        if block == 0:
            break
        hidden |= block
    return hidden


def _draw_block(grid: tuple[int, int], hidden: int, max_new: int, rng: np.random.Generator) -> int:
    """Return the bits of a block that covers at most ``max_new`` patches beside the hidden ones; 0 if no draw fits."""
    height, width = grid
    low = min(MIN_BLOCK_PATCHES, max_new)
    for _ in range(NUM_TRIES):
        area = low + (max_new - low) * rng.random()
        ratio = math.exp(_LOG_RATIO[0] + (_LOG_RATIO[1] - _LOG_RATIO[0]) * rng.random())
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < h <= height and 0 < w <= width):
            continue
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        block = _rectangle(h, w, width) << (top * width + left)
        if 0 < (block & ~hidden).bit_count() <= max_new:
            return block
    return 0


@cache
def _rectangle(height: int, width: int, row_length: int) -> int:
    """Return the bits of a rectangle that begins at the lowest bit of a grid whose rows are so long."""
    return sum(((1 << width) - 1) << (row * row_length) for row in range(height))
