"""Comparators, one file each. ``AnyComparator`` is what ``ablate.comparators`` of a sweep may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from specvit.comparators.base import Comparator
from specvit.registry import discover

COMPARATORS = discover(__name__, Comparator, key="name")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyComparator = Comparator
else:
    AnyComparator = Annotated[Union[tuple(COMPARATORS.values())], Field(discriminator="comparator")]  # noqa: UP007

__all__ = ["COMPARATORS", "AnyComparator", "Comparator"]
