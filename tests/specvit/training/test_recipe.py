"""How long a run is: in steps, or in passes over the images."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit.recipes import RECIPES, AnyRecipe, Recipe
from specvit.recipes.deit3.settings import DeiT3
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu
from specvit.training.recipe import cosine, linear, warmup_cosine

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


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 2.0), (1 / 3, 1.75), (0.5, 1.5), (2 / 3, 1.25), (1.0, 1.0)]
)
def test_cosine_falls_along_half_a_wave(progress: float, value: float) -> None:
    assert cosine(progress, 2.0, 1.0) == pytest.approx(value)


def test_cosine_also_rises() -> None:
    assert cosine(0.25, 0.992, 1.0) == pytest.approx(1 - 0.008 * 0.5 * (1 + math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.55), (1.0, 0.1)],
)
def test_warmup_rises_linearly_then_falls_on_a_cosine(progress: float, value: float) -> None:
    assert warmup_cosine(progress, peak=1.0, end=0.1, warmup=0.2) == pytest.approx(value)


def test_without_warmup_a_run_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, peak=3.0, end=0.0, warmup=0.0) == 3.0


def test_a_run_that_is_all_warmup_ends_at_the_peak() -> None:
    assert warmup_cosine(0.5, peak=3.0, end=0.0, warmup=1.0) == 1.5
    assert warmup_cosine(1.0, peak=3.0, end=0.0, warmup=1.0) == 3.0


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)])
def test_linear_moves_until_its_share_and_then_stays(progress: float, value: float) -> None:
    assert linear(progress, 0.04, 0.07, until=0.3) == pytest.approx(value)


def test_linear_over_no_time_is_at_its_end() -> None:
    assert linear(0.0, 0.04, 0.07, until=0.0) == 0.07
