"""The runs whose numbers are pinned: every CPU recipe with three arms, 20 steps each.

They go in by a sweep file and come out by an observer, so that nothing here knows how the code inside is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.trial import Trial
from specvit.data import Dataset
from specvit.training.checkpoint import Checkpoint
from specvit.trial import run_trial

RECIPES = ("dinov2_cpu", "deit3_cpu", "mae_cpu")
DINOV2_BEFORE = {
    "lr": 2e-3,
    "num_locals": 2,
    "num_prototypes": 256,
    "koleo_weight": 0.3,
    "student_temp": 0.05,
    "teacher_temp": 0.025,
    "teacher_temp_start": 0.015,
    "centering": "sinkhorn",
    "ema": 0.95,
}
"""The constants of ``dinov2_cpu`` when its losses and ids were pinned; the preset has moved on."""
STEPS = 20
RESUMED_AT = 12
"""The step after which the pinned training state was saved."""


def pinned_trials(recipe: str, folder: Path) -> dict[str, Trial]:
    """Return the trials of a recipe by the name of their arm: the baseline, the paper's arm, one with low rank."""
    sweep = {
        "data": {"source": "scenes", "num_train": 64, "num_val": 32},
        "objective": {"recipe": recipe, "steps": STEPS, "batch_size": 8} | (DINOV2_BEFORE if "dino" in recipe else {}),
        "probes": {"knn": {}},
        # A rung tells the loss of its step; with this many there is one after every step but the last. Supervised runs
        # were pinned when they were trained on all images.
        "rungs": {"count": STEPS - 1, "num_images": 32, "held_out": False},
        "seeds": [0],
        "floors": [],
        "ablate": {"specialize": ["norm@all+qkv@first-third", "qkv(lora:4)@all+mlp(gate)@last-third"]},
    }
    path = folder / f"{recipe}.yaml"
    path.write_text(json.dumps(sweep))
    return {trial.arm: trial for trial in expand(load_sweep(path))}


class Losses:
    """The losses that an observer is told, by step."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.by_step: dict[int, float] = {}
        self._stop_after = stop_after

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Called with every sign of progress."""

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Record the loss of a step."""
        self.by_step[step] = metrics["loss"]

    def should_stop(self) -> bool:
        """Return whether the step after which to stop is done."""
        return self._stop_after in self.by_step


def run_losses(
    trial: Trial, dataset: Dataset, *, state: Path | None = None, stop_after: int | None = None
) -> dict[int, float]:
    """Run a pinned trial and return its losses by step.

    Args:
        trial: One of ``pinned_trials``.
        dataset: What its source loads.
        state: File of the training state, from which the run continues if it is there; None = none.
        stop_after: Step after which the run is ordered to stop, its state saved; None = it runs to its end.
    """
    torch.set_num_threads(1)  # as a trial of a sweep has; sums in another order are other floats
    losses = Losses(stop_after=stop_after)
    checkpoint = None
    if state is not None:
        checkpoint = Checkpoint(state, identity="pinned", every_s=None, at_stop=lambda: stop_after is not None)
    # Nothing that is learnt depends on the probes, and a rung without any still tells the loss of its step.
    config = replace(trial.config, probes={}, rungs=replace(trial.config.rungs, probes=()))
    result = run_trial(config, dataset, losses, checkpoint=checkpoint)
    if stop_after is None:
        losses.by_step[STEPS] = result.metrics["loss"]
    return losses.by_step


def loss_lines(losses: Mapping[int, float]) -> Iterator[str]:
    """Yield a line for each step: its number and the loss, by which the same float is read back."""
    return (f"{step} {loss!r}" for step, loss in losses.items())
