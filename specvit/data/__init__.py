"""Data sources, one file each. ``AnyDataSource`` is what the ``data`` section of a sweep file may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from specvit.data.base import IGNORE_INDEX, Dataset, DataSource, Split
from specvit.registry import discover

DATA_SOURCES = discover(__name__, DataSource, key="name")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyDataSource = DataSource
else:
    AnyDataSource = Annotated[Union[tuple(DATA_SOURCES.values())], Field(discriminator="source")]  # noqa: UP007

__all__ = ["DATA_SOURCES", "IGNORE_INDEX", "AnyDataSource", "DataSource", "Dataset", "Split"]
