"""Comparators, one file each. ``AnyComparator`` is what ``ablate.comparators`` of a sweep may hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from specvit.comparators.base import Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.plugins import OneOf, PartTable


def _check_build(comparator: type[Comparator], _: Iterable[type[Comparator]]) -> str | None:
    """Return what keeps a comparator from being built: ``apply_comparator`` knows ours alone."""
    ours = ClassAttention | Jumbo | PatchDiversification | TokenPooling
    known = comparator.build is not Comparator.build or issubclass(comparator, ours)
    return None if known else f"{comparator.__qualname__} must define build"


COMPARATORS: PartTable[Comparator] = PartTable(
    Comparator,
    (
        ClassAttention,
        Jumbo,
        PatchDiversification,
        TokenPooling,
    ),
    group="specsweep.comparators",
    discriminator="comparator",
    check=_check_build,
)

AnyComparator = Annotated[Comparator, OneOf(COMPARATORS)]

__all__ = ["COMPARATORS", "AnyComparator", "Comparator"]
