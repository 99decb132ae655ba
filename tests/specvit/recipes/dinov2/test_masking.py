"""Which patches are hidden from the student."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specvit.recipes.dinov2.masking import _block_mask, _draw_block, sample_masks

from .plain_masks import plain_masks


def _masks(num_crops: int, *, seed: int = 0, grid: tuple[int, int] = (16, 16), **changes: object) -> NDArray[np.bool_]:
    asked = {"probability": 0.5, "ratio": (0.1, 0.5), **changes}
    return sample_masks(num_crops, grid=grid, rng=np.random.default_rng(seed), **asked)  # type: ignore[arg-type]


def test_half_of_the_crops_are_masked_and_the_others_are_whole() -> None:
    masks = _masks(64)
    assert masks.shape == (64, 256)
    assert masks.dtype == np.bool_
    assert int(masks.any(axis=1).sum()) == 32


@pytest.mark.parametrize(("num_crops", "probability", "masked"), [(7, 0.5, 3), (8, 0.0, 0), (8, 1.0, 8), (1, 0.5, 0)])
def test_the_number_of_masked_crops_is_the_share_rounded_down(
    num_crops: int, probability: float, masked: int
) -> None:
    assert int(_masks(num_crops, probability=probability).any(axis=1).sum()) == masked


def test_masked_shares_are_stratified_over_the_range() -> None:
    num_strata = 20
    for seed in range(5):
        shares = np.sort(_masks(2 * num_strata, seed=seed, grid=(32, 32)).mean(axis=1))[num_strata:]
        edges = np.linspace(0.1, 0.5, num_strata + 1)
        # Rounded to whole patches, of 1,024. Blocks that do not fit leave a crop short, but rarely.
        assert (shares <= edges[1:] + 0.5 / 1024).all()
        within = shares >= edges[:-1] - 0.5 / 1024
        assert within.mean() >= 0.9
        assert (shares >= 0.1 - 0.02).all()


@given(
    height=st.integers(1, 12), width=st.integers(1, 12), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**32)
)
def test_a_mask_never_hides_more_patches_than_asked_for(height: int, width: int, share: float, seed: int) -> None:
    num_patches = round(share * height * width)
    mask = _block_mask((height, width), num_patches, np.random.default_rng(seed))
    assert mask < 1 << height * width
    assert mask.bit_count() <= num_patches


@given(size=st.integers(4, 16), max_new=st.integers(4, 100), seed=st.integers(0, 2**32))
def test_a_block_is_a_rectangle_of_an_allowed_shape(size: int, max_new: int, seed: int) -> None:
    block = _draw_block((size, size), 0, max_new, np.random.default_rng(seed))
    mask = np.array([bool(block >> bit & 1) for bit in range(size * size)]).reshape(size, size)
    added = int(mask.sum())
    assert added == block.bit_count() <= max_new
    if added:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = len(rows), len(columns)
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert height * width == added
        # At least about four patches, and an aspect ratio of 0.3 to 1 / 0.3, both before rounding to whole sides.
        assert (height + 0.5) * (width + 0.5) >= 4
        assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
        assert (width - 0.5) / (height + 0.5) <= 1 / 0.3


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    num_crops=st.integers(1, 20),
    probability=st.floats(0.0, 1.0),
    ratio=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(sorted).map(tuple),
    seed=st.integers(0, 2**32),
)
def test_masks_are_those_that_are_drawn_on_arrays_and_so_is_what_is_drawn_next(
    grid: tuple[int, int], num_crops: int, probability: float, ratio: tuple[float, float], seed: int
) -> None:
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    masks, plain = (
        draw(num_crops, grid=grid, probability=probability, ratio=ratio, rng=rng)
        for draw, rng in zip((sample_masks, plain_masks), rngs, strict=True)
    )
    np.testing.assert_array_equal(masks, plain)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state


def test_masks_consist_of_blocks_not_of_scattered_patches() -> None:
    masks = _masks(100, probability=1.0, ratio=(0.3, 0.3)).reshape(-1, 16, 16)
    # Of two patches side by side where one is hidden: with scattered ones, the other is hidden in 30%.
    left, right = masks[:, :, :-1], masks[:, :, 1:]
    assert (left & right).sum() / left.sum() > 0.6


def test_masks_differ_between_crops_and_depend_on_the_generator_alone() -> None:
    masks = _masks(64, probability=1.0)
    assert len(np.unique(masks, axis=0)) == 64
    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(masks, _masks(64, probability=1.0))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert (masks != _masks(64, seed=1, probability=1.0)).any()


def test_which_crops_are_masked_and_how_much_is_random() -> None:
    masked = np.stack([_masks(8, seed=seed).any(axis=1) for seed in range(200)])
    # A share of 200 draws at one half has a standard error of 0.035.
    assert np.abs(masked.mean(axis=0) - 0.5).max() < 0.16
