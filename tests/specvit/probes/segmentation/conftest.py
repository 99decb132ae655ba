from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from specvit.probes import ProbeSplit
from specvit.probes.segmentation.base import Training
from specvit.probes.selection import split_off_tenth

GRID, TILE, NUM_CLASSES = (3, 2), 4, 4


def _scenes(num_images: int, *, seed: int, dim: int = 7, noise: float = 1.0) -> ProbeSplit:
    """Make masks of tiles that are mostly of one class, some ignored, and tokens that hint at it."""
    directions = np.random.default_rng(99).normal(size=(NUM_CLASSES, dim))
    generator = np.random.default_rng(seed)
    main = generator.choice(NUM_CLASSES, size=(num_images, *GRID), p=(0.5, 0.3, 0.15, 0.05))
    masks = main.repeat(TILE, 1).repeat(TILE, 2)
    drawn = generator.random(masks.shape)
    masks = np.where(drawn < 0.2, generator.integers(NUM_CLASSES, size=masks.shape), masks)
    masks = np.where((drawn > 0.9) | (main == 3).repeat(TILE, 1).repeat(TILE, 2) & (drawn > 0.4), 255, masks)
    masks[::5, :TILE, :TILE] = 255
    tokens = directions[main.reshape(num_images, -1)] + 10
    patches = torch.from_numpy(tokens + noise * generator.normal(size=tokens.shape)).float()
    return ProbeSplit(
        cls=patches[:, 0], patches=patches, grid=GRID, labels=None, masks=torch.from_numpy(masks.astype(np.uint8))
    )


@pytest.fixture
def scenes() -> Callable[..., ProbeSplit]:
    return _scenes


@pytest.fixture
def training_of() -> Callable[..., Training]:
    def make(split: ProbeSplit, *, seed: int = 0) -> Training:
        fitted, held_out = split_off_tenth(len(split), split.labels, seed=seed)
        return Training(split=split, fitted=fitted, held_out=held_out, num_classes=NUM_CLASSES, seed=seed)

    return make
