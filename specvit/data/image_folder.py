"""Image folders (placeholder settings; the loader is being written)."""

from __future__ import annotations

from typing import ClassVar, Literal

from specvit.data.base import Dataset, DataSource
from specvit.settings import settings


@settings
class ImageFolder(DataSource):
    """Read ``root/{train,val}/CLASS/*``."""

    name: ClassVar[str] = "image_folder"
    targets: ClassVar[frozenset[str]] = frozenset({"labels"})
    path_fields: ClassVar[frozenset[str]] = frozenset({"root"})
    source: Literal["image_folder"] = "image_folder"

    root: str

    def load(self) -> Dataset:
        raise NotImplementedError
