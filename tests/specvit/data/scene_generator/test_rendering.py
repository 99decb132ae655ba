"""From scene descriptions to arrays."""

from __future__ import annotations

import numpy as np
import pytest

from specvit.data.base import Split
from specvit.data.scene_generator.categories import CATEGORIES
from specvit.data.scene_generator.rendering import SceneBatch, render
from specvit.data.scene_generator.sampling import num_draws, sample_scenes

SIZE = 32
_VARIETY = {"alike": 0.5, "ground_contrast": 0.5, "texture_rotation_deg": 20.0, "colour": 0.5, "light": 1.0}


@pytest.fixture(scope="module")
def scenes() -> SceneBatch:
    table = np.random.default_rng(5).random((40, num_draws(4)))
    return sample_scenes(table, num_objects=(2, 4), **_VARIETY)


@pytest.fixture(scope="module")
def rendered(scenes: SceneBatch) -> tuple[Split, np.ndarray]:
    return render(scenes, SIZE, np.zeros((len(scenes), 3, SIZE, SIZE), dtype=np.float32))


def _two_squares(*, first_depth: float, second_depth: float) -> SceneBatch:
    """Describe a grey scene: a large square in the middle, a small one on its right edge, all parallel."""
    square = next(index for index, category in enumerate(CATEGORIES) if "square" in category.name)
    disc = next(index for index, category in enumerate(CATEGORIES) if "disc" in category.name)
    unit = np.eye(2, dtype=np.float32)
    # A square has half a side of 0.707 in its own coordinates: here 0.5 and 0.25 of the scene's.
    shape_axes = np.stack([unit, unit * np.float32(0.707 / 0.5), unit * np.float32(0.798 / 0.25)])[None]
    depths = np.zeros((1, 3, 3), dtype=np.float32)
    depths[0, :, 0] = (10, first_depth, second_depth)
    return SceneBatch(
        categories=np.array([[square, disc]]),
        centres=np.array([[[0, 0], [0, 0], [0.5, 0]]], dtype=np.float32),
        shape_axes=shape_axes,
        texture_axes=np.zeros((1, 3, 2, 2), dtype=np.float32),
        phases=np.zeros((1, 3, 2), dtype=np.float32),
        depths=depths,
        colours=np.full((1, 3, 2, 3), 0.5, dtype=np.float32) * np.array([1, 0], dtype=np.float32)[:, None],
        light=np.tile(np.array([1, 0, 0], dtype=np.float32), (1, 3, 1)),
        haze=np.full((1, 3), 0.5, dtype=np.float32),
    )


@pytest.mark.parametrize(("second_depth", "square_pixels"), [(3.0, 256), (1.0, None)])
def test_square_behind_a_disc_loses_pixels_and_before_it_none(
    second_depth: float, square_pixels: int | None
) -> None:
    batch = _two_squares(first_depth=2.0, second_depth=second_depth)
    split, _ = render(batch, SIZE, np.zeros((1, 3, SIZE, SIZE), dtype=np.float32))
    assert split.masks is not None
    assert split.depth is not None
    assert split.labels is not None
    square, disc = (int(category) for category in batch.categories[0])
    visible = np.count_nonzero(split.masks[0] == square + 1)
    if square_pixels is not None:
        assert visible == square_pixels
    else:
        # A quarter of a unit is 4 pixels: half of a disc of that radius lies on the square.
        assert visible == pytest.approx(256 - np.pi * 4**2 / 2, abs=4)
    assert split.labels[0] == square
    assert set(np.unique(split.depth[split.masks == square + 1])) == {2.0}
    assert set(np.unique(split.depth[split.masks == disc + 1])) == {second_depth}
    assert set(np.unique(split.depth[split.masks == 0])) == {10.0}


def test_grey_scene_in_even_light_without_noise_is_grey() -> None:
    batch = _two_squares(first_depth=2.0, second_depth=3.0)
    split, _ = render(batch, SIZE, np.zeros((1, 3, SIZE, SIZE), dtype=np.float32))
    np.testing.assert_array_equal(split.images, np.full((1, 3, SIZE, SIZE), 128))


def test_boxes_enclose_visible_pixels_tightly(scenes: SceneBatch, rendered: tuple[Split, np.ndarray]) -> None:
    split, shown = rendered
    assert split.boxes is not None
    for scene in range(12):
        expected = set()
        for slot in range(scenes.categories.shape[1]):
            pixels = [(x, y) for y in range(SIZE) for x in range(SIZE) if shown[scene, y, x] == slot + 1]
            if pixels:
                xs, ys = zip(*pixels, strict=True)
                category = int(scenes.categories[scene, slot])
                expected.add((min(xs), min(ys), max(xs) + 1, max(ys) + 1, category))
        listed = [tuple(int(value) for value in box) for box in split.boxes[scene]]
        assert set(listed[: len(expected)]) == expected
        assert set(listed[len(expected) :]) <= {(0, 0, 0, 0, -1)}


def test_masks_name_the_category_of_the_shown_surface(
    scenes: SceneBatch, rendered: tuple[Split, np.ndarray]
) -> None:
    split, shown = rendered
    assert split.masks is not None
    for scene in range(len(scenes)):
        for surface in np.unique(shown[scene]):
            expected = 0 if surface == 0 else scenes.categories[scene, surface - 1] + 1
            assert set(split.masks[scene][shown[scene] == surface]) == {expected}


def test_shown_surface_is_the_nearest_of_those_that_cover_a_pixel(
    scenes: SceneBatch, rendered: tuple[Split, np.ndarray]
) -> None:
    split, shown = rendered
    assert split.depth is not None
    at = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    x, y = np.meshgrid(at, at)
    overlaps = 0
    for scene in range(len(scenes)):
        candidates = [scenes.depths[scene, 0] @ np.stack([np.ones(x.size), x.ravel(), y.ravel()])]
        for slot, category in enumerate(scenes.categories[scene]):
            offset = np.stack([x.ravel(), y.ravel()]) - scenes.centres[scene, slot + 1][:, None]
            plane = scenes.depths[scene, slot + 1] @ np.concatenate([np.ones((1, x.size)), offset])
            if category < 0:
                candidates.append(np.full(x.size, np.inf))
                continue
            u, v = scenes.shape_axes[scene, slot + 1] @ offset
            candidates.append(np.where(CATEGORIES[category].covers(u, v), plane, np.inf))
        stacked = np.stack(candidates)
        overlaps += np.count_nonzero(np.isfinite(stacked).sum(axis=0) > 2)
        # float64 here, float32 there: single pixels on an edge may differ.
        agree = stacked.argmin(axis=0) == shown[scene].ravel()
        assert agree.mean() > 0.99
        np.testing.assert_allclose(
            split.depth[scene].ravel()[agree], stacked.min(axis=0)[agree], rtol=2e-3
        )
    assert overlaps > 100


def test_noise_is_added_pixel_by_pixel() -> None:
    noise = np.zeros((1, 3, SIZE, SIZE), dtype=np.float32)
    noise[0, 1, 4, 6] = 10 / 255
    batch = _two_squares(first_depth=2.0, second_depth=3.0)
    plain, _ = render(batch, SIZE, np.zeros_like(noise))
    noisy, _ = render(batch, SIZE, noise)
    difference = noisy.images.astype(int) - plain.images
    assert difference[0, 1, 4, 6] == 10
    assert np.count_nonzero(difference) == 1
