"""Drawing what is in a procedural scene: random numbers to scene descriptions.

Everything about scene i follows from the i-th row of one table of random numbers, so that a scene does not
depend on how many are made. Which category an object has decides its shape and its texture, nothing else.

Legend: N scenes, M objects at most, S = 1 + M surfaces (row 0 is the ground).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from specvit.data.scene_generator.categories import CATEGORIES, Field
from specvit.data.scene_generator.rendering import SceneBatch
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAIN_RADIUS = (0.74, 0.96)
_OTHER_RADIUS = (0.3, 0.48)
_PERIODS_A_UNIT = (2.5, 3.3)
"""Frequency of textures: 5 to 6.4 pixels a period in images of 32 x 32, times the category's period."""

_NUM_ANGLES = 720


@cache
def _cosines_and_sines() -> tuple[Field, Field]:
    """Return those of all angles, rounded, because the last bit of a sine differs between machines."""
    angles = np.arange(_NUM_ANGLES) * (2 * np.pi / _NUM_ANGLES)
    return np.round(np.cos(angles), 5).astype(np.float32), np.round(np.sin(angles), 5).astype(np.float32)


class _Draws:
    """The columns of a table of random numbers, N rows in [0, 1), each used once."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        self._table = table
        self._used = 0

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Field:
        """Return the next ``(N, *shape)`` numbers, scaled to [low, high)."""
        width = int(np.prod(shape, dtype=int))
        columns = self._table[:, self._used : self._used + width]
        if columns.shape[1] != width:
            raise ValueError(f"the table has {self._table.shape[1]} columns, {self._used + width} are needed")
        self._used += width
        return (low + (high - low) * columns).astype(np.float32).reshape(-1, *shape)

    def rotations(self, *shape: int, spread_deg: float) -> Field:
        """Return ``(N, *shape, 2, 2)`` rotations by up to ``spread_deg`` to either side."""
        turn = self.uniform(*shape, low=-spread_deg, high=spread_deg)
        step = np.round(turn * (_NUM_ANGLES / 360)).astype(np.int64) % _NUM_ANGLES
        cosine, sine = (of_all[step] for of_all in _cosines_and_sines())
        return np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], -2)


def num_draws(max_objects: int) -> int:
    """Return how many random numbers describe a scene with ``max_objects`` objects at most."""
    return 14 + len(CATEGORIES) + 22 * (1 + max_objects) + max_objects


def sample_scenes(
    table: NDArray[np.float64],
    *,
    num_objects: tuple[int, int],
    alike: float,
    ground_contrast: float,
    texture_rotation_deg: float,
    colour: float,
    light: float,
) -> SceneBatch:
    """Return one scene for each row of random numbers.

    Args:
        table: ``(N, num_draws(M))`` float64 in [0, 1).
        num_objects: Least and largest number M of objects; M is at most the number of categories.
        alike: Chance that an object beside the main one has its category, 0 to 1.
        ground_contrast: Contrast of the ground's texture as a share of the objects', 0 to 1.
        texture_rotation_deg: Largest rotation of textures to either side, 0 to 180.
        colour: Strength of the variation in hue and saturation, 0 to 1.
        light: Strength of the variation in light, 0 to 1.

    Returns:
        The scenes. The first object is the largest by far.
    """
    draws, (fewest, most) = _Draws(table), num_objects
    num_surfaces = 1 + most
    radius = draws.uniform(num_surfaces, low=_OTHER_RADIUS[0], high=_OTHER_RADIUS[1])
    radius[:, 1] = draws.uniform(low=_MAIN_RADIUS[0], high=_MAIN_RADIUS[1])
    categories = np.argsort(draws.uniform(len(CATEGORIES)), axis=1, kind="stable")[:, :most]
    categories = np.where(draws.uniform(most) < alike, categories[:, :1], categories)
    count = fewest + (draws.uniform() * (most - fewest + 1)).astype(np.int64)
    categories[np.arange(most) >= count[:, None]] = -1

    centres = draws.uniform(num_surfaces, 2, low=-0.9, high=0.9)
    centres[:, 1] *= np.float32(0.6)
    centres[:, 0] = 0
    stretch = draws.uniform(num_surfaces, low=0.85, high=1.15)
    shape_axes = draws.rotations(num_surfaces, spread_deg=180)
    shape_axes[..., 0, :] *= (stretch / radius)[..., None]
    shape_axes[..., 1, :] /= (stretch * radius)[..., None]
    return SceneBatch(
        categories=categories,
        centres=centres,
        shape_axes=shape_axes,
        texture_axes=_texture_axes(draws, categories, texture_rotation_deg),
        phases=draws.uniform(num_surfaces, 2),
        depths=_depths(draws, radius),
        colours=_colours(draws, num_surfaces, colour, ground_contrast),
        light=_light(draws, light),
        haze=draws.uniform(3, low=0.4, high=0.7),
    )


def _texture_axes(draws: _Draws, categories: NDArray[np.int64], rotation_deg: float) -> Field:
    num_surfaces = 1 + categories.shape[1]
    frequency = draws.uniform(num_surfaces, low=_PERIODS_A_UNIT[0], high=_PERIODS_A_UNIT[1])
    periods = np.array([category.period for category in CATEGORIES], dtype=np.float32)
    frequency[:, 1:] /= periods[categories]
    rotations = draws.rotations(num_surfaces, spread_deg=rotation_deg)
    # The ground has no upright: its first axis points anywhere, and the second lies 120 degrees from it.
    ground = draws.rotations(spread_deg=180)
    rotations[:, 0, 0] = ground[:, 0]
    rotations[:, 0, 1] = ground[:, 0] * np.float32(-0.5) + ground[:, 1] * np.float32(0.866025)
    return rotations * frequency[..., None, None]


def _depths(draws: _Draws, radius: Field) -> Field:
    """Place objects at 1.4 to 4 m, small ones rather farther, before a ground that recedes to the top."""
    closeness = radius / np.float32(_MAIN_RADIUS[1])
    depths = draws.uniform(radius.shape[1], 3, low=-0.4, high=0.4)
    depths[..., 0] = 1.4 + 2.6 * (0.35 * (1 - closeness) + 0.65 * draws.uniform(radius.shape[1]))
    depths[:, 0, 0] = draws.uniform(low=8, high=11)
    depths[:, 0, 2] = draws.uniform(low=-3, high=-2)
    return depths


def _colours(draws: _Draws, num_surfaces: int, strength: float, ground_contrast: float) -> Field:
    """Return two colours a surface, with a difference in brightness of either sign."""
    mean = draws.uniform(num_surfaces, 1, low=0.43, high=0.57)
    mean = mean + strength * draws.uniform(num_surfaces, 3, low=-0.15, high=0.15)
    sign = np.where(draws.uniform(num_surfaces, 1) < 0.5, np.float32(-1), np.float32(1))
    contrast = sign * draws.uniform(num_surfaces, 1, low=0.22, high=0.42)
    contrast[:, 0] *= np.float32(ground_contrast)
    tint = 1 + strength * draws.uniform(num_surfaces, 3, low=-0.5, high=0.5)
    return np.stack([mean, contrast * tint], axis=2)


def _light(draws: _Draws, strength: float) -> Field:
    """Return a gain, its gradient across the image, and a cast of colour."""
    gain = 1 + strength * draws.uniform(1, low=-0.3, high=0.3)
    cast = 1 + strength * draws.uniform(3, low=-0.2, high=0.2)
    slope = strength * draws.uniform(1, 2, low=-0.25, high=0.25)
    return np.concatenate([(gain * cast)[..., None], cast[..., None] * slope], axis=2)
