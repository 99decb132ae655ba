"""Comparators, other papers' changes of the plain ViT, a folder each: ``settings`` load without torch.

``AnyComparator`` is what ``ablate.comparators`` of a sweep may hold; its ``build`` changes a model as it says, and its
``build_regulariser`` builds further losses. Weights that the plain model has too stay as they are.
"""

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
    package=__name__,
    discriminator="comparator",
)

AnyComparator = Annotated[Comparator, OneOf(COMPARATORS)]

__all__ = [
    "COMPARATORS",
    "AnyComparator",
    "ClassAttention",
    "Comparator",
    "Jumbo",
    "PatchDiversification",
    "TokenPooling",
]
