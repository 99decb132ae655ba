"""Pretraining recipes, one file each. ``AnyRecipe`` is what the ``objective`` section of a sweep may hold."""

from __future__ import annotations

from typing import Annotated

from specvit.plugins import OneOf, PartTable
from specvit.recipes.deit3.settings import DeiT3, DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short
from specvit.recipes.mae.settings import Mae, MaeCpu
from specvit.training.recipe import Recipe

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
)

AnyRecipe = Annotated[Recipe, OneOf(RECIPES)]

__all__ = ["RECIPES", "AnyRecipe", "Recipe"]
