"""How long a run is: in steps, or in passes over the images."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit.recipes import RECIPES, AnyRecipe, Recipe
from specvit.recipes.deit3.settings import DeiT3
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu

ADAPTER: TypeAdapter[Recipe] = TypeAdapter(AnyRecipe)


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch_size", "steps"),
    [
        (1.0, 640, 32, 20),
        (2.5, 640, 32, 50),
        (3.0, 100, 32, 9),  # 9.375
        (1.0, 50_000, 128, 391),  # 390.6
        (300.0, 1_281_167, 2048, 187_671),  # 187,670.9
        (0.001, 100, 32, 1),  # never none
    ],
)
def test_steps_are_epochs_times_images_over_the_batch_to_the_nearest(
    epochs: float, num_images: int, batch_size: int, steps: int
) -> None:
    recipe = DinoV2Cpu(epochs=epochs, batch_size=batch_size)
    resolved = recipe.for_images(num_images)
    assert (resolved.steps, resolved.epochs) == (steps, None)
    assert dataclasses.replace(resolved, steps=recipe.steps) == dataclasses.replace(recipe, epochs=None)


def test_an_epoch_of_repeated_augmentation_takes_as_many_times_the_steps() -> None:
    assert DeiT3(epochs=2.0, batch_size=10, repeats=3).for_images(100).steps == 60
    assert DeiT3(epochs=2.0, batch_size=10, repeats=1).for_images(100).steps == 20


@pytest.mark.parametrize("name", RECIPES)
def test_a_length_in_steps_does_not_depend_on_the_images(name: str) -> None:
    recipe = RECIPES[name](steps=7)
    assert recipe.for_images(123_456) is recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_epochs_in_place_of_steps_and_comes_back_from_json(name: str) -> None:
    recipe = RECIPES[name](epochs=2)
    assert ADAPTER.validate_json(ADAPTER.dump_json(recipe)) == recipe
    with pytest.raises(ValidationError, match="give one, not epochs"):
        RECIPES[name](epochs=2, steps=7)


@pytest.mark.parametrize("epochs", [0, -1.0, float("inf"), "2", True])
def test_epochs_that_are_no_positive_number_are_refused(epochs: Any) -> None:
    with pytest.raises(ValidationError, match="epochs"):
        DinoV2(epochs=epochs)
