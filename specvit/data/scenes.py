"""Embedded procedural scenes (placeholder settings; the generator is being written)."""

from __future__ import annotations

from typing import ClassVar, Literal

from specvit.data.base import Dataset, DataSource
from specvit.settings import NonNegativeInt, PositiveInt, settings


@settings
class Scenes(DataSource):
    """Make textured scenes from a seed."""

    name: ClassVar[str] = "scenes"
    targets: ClassVar[frozenset[str]] = frozenset({"labels", "masks", "depth", "boxes"})
    source: Literal["scenes"] = "scenes"

    num_train: PositiveInt = 4096
    num_val: PositiveInt = 1024
    seed: NonNegativeInt = 0

    def load(self) -> Dataset:
        raise NotImplementedError
