"""The categories of the procedural scenes: each is a shape filled with a texture.

Shapes and textures are functions of coordinate fields, evaluated for many objects at once. Only correctly
rounded operations are used (no sine, no exponential), so that every machine computes the same bits.

Legend: K objects, H x W pixels; ``u, v`` and ``p, q`` are ``(K, H, W)`` float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Field: TypeAlias = "NDArray[np.float32]"
Region: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True)
class Category:
    """The looks that make an object belong to a category; its colours, size, place and rotation do not.

    Attributes:
        name: What the class is called.
        covers: Shape: object coordinates ``u, v`` to the pixels inside. Every shape has an area of about 2,
            so that the size of an object says nothing about its category either.
        texture: Pattern: texture coordinates ``p, q``, in periods, to values in [-1, 1].
        period: Length of the texture's period as a multiple of the scene's.
    """

    name: str
    covers: Callable[[Field, Field], Region]
    texture: Callable[[Field, Field], Field]
    period: float


def wave(x: Field) -> Field:
    """Return a sine-like wave of period 1 in [-1, 1], made of parabolas."""
    centred = _cell(x)
    size: Field = np.abs(centred)
    return centred * (8 - 16 * size)


def _cell(x: Field) -> Field:
    """Return the place within a cell of side 1, from -0.5 to 0.5."""
    whole: Field = np.floor(x)
    return x - whole - 0.5


def _clip(x: Field) -> Field:
    clipped: Field = np.clip(x, -1, 1)
    return clipped


def _count_inside(
    u: Field, v: Field, normals: tuple[tuple[float, float], ...], distance: float
) -> NDArray[np.int8]:
    """Count the lines, at one distance from the centre, on whose inner side a pixel lies."""
    count = np.zeros(u.shape, dtype=np.int8)
    for normal_u, normal_v in normals:
        count += normal_u * u + normal_v * v < distance
    return count


_TRIANGLE = ((0.0, -1.0), (0.866025, 0.5), (-0.866025, 0.5))
_HEXAGON = ((1.0, 0.0), (0.5, 0.866025), (-0.5, 0.866025))
_STAR = (
    (0.0, 1.0),
    (0.951057, 0.309017),
    (0.587785, -0.809017),
    (-0.587785, -0.809017),
    (-0.951057, 0.309017),
)


def _disc(u: Field, v: Field) -> Region:
    return u * u + v * v < 0.6366


def _bar(u: Field, v: Field) -> Region:
    return (np.abs(u) < 1.118) & (np.abs(v) < 0.447)


def _square(u: Field, v: Field) -> Region:
    inside: Region = np.maximum(np.abs(u), np.abs(v)) < 0.707
    return inside


def _star(u: Field, v: Field) -> Region:
    # Five lines make a pentagram: its core lies on the inner side of all, its tips on that of four.
    inside: Region = _count_inside(u, v, _STAR, 0.4125) >= 4
    return inside


def _triangle(u: Field, v: Field) -> Region:
    inside: Region = _count_inside(u, v, _TRIANGLE, 0.6204) == 3
    return inside


def _cross(u: Field, v: Field) -> Region:
    inside: Region = np.minimum(np.abs(u), np.abs(v)) < 0.3162
    return inside & (np.maximum(np.abs(u), np.abs(v)) < 0.9487)


def _hexagon(u: Field, v: Field) -> Region:
    inside = np.ones(u.shape, dtype=np.bool_)
    for normal_u, normal_v in _HEXAGON:
        inside &= np.abs(normal_u * u + normal_v * v) < 0.7598
    return inside


def _half_disc(u: Field, v: Field) -> Region:
    lifted = v + 0.479
    return (lifted > 0) & (u * u + lifted * lifted < 1.2732)


def _rings(p: Field, q: Field) -> Field:
    return wave(np.sqrt(p * p + q * q))


def _stripes(p: Field, q: Field) -> Field:  # noqa: ARG001
    return wave(q)


def _checks(p: Field, q: Field) -> Field:
    return _clip(3 * wave(p) * wave(q))


def _dots(p: Field, q: Field) -> Field:
    p, q = _cell(p), _cell(q)
    return _clip(2 - 20 * (p * p + q * q))


def _marble(p: Field, q: Field) -> Field:
    return wave(0.7 * p + 0.45 * wave(0.6 * q)) * wave(0.5 * q + 0.45 * wave(0.8 * p + 0.3 * q))


def _zigzag(p: Field, q: Field) -> Field:
    bend: Field = np.abs(_cell(0.55 * q))
    return wave(p + 1.6 * bend)


def _bricks(p: Field, q: Field) -> Field:
    row: Field = np.floor(q)
    beside: Field = np.abs(_cell(0.5 * (p + row)))
    above: Field = np.abs(_cell(q))
    to_mortar: Field = np.maximum(above, 2 * beside - 0.5)
    return _clip(9 * (to_mortar - 0.3))


def _mosaic(p: Field, q: Field) -> Field:
    column: Field = np.floor(p)
    row: Field = np.floor(q)
    return 2 * _cell(0.7549 * column + 0.5698 * row + 0.3819 * column * row)


CATEGORIES = (
    Category("ringed disc", _disc, _rings, 1.2),
    Category("striped bar", _bar, _stripes, 0.65),
    Category("checked square", _square, _checks, 1.0),
    Category("dotted star", _star, _dots, 0.85),
    Category("marbled triangle", _triangle, _marble, 1.3),
    Category("zigzag cross", _cross, _zigzag, 0.75),
    Category("bricked hexagon", _hexagon, _bricks, 0.9),
    Category("mosaic half-disc", _half_disc, _mosaic, 0.5),
)
"""Every category, in the order of the labels. In masks, 0 is the ground and the label is counted from 1."""
