"""Pretraining recipes, a folder each: ``settings`` load without torch, a ``learner`` holds the torch code.

``AnyRecipe`` is what the ``objective`` section of a sweep may hold, ``build_learner`` makes a learner of it: the one
place that knows both. A recipe's constants are its source's; what deviates is listed at the top of its settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from specvit.plugins import OneOf, PartTable
from specvit.recipes.deit3.settings import DeiT3, DeiT3Cpu, DeiT3DenseCpu
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short
from specvit.recipes.mae.settings import Mae, MaeCpu
from specvit.training.recipe import Recipe

if TYPE_CHECKING:
    from specvit.recipes.build import build_learner


def _check_build(recipe: type[Recipe], _: Iterable[type[Recipe]]) -> str | None:
    """Return what keeps a recipe from being built: ``build_learner`` knows ours alone."""
    known = recipe.build is not Recipe.build or issubclass(recipe, DeiT3 | DinoV2 | Mae)
    return None if known else f"{recipe.__qualname__} must define build"


RECIPES: PartTable[Recipe] = PartTable(
    Recipe,
    (
        DeiT3,
        DeiT3Cpu,
        DeiT3DenseCpu,
        DinoV2,
        DinoV2Cpu,
        DinoV2Long,
        DinoV2Short,
        Mae,
        MaeCpu,
    ),
    group="specsweep.recipes",
    package=__name__,
    discriminator="recipe",
    check=_check_build,
)

AnyRecipe = Annotated[Recipe, OneOf(RECIPES)]

__all__ = [
    "RECIPES",
    "AnyRecipe",
    "DeiT3",
    "DeiT3Cpu",
    "DeiT3DenseCpu",
    "DinoV2",
    "DinoV2Cpu",
    "DinoV2Long",
    "DinoV2Short",
    "Mae",
    "MaeCpu",
    "Recipe",
    "build_learner",
]


def __getattr__(name: str) -> Any:
    if name == "build_learner":
        from specvit.recipes import build

        return build.build_learner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
