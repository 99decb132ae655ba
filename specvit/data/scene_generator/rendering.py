"""Drawing procedural scenes: scene descriptions to arrays, many images at once.

Legend: N images, M objects at most, S = 1 + M surfaces (row 0 is the ground), K objects of one category,
H = W pixels a side. Scene coordinates run from -1 to 1, x to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from specvit.data.base import Split
from specvit.data.scene_generator.categories import CATEGORIES, Field, wave
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HAZE_A_METRE = 0.02


@dataclass(frozen=True)
class SceneBatch:
    """N scenes.

    Attributes:
        categories: ``(N, M)`` int64 indices into ``CATEGORIES``; -1 = no object.
        centres: ``(N, S, 2)`` float32 x and y, as all fields below; the ground's is the origin.
        shape_axes: ``(N, S, 2, 2)`` rows that map offsets from the centre to object coordinates.
        texture_axes: ``(N, S, 2, 2)`` rows that map offsets from the centre to periods of the texture.
        phases: ``(N, S, 2)`` periods by which the texture is shifted.
        depths: ``(N, S, 3)`` metres at the centre, and their slope along x and y.
        colours: ``(N, S, 2, 3)`` mean colour, and half the difference of the texture's two colours.
        light: ``(N, 3, 3)`` for each colour channel its gain, and the slope of the gain along x and y.
        haze: ``(N, 3)`` colour that distance fades into.
    """

    categories: NDArray[np.int64]
    centres: Field
    shape_axes: Field
    texture_axes: Field
    phases: Field
    depths: Field
    colours: Field
    light: Field
    haze: Field

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, rows: slice) -> SceneBatch:
        return SceneBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def render(scenes: SceneBatch, size: int, noise: Field) -> tuple[Split, NDArray[np.uint8]]:
    """Draw scenes: every pixel shows the surface nearest to the camera.

    Args:
        scenes: What to draw.
        size: Side of the images, in pixels.
        noise: ``(N, 3, size, size)`` added to the images, as a share of the full range.

    Returns:
        The images with all their targets, and the ``(N, size, size)`` surface that each pixel shows. The
        classes of the boxes are labels.
    """
    texture, depth = _surfaces(scenes, size)
    shown = np.zeros((len(scenes), size, size), dtype=np.uint8)
    value, nearest = texture[:, 0].copy(), depth[:, 0].copy()
    for surface in range(1, depth.shape[1]):
        closer = depth[:, surface] < nearest
        np.copyto(nearest, depth[:, surface], where=closer)
        np.copyto(value, texture[:, surface], where=closer)
        np.copyto(shown, np.uint8(surface), where=closer)
    boxes, areas = _visible_extents(scenes.categories, shown)
    ground = np.zeros((len(scenes), 1), dtype=np.int64)
    mask_index = np.concatenate([ground, scenes.categories + 1], axis=1).astype(np.uint8)
    split = Split(
        images=_shade(scenes, shown, value, nearest, noise),
        labels=_largest_category(scenes.categories, areas),
        masks=np.take_along_axis(mask_index, shown.reshape(len(scenes), -1).astype(np.intp), axis=1).reshape(
            shown.shape
        ),
        depth=nearest.astype(np.float16),
        boxes=boxes,
    )
    return split, shown


def _pixel_centres(size: int) -> Field:
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1


def _plane(coefficients: Field, size: int) -> Field:
    """Evaluate ``c0 + c1 x + c2 y`` on the pixels: ``(K, 3)`` to ``(K, H, W)``."""
    at = _pixel_centres(size)
    along_x = coefficients[:, 0:1] + coefficients[:, 1:2] * at
    along_y = coefficients[:, 2:3] * at
    plane: Field = along_x[:, None, :] + along_y[:, :, None]
    return plane


def _coordinates(axes: Field, centres: Field, phases: Field, size: int) -> tuple[Field, Field]:
    """Evaluate ``axes (xy - centre) + phase`` on the pixels: two ``(K, H, W)`` fields."""
    fields_: list[Field] = []
    for row in range(2):
        slope_x, slope_y = axes[:, row, 0], axes[:, row, 1]
        start = phases[:, row] - (slope_x * centres[:, 0] + slope_y * centres[:, 1])
        fields_.append(_plane(np.stack([start, slope_x, slope_y], axis=1), size))
    return fields_[0], fields_[1]


def _surfaces(scenes: SceneBatch, size: int) -> tuple[Field, Field]:
    """Evaluate every surface on every pixel.

    Returns:
        ``(N, S, H, W)`` texture in [-1, 1], and depth in metres, infinite outside of the surface.
    """
    num_scenes, num_objects = scenes.categories.shape
    texture = np.zeros((num_scenes, 1 + num_objects, size, size), dtype=np.float32)
    depth = np.full_like(texture, np.inf)
    p, q = _coordinates(scenes.texture_axes[:, 0], scenes.centres[:, 0], scenes.phases[:, 0], size)
    # Three waves, 120 degrees apart: frequencies and contrasts of the objects, but no category's pattern.
    texture[:, 0] = (wave(p) + wave(q) + wave(-p - q)) / 2
    depth[:, 0] = _plane(scenes.depths[:, 0], size)
    for index, category in enumerate(CATEGORIES):
        rows, columns = np.nonzero(scenes.categories == index)
        if not len(rows):
            continue
        at = (rows, columns + 1)
        centres = scenes.centres[at]
        u, v = _coordinates(scenes.shape_axes[at], centres, np.zeros_like(centres), size)
        p, q = _coordinates(scenes.texture_axes[at], centres, scenes.phases[at], size)
        texture[at] = category.texture(p, q)
        tilt = scenes.depths[at].copy()
        tilt[:, 0] -= tilt[:, 1] * centres[:, 0] + tilt[:, 2] * centres[:, 1]
        depth[at] = np.where(category.covers(u, v), _plane(tilt, size), np.float32(np.inf))
    return texture, depth


def _visible_extents(
    categories: NDArray[np.int64], shown: NDArray[np.uint8]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Return what is visible of each object.

    Returns:
        ``(N, M, 5)`` boxes, those of visible objects first, and ``(N, M)`` visible pixels.
    """
    size = shown.shape[-1]
    boxes = np.zeros((*categories.shape, 5), dtype=np.int16)
    areas = np.zeros(categories.shape, dtype=np.int64)
    for slot in range(categories.shape[1]):
        visible = shown == slot + 1
        areas[:, slot] = np.count_nonzero(visible, axis=(1, 2))
        for start, occupied in ((0, visible.any(axis=1)), (1, visible.any(axis=2))):
            boxes[:, slot, start] = occupied.argmax(axis=1)
            boxes[:, slot, start + 2] = size - occupied[:, ::-1].argmax(axis=1)
    boxes[..., 4] = categories
    boxes[areas == 0] = (0, 0, 0, 0, -1)
    order = np.argsort(areas == 0, axis=1, kind="stable")
    return np.take_along_axis(boxes, order[..., None], axis=1), areas


def _largest_category(categories: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the category that covers most pixels, all its objects together: two ``(N, M)`` to ``(N,)``."""
    covered = np.stack([(areas * (categories == index)).sum(axis=1) for index in range(len(CATEGORIES))], axis=1)
    largest: NDArray[np.int64] = covered.argmax(axis=1)
    return largest


def _shade(
    scenes: SceneBatch, shown: NDArray[np.uint8], value: Field, depth: Field, noise: Field
) -> NDArray[np.uint8]:
    """Colour the visible texture and put it into haze, light and noise: ``(N, 3, H, W)``."""
    num_scenes, num_surfaces = scenes.phases.shape[:2]
    size = shown.shape[-1]
    surface = shown + (np.arange(num_scenes) * num_surfaces)[:, None, None]
    fade = depth * _HAZE_A_METRE
    images = np.empty((num_scenes, 3, size, size), dtype=np.uint8)
    for channel in range(3):
        mean, contrast = (scenes.colours[:, :, part, channel].ravel()[surface] for part in range(2))
        colour = mean + contrast * value
        colour += (scenes.haze[:, channel, None, None] - colour) * fade
        colour *= _plane(scenes.light[:, channel], size)
        colour += noise[:, channel]
        images[:, channel] = np.clip(colour, 0, 1) * 255 + np.float32(0.5)
    return images
