"""Comparators, other papers' changes of the plain ViT, a folder each: ``settings`` load without torch.

``AnyComparator`` is what ``ablate.comparators`` of a sweep may hold; ``apply_comparator`` changes a model as it says,
and ``build_regulariser`` builds its further losses: the one place that knows settings and torch code. Weights that the
plain model has too stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from specvit.comparators.base import Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.plugins import OneOf, PartTable

if TYPE_CHECKING:
    from specvit.comparators.build import apply_comparator, build_regulariser


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

__all__ = [
    "COMPARATORS",
    "AnyComparator",
    "ClassAttention",
    "Comparator",
    "Jumbo",
    "PatchDiversification",
    "TokenPooling",
    "apply_comparator",
    "build_regulariser",
]


def __getattr__(name: str) -> Any:
    if name in ("apply_comparator", "build_regulariser"):
        from specvit.comparators import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
