"""Who changes the model: we for our comparators, another package's comparator for itself."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest

from specvit.comparators import COMPARATORS, Comparator, _check_build, apply_comparator, build_regulariser
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

    def build_regulariser(self, backbone: Any, *, num_classes: int, seed: int) -> Any:
        return ("terms", backbone, num_classes, seed)


def test_a_comparator_of_another_package_changes_the_model_itself() -> None:
    assert _check_build(Foreign, ()) is None
    assert apply_comparator(Foreign(), "plain", seed=3) == ("changed", "plain", 3)
    assert build_regulariser(Foreign(), "backbone", num_classes=4, seed=3) == ("terms", "backbone", 4, 3)


def test_a_comparator_that_nobody_can_build_is_refused() -> None:
    assert _check_build(Lacking, COMPARATORS.values()) == "Lacking must define build"
    with pytest.raises(NotImplementedError, match="Lacking must define build"):
        apply_comparator(Lacking(), "plain", seed=0)
    assert build_regulariser(Lacking(), "backbone", num_classes=4, seed=0) is None
