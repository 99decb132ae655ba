"""Masks drawn on arrays, patch by patch: what ``specvit.recipes.dinov2.masking`` draws faster, number by number."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from specvit.recipes.dinov2.masking import ASPECT_RATIO, MIN_BLOCK_PATCHES, NUM_TRIES


def plain_masks(
    num_crops: int,
    *,
    grid: tuple[int, int],
    probability: float,
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return what ``sample_masks`` returns, and leave the generator where it leaves it."""
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
