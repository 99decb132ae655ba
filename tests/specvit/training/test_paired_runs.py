"""Runs repeat, and arms of a pair see the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from specvit.recipes import Recipe

from .small_runs import DEIT, DINO, RECIPES, STEPS, TREATED, Spied, run_loop


@RECIPES
def test_two_runs_with_one_seed_have_identical_losses_and_weights(recipe: Recipe) -> None:
    (losses, weights), (again, weights_again) = run_loop(recipe, TREATED), run_loop(recipe, TREATED)
    assert losses == again
    assert len(losses) == STEPS
    for name, value in weights.items():
        assert torch.equal(value, weights_again[name]), name


def test_stochastic_depth_repeats_too_whatever_the_global_generator_was() -> None:
    recipe = dataclasses.replace(DINO, drop_path=0.5)
    torch.manual_seed(1)
    losses, _ = run_loop(recipe)
    torch.manual_seed(2)
    assert run_loop(recipe)[0] == losses
    assert losses != run_loop(DINO)[0]


@RECIPES
def test_another_seed_gives_other_losses(recipe: Recipe) -> None:
    assert run_loop(recipe, seed=0)[0] != run_loop(recipe, seed=1)[0]


@RECIPES
def test_arms_start_equal_and_differ_after_their_first_update(recipe: Recipe) -> None:
    baseline, treated = run_loop(recipe)[0], run_loop(recipe, TREATED)[0]
    assert baseline[0] == treated[0]
    assert all(one != other for one, other in zip(baseline[1:], treated[1:], strict=True))


@RECIPES
def test_arms_stay_equal_if_nothing_is_learnt(recipe: Recipe) -> None:
    still = dataclasses.replace(recipe, lr=1e-30, min_lr=0.0)
    assert run_loop(still)[0] == run_loop(still, TREATED)[0]


@pytest.mark.parametrize(("recipe", "num_a_step"), [(DINO, 3), (DEIT, 1)], ids=["dinov2", "deit3"])
def test_arms_of_a_pair_see_identical_views_and_masks_at_every_step(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, num_a_step: int
) -> None:
    spied = Spied(monkeypatch)
    recorded = []
    for text in ("none", TREATED):
        spied.inputs = []
        run_loop(recipe, text)
        recorded.append(spied.inputs)
    assert len(recorded[0]) == len(recorded[1]) == num_a_step * STEPS
    for one, other in zip(*recorded, strict=True):
        assert torch.equal(one, other)
