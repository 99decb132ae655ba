"""Images with masks (placeholder settings; the loader is being written)."""

from __future__ import annotations

from typing import ClassVar, Literal

from specvit.data.base import Dataset, DataSource
from specvit.settings import settings


@settings
class Masks(DataSource):
    """Read ``root/images/{train,val}/NAME.*`` with ``root/masks/{train,val}/NAME.png``."""

    name: ClassVar[str] = "masks"
    targets: ClassVar[frozenset[str]] = frozenset({"masks"})
    path_fields: ClassVar[frozenset[str]] = frozenset({"root"})
    source: Literal["masks"] = "masks"

    root: str

    def load(self) -> Dataset:
        raise NotImplementedError
