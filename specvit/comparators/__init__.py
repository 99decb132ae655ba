"""Comparators, one file each. ``AnyComparator`` is what ``ablate.comparators`` of a sweep may hold."""

from __future__ import annotations

from typing import Annotated

from specvit.comparators.base import Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.plugins import OneOf, PartTable

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
)

AnyComparator = Annotated[Comparator, OneOf(COMPARATORS)]

__all__ = ["COMPARATORS", "AnyComparator", "Comparator"]
