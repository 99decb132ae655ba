"""Pretraining recipes, one file each. ``AnyRecipe`` is what the ``objective`` section of a sweep may hold."""

from __future__ import annotations

from typing import Annotated

from specvit.objectives.base import Recipe
from specvit.objectives.deit3 import DeiT3, DeiT3Cpu
from specvit.objectives.dinov2 import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short
from specvit.objectives.mae import Mae, MaeCpu
from specvit.plugins import OneOf, PartTable

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
