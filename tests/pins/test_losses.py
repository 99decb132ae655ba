"""A change of structure computes the same: losses of 20 steps, and a training state, that older code has written."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from orchestrator.ledger.provenance import collect_provenance
from specvit.data import DATA_SOURCES, Dataset

from .pinned_runs import RECIPES, RESUMED_AT, STEPS, loss_lines, pinned_trials, run_losses

ASSETS = Path(__file__).parents[1] / "assets"
TOLERANCE = 1e-3
"""Relative, across machines and versions of torch, which round differently."""


def this_machine() -> str:
    """Return what two runs must have in common for their floats to be equal."""
    return f"{collect_provenance().cpu}, {platform.machine()}, torch {torch.__version__}"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return DATA_SOURCES["scenes"](num_train=64, num_val=32).load()  # type: ignore[call-arg]


def read_losses(recipe: str) -> tuple[str, dict[str, dict[int, float]]]:
    """Return the machine that wrote the pinned losses of a recipe, and the losses by arm and step."""
    machine, *lines = (ASSETS / "losses" / f"{recipe}.txt").read_text().splitlines()
    losses: dict[str, dict[int, float]] = {}
    for line in lines:
        if line.startswith("arm "):
            arm = losses.setdefault(line.removeprefix("arm "), {})
        else:
            step, loss = line.split()
            arm[int(step)] = float(loss)
    return machine, losses


def check_same(losses: dict[int, float], pinned: dict[int, float], machine: str) -> None:
    """Check losses against pinned ones, exactly if the same machine has computed both."""
    assert losses == (pinned if machine == this_machine() else pytest.approx(pinned, rel=TOLERANCE))


@pytest.mark.parametrize(
    "recipe", [name if name == "deit3_cpu" else pytest.param(name, marks=pytest.mark.long) for name in RECIPES]
)
def test_losses_of_every_cpu_recipe_and_arm_are_those_of_before(
    recipe: str, dataset: Dataset, tmp_path: Path
) -> None:
    machine, pinned = read_losses(recipe)
    trials = pinned_trials(recipe, tmp_path)
    assert trials.keys() == pinned.keys()
    for arm, trial in trials.items():
        assert list(pinned[arm]) == list(range(1, STEPS + 1))
        check_same(run_losses(trial, dataset), pinned[arm], machine)


def test_a_training_state_of_before_is_continued_from(dataset: Dataset, tmp_path: Path) -> None:
    machine, pinned = read_losses("deit3_cpu")
    trial = pinned_trials("deit3_cpu", tmp_path)["none"]
    state = tmp_path / "state"
    shutil.copy(ASSETS / "training_state.safetensors", state)
    with safe_open(state, "pt") as file:
        saved_step = json.loads(file.metadata()["specvit_training_state"])["step"]
    losses = run_losses(trial, dataset, state=state)
    assert saved_step == RESUMED_AT
    check_same(losses, pinned[trial.arm], machine)  # rungs of before the state come out of its notes


def write(folder: Path) -> None:
    """Write the pins anew, which is right only where numbers were meant to change; ``folder`` is for sweep files."""
    images = DATA_SOURCES["scenes"](num_train=64, num_val=32).load()  # type: ignore[call-arg]
    (ASSETS / "losses").mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        lines = [this_machine()]
        for arm, trial in pinned_trials(recipe, folder).items():
            lines += [f"arm {arm}", *loss_lines(run_losses(trial, images))]
        (ASSETS / "losses" / f"{recipe}.txt").write_text("\n".join(lines) + "\n")
    trial = pinned_trials("deit3_cpu", folder)["none"]
    state = ASSETS / "training_state.safetensors"
    state.unlink(missing_ok=True)  # or the run would continue from it
    run_losses(trial, images, state=state, stop_after=RESUMED_AT)
