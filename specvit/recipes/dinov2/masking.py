"""Which patches are hidden from the student: blocks, as iBOT's.

Source: DINOv2, data/masking.py and data/collate.py (after BEiT). Deviations, for small grids: numbers of patches are
rounded to the nearest, not down; a block may span the crop; where fewer patches are missing than a block has at
least, a smaller block fills them, while there the draws of larger ones mostly fail and leave the mask short.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

MIN_BLOCK_PATCHES = 4
ASPECT_RATIO = (0.3, 1 / 0.3)
NUM_TRIES = 10


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
    shares = [rng.uniform(low, high) for low, high in itertools.pairwise(edges)]
    shares += [0.0] * (num_crops - num_masked)
    masks = np.stack([_block_mask(grid, round(share * grid[0] * grid[1]), rng) for share in shares])
    return masks[rng.permutation(num_crops)]


def _block_mask(grid: tuple[int, int], num_patches: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Cover about ``num_patches`` patches by random blocks, never more."""
    mask = np.zeros(grid, dtype=bool)
    missing = num_patches
    while missing > 0:
        added = _add_block(mask, missing, rng)
        if added == 0:
            break
        missing -= added
    return mask.ravel()


def _add_block(mask: NDArray[np.bool_], max_new: int, rng: np.random.Generator) -> int:
    """Add one block to ``mask`` in place; return how many patches it newly covers, 0 if no draw fits."""
    height, width = mask.shape
    log_ratio = (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))
    for _ in range(NUM_TRIES):
        area = rng.uniform(min(MIN_BLOCK_PATCHES, max_new), max_new)
        ratio = math.exp(rng.uniform(*log_ratio))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < h <= height and 0 < w <= width):
            continue
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        block = mask[top : top + h, left : left + w]
        num_new = int(h * w - block.sum())
        if 0 < num_new <= max_new:
            block[:] = True
            return num_new
    return 0
