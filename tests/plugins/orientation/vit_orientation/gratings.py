"""Gratings, to be told apart by their orientation."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Literal

import numpy as np

from specvit.data import Dataset, DataSource, Split
from specvit.settings import NonNegativeInt, PositiveInt, settings


@settings
class Gratings(DataSource):
    """Sine gratings in grey. The label is the orientation; frequency and phase are drawn independently of it."""

    name: ClassVar[str] = "gratings"
    targets: ClassVar[frozenset[str]] = frozenset({"labels"})
    source: Literal["gratings"] = "gratings"

    num_train: PositiveInt = 512
    """Images to pretrain on and to fit probes on."""
    num_val: PositiveInt = 128
    """Images to report metrics on."""
    num_orientations: PositiveInt = 8
    """Classes, evenly spaced over half a turn."""
    seed: NonNegativeInt = 0
    """Decides the images; the seed of a trial does not."""

    def load(self) -> Dataset:
        """Draw both splits."""
        train_rng, val_rng = (np.random.default_rng([self.seed, split]) for split in (0, 1))
        train, val = self._draw(self.num_train, train_rng), self._draw(self.num_val, val_rng)
        degrees = (180 * label / self.num_orientations for label in range(self.num_orientations))
        digest = hashlib.sha256(train.images.tobytes() + val.images.tobytes()).hexdigest()
        return Dataset(
            train=train,
            val=val,
            class_names=tuple(f"{angle:g} degrees" for angle in degrees),
            mask_names=(),
            fingerprint=digest[:16],
        )

    def _draw(self, num_images: int, rng: np.random.Generator) -> Split:
        labels = rng.integers(self.num_orientations, size=num_images)
        waves, phase = rng.uniform([[2.0], [0.0]], [[6.0], [1.0]], size=(2, num_images))
        angle = np.pi * labels / self.num_orientations
        row, column = np.mgrid[: self.image_size, : self.image_size] / self.image_size
        across = np.multiply.outer(np.cos(angle), column) + np.multiply.outer(np.sin(angle), row)
        grey = 0.5 + 0.5 * np.sin(2 * np.pi * (waves[:, None, None] * across + phase[:, None, None]))
        images = (255 * grey).round().astype(np.uint8)
        return Split(images=np.repeat(images[:, None], 3, axis=1), labels=labels)
