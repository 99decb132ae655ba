"""Who builds the learner of a recipe: we for ours and what derives from them, another package's recipe for itself."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from specvit.data import Dataset, Split
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes import RECIPES, Recipe, _check_build, build_learner
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.settings import settings

BLANK = Split(images=np.zeros((1, 3, 16, 16), dtype=np.uint8))
DATASET = Dataset(train=BLANK, val=BLANK, class_names=(), mask_names=(), fingerprint="")
SMALL: dict[str, Any] = {"local_size": 8, "head_hidden": 8, "head_bottleneck": 4, "num_prototypes": 8}


@settings
class Lacking(Recipe):
    name: ClassVar[str] = "lacking"
    recipe: Literal["lacking"] = "lacking"


@settings
class Foreign(Lacking):
    def build(self, *given: Any, **others: Any) -> Any:
        return ("built by itself", given, others)


@settings
class Derived(DinoV2Cpu):
    """One of ours with other defaults."""


@settings
class DerivedForeign(DinoV2Cpu):
    build = Foreign.build


@pytest.mark.parametrize("recipe", [Foreign(), DerivedForeign()])
def test_a_recipe_of_another_package_builds_its_learner_itself(recipe: Recipe) -> None:
    assert _check_build(type(recipe), ()) is None
    assert build_learner(recipe, "backbone", "dataset", seed=3) == (
        "built by itself",
        ("backbone", "dataset"),
        {"seed": 3},
    )


def test_a_recipe_that_derives_from_ours_is_built_as_ours() -> None:
    backbone = build_vit(VitConfig(Scale(16, 2, 2), image_size=16, patch_size=4))
    assert _check_build(Derived, ()) is None
    assert isinstance(build_learner(Derived(**SMALL), backbone, DATASET, seed=0), DinoV2Learner)


def test_a_recipe_that_nobody_can_build_is_refused() -> None:
    assert _check_build(Lacking, RECIPES.values()) == "Lacking must define build"
    with pytest.raises(NotImplementedError, match="Lacking must define build"):
        build_learner(Lacking(), "backbone", DATASET, seed=0)
