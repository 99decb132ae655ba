"""Pretraining recipes, one file each. ``AnyRecipe`` is what the ``objective`` section of a sweep may hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from specvit.plugins import OneOf, PartTable
from specvit.recipes.deit3.settings import DeiT3, DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short
from specvit.recipes.mae.settings import Mae, MaeCpu
from specvit.training.recipe import Recipe


def _check_build(recipe: type[Recipe], _: Iterable[type[Recipe]]) -> str | None:
    """Return what keeps a recipe from being built: ``build_learner`` knows ours alone."""
    known = recipe.build is not Recipe.build or issubclass(recipe, DeiT3 | DinoV2 | Mae)
    return None if known else f"{recipe.__qualname__} must define build"


RECIPES: PartTable[Recipe] = PartTable(
    Recipe,
    (
        DeiT3,
        DeiT3Cpu,
        DinoV2,
        DinoV2Cpu,
        DinoV2Long,
        DinoV2Short,
        Mae,
        MaeCpu,
    ),
    group="specsweep.recipes",
    discriminator="recipe",
    check=_check_build,
)

AnyRecipe = Annotated[Recipe, OneOf(RECIPES)]

__all__ = ["RECIPES", "AnyRecipe", "Recipe"]
