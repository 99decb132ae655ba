"""What another package's comparator must define, and what it need not."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest

from specvit.comparators import COMPARATORS, Comparator
from specvit.models.scales import Scale
from specvit.settings import settings


@settings
class Lacking(Comparator):
    name: ClassVar[str] = "lacking"
    comparator: Literal["lacking"] = "lacking"

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        del scale, layer_scale
        return 0


@settings
class Foreign(Lacking):
    def build(self, plain: Any, *, seed: int) -> Any:
        return ("changed", plain, seed)


def test_a_comparator_that_can_be_built_is_taken_and_adds_no_terms_unless_it_says_so() -> None:
    assert COMPARATORS._fault("lacking", Foreign) is None
    assert Foreign().build_regulariser("backbone", num_classes=4, seed=0) is None  # type: ignore[arg-type]


def test_a_comparator_that_nobody_can_build_is_refused() -> None:
    assert COMPARATORS._fault("lacking", Lacking) == "Lacking must define build"
    with pytest.raises(TypeError, match="abstract method"):
        Lacking()  # type: ignore[abstract]
