"""Pretraining recipes, one file each. ``AnyRecipe`` is what the ``objective`` section of a sweep may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from specvit.objectives.base import Recipe
from specvit.registry import discover

RECIPES = discover(__name__, Recipe, key="name")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyRecipe = Recipe
else:
    AnyRecipe = Annotated[Union[tuple(RECIPES.values())], Field(discriminator="recipe")]  # noqa: UP007

__all__ = ["RECIPES", "AnyRecipe", "Recipe"]
