"""The shapes and textures that make categories."""

from __future__ import annotations

import numpy as np
import pytest

from specvit.data.scene_generator.categories import CATEGORIES, Category, wave

_each_category = pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)


def _grid(low: float, high: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.linspace(low, high, size, dtype=np.float32)
    u, v = np.meshgrid(at, at)
    return u[None], v[None]


@_each_category
def test_shape_of_any_category_has_area_two(category: Category) -> None:
    u, v = _grid(-2, 2, 801)
    assert category.covers(u, v).mean() * 16 == pytest.approx(2, rel=0.02)


@_each_category
def test_shape_of_any_category_balances_on_its_centre(category: Category) -> None:
    u, v = _grid(-2, 2, 401)
    inside = category.covers(u, v)
    assert (u[inside].mean(), v[inside].mean()) == pytest.approx((0, 0), abs=0.02)


@_each_category
def test_texture_of_any_category_stays_within_bounds_and_keeps_float32(category: Category) -> None:
    p, q = _grid(-5, 5, 201)
    texture = category.texture(p, q)
    assert texture.dtype == np.float32
    assert texture.shape == p.shape
    assert np.abs(texture).max() <= 1
    assert texture.std() > 0.25


def test_star_at_points_of_a_pentagram_covers_tips_and_not_the_notches() -> None:
    # Tips on a circle of radius 0.4125 / cos 72 degrees, in the directions of the lines' normals.
    radius = 0.4125 / np.cos(np.radians(72))
    angles = np.radians(90 + 72 * np.arange(5))
    tips = 0.95 * radius * np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    star = next(category for category in CATEGORIES if "star" in category.name)
    assert star.covers(tips[0], tips[1]).all()
    assert not star.covers(-tips[0], -tips[1]).any()


def test_wave_at_quarters_of_its_period_equals_a_sine() -> None:
    at = np.array([-0.75, 0, 0.25, 0.5, 0.75, 1], dtype=np.float32)
    np.testing.assert_allclose(np.abs(wave(at)), np.abs(np.sin(2 * np.pi * at)), atol=1e-6)
    np.testing.assert_allclose(wave(at + 3), wave(at), atol=1e-6)
