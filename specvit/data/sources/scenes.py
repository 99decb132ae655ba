"""Embedded procedural scenes: textured objects on textured grounds, with every target known exactly."""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from specvit.data.base import Dataset, DataSource, Split
from specvit.data.scene_generator.categories import CATEGORIES
from specvit.data.scene_generator.rendering import render
from specvit.data.scene_generator.sampling import num_draws, sample_scenes
from specvit.lazy_numpy import np
from specvit.settings import Fraction, NonNegativeInt, PositiveInt, settings

_PIXELS_A_CHUNK = 1 << 16  # keeps what is being drawn within a core's cache


@settings
class Scenes(DataSource):
    """Make textured scenes from a seed; nothing is downloaded.

    An image shows a few objects that occlude one another, one of them clearly larger than the rest. An
    object's category is its shape together with its texture; colours, light, size, place and rotation are
    drawn independently of it. The label is the category that covers most pixels; masks hold 0 for the ground
    and 1 + label for objects; depth is in metres; boxes enclose what is visible and carry labels.

    The same settings give the same bytes on every machine, and image i of a split does not depend on how many
    images the split has. The same scenes are drawn at every image size.
    """

    name: ClassVar[str] = "scenes"
    targets: ClassVar[frozenset[str]] = frozenset({"labels", "masks", "depth", "boxes"})
    source: Literal["scenes"] = "scenes"

    num_train: PositiveInt = 4096
    """Images to pretrain on and to fit probes on."""
    num_val: PositiveInt = 1024
    """Images to report metrics on."""
    seed: NonNegativeInt = 0
    """Decides the images; the seed of a trial does not."""
    num_objects: tuple[PositiveInt, PositiveInt] = (2, 3)
    """Least and largest number of objects an image, at most 8."""
    alike: Fraction = 0.8
    """Chance that an object beside the main one has the main one's category."""
    ground_contrast: Fraction = 0.2
    """Contrast of the ground's texture, as a share of the objects'."""
    texture_rotation_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    """Largest rotation of the objects' textures to either side, in degrees; shapes are turned at will. The
    wider the range, the less the direction of a texture tells of the category."""
    colour: Fraction = 0.2
    """Strength of the variation in hue and saturation: 0 = shades of grey."""
    light: Fraction = 0.2
    """Strength of the variation in brightness, gradient and colour of the light: 0 = even white light."""
    noise: Fraction = 0.03
    """Standard deviation of the pixel noise, as a share of the full range."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Scenes:
        fewest, most = self.num_objects
        if not fewest <= most <= len(CATEGORIES):
            raise ValueError(
                f"num_objects must be [low, high] with 1 <= low <= high <= {len(CATEGORIES)}, "
                f"not [{fewest}, {most}]"
            )
        if self.image_size < 16:
            raise ValueError(f"image_size must be at least 16 for scenes, not {self.image_size}")
        return self

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return ``num_train`` and ``num_val``."""
        return self.num_train, self.num_val

    @property
    def num_labels(self) -> int | None:
        """Return the number of categories."""
        return len(CATEGORIES)

    def load(self) -> Dataset:
        """Draw both splits, each from its own stream of random numbers."""
        train_stream, val_stream = np.random.SeedSequence(self.seed).spawn(2)
        train, val = self._draw(self.num_train, train_stream), self._draw(self.num_val, val_stream)
        names = tuple(category.name for category in CATEGORIES)
        return Dataset(
            train=train,
            val=val,
            class_names=names,
            mask_names=("ground", *names),
            fingerprint=_fingerprint(train, val),
            box_names=names,
        )

    def _draw(self, num_images: int, stream: np.random.SeedSequence) -> Split:
        size = self.image_size
        scene_rng, noise_rng = (np.random.default_rng(child) for child in stream.spawn(2))
        table = scene_rng.random((num_images, num_draws(self.num_objects[1])))
        scenes = sample_scenes(
            table,
            num_objects=self.num_objects,
            alike=self.alike,
            ground_contrast=self.ground_contrast,
            texture_rotation_deg=self.texture_rotation_deg,
            colour=self.colour,
            light=self.light,
        )
        amplitude = np.float32(self.noise * 12**0.5)  # of a uniform distribution with that standard deviation
        num_at_once = max(1, _PIXELS_A_CHUNK // size**2)
        chunks: list[Split] = []
        for start in range(0, num_images, num_at_once):
            chunk = scenes[start : start + num_at_once]
            noise = noise_rng.random((len(chunk), 3, size, size), dtype=np.float32)
            noise = (noise - np.float32(0.5)) * amplitude
            chunks.append(render(chunk, size, noise)[0])
        return _concatenate(chunks)


def _concatenate(chunks: list[Split]) -> Split:
    return Split(**{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in _ARRAYS})


def _fingerprint(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for name in _ARRAYS:
            array = getattr(split, name)
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()[:16]


_ARRAYS = ("images", "labels", "masks", "depth", "boxes")
