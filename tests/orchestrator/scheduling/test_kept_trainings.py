"""Which weights are kept unless the sweep file says so, and the names of their folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.scheduling import kept_trainings
from orchestrator.scheduling.jobs import weights_name
from orchestrator.scheduling.kept_trainings import can_keep_weights, keeps_weights
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial


def test_small_weights_are_kept_unless_the_file_says_otherwise(
    make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep()
    trials = expand(sweep)
    assert keeps_weights(sweep, trials)
    assert not keeps_weights(make_sweep(keep_weights=False), trials)
    # Two trials of 307,392 parameters and two of 308,928, each with at most two backbones of 4 bytes a parameter.
    size = 2 * (307_392 + 308_928) * 4 * 2
    monkeypatch.setattr(kept_trainings, "MOST_KEPT_BYTES", size)
    assert keeps_weights(sweep, trials)
    monkeypatch.setattr(kept_trainings, "MOST_KEPT_BYTES", size - 1)
    assert not keeps_weights(sweep, trials)
    assert keeps_weights(make_sweep(keep_weights=True), trials)


def test_a_backbone_without_a_file_format_is_not_kept(make_sweep: Callable[..., Sweep]) -> None:
    made = make_sweep(ablate={"components": ["none"], "comparators": [{"comparator": "jumbo"}]})
    can = {trial.arm: can_keep_weights(trial) for trial in expand(made) if trial.config.treatment.is_trained}
    assert sorted(can.values()) == [False, True]
    assert can["none"]


def test_a_folder_is_named_as_people_call_the_trial(trials: tuple[Trial, ...]) -> None:
    trial = replace(trials[0], arm="norm@all / qkv(lora:8)", group="model.scale=mini", seed=3, trial_id="ab" * 32)
    assert weights_name(trial) == "model.scale=mini-norm@all-qkv-lora-8-seed-3-abababababab"
    assert weights_name(replace(trial, arm="..", group="")) == "seed-3-abababababab"
    assert weights_name(replace(trial, arm="x" * 500, group="")) == f"{'x' * 100}-seed-3-abababababab"
