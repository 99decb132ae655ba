"""A floor is run once for all groups in which it computes the same."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.scheduling.shared_floors import ResultSharing, find_followers
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Finished, Started
from orchestrator.trials.identity import untrained_key
from orchestrator.trials.records import State
from orchestrator.trials.trial import Role, Trial
from specvit.config import Treatment, TrialConfig
from specvit.diagnostics.measurement import Measurement
from specvit.recipes import RECIPES
from specvit.training.cost import TrainingCost
from specvit.trial import run_trial

from ..made_up import made_up_trial

STEPS = {"objective.steps": [4, 6, 8, 10, 12]}
"""Five groups, with two floors and three seeds 30 trials of floors, of which six are different."""


@pytest.fixture
def trials(make_sweep: Callable[..., Sweep]) -> tuple[Trial, ...]:
    return expand(make_sweep(vary=STEPS, seeds=3))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the made-up trials that are run, by the kind of their treatment."""
    counts: Counter[str] = Counter()

    def run(config: TrialConfig, *arguments: Any, **named: Any) -> Any:
        counts[config.treatment.kind] += 1
        return made_up_trial(config, *arguments, **named)

    monkeypatch.setattr("specvit.trial.run_trial", run)
    return counts


def test_of_floors_that_compute_the_same_one_is_run_for_each_seed(trials: tuple[Trial, ...]) -> None:
    floors = [trial for trial in trials if trial.role is Role.FLOOR]
    to_run, followers = find_followers(trials, trials)
    assert len(floors) == 30
    assert sum(trial.role is Role.FLOOR for trial in to_run) == 6
    assert {len(each) for each in followers.values()} == {4}
    assert len({trial.trial_id for trial in floors}) == 30  # each has its own row and id
    # With one group's done, the other four follow it.
    done = {trial.trial_id for trial in floors if trial.group == floors[0].group}
    pending = [trial for trial in floors if trial.trial_id not in done]
    to_run, followers = find_followers(trials, pending, done)
    assert (to_run, followers.keys()) == ([], done)


class _Silent:
    def progress(self, **_: Any) -> None: ...
    def rung(self, **_: Any) -> None: ...
    def should_stop(self) -> bool:
        return False


@pytest.mark.parametrize("kind", ["random_init", "raw_pixels"])
def test_what_the_key_leaves_out_changes_no_number_of_a_floor(kind: Any, make_sweep: Callable[..., Sweep]) -> None:
    configs = [trial.config for trial in expand(make_sweep(seeds=1))]
    config = next(config for config in configs if config.treatment == Treatment(kind=kind))
    data = config.data.load()
    objectives = [
        config.objective,
        replace(config.objective, steps=9, lr=0.5, drop_path=0.9, drop_path_subset=True, drop_path_uniform=True),
        RECIPES["mae_cpu"](layer_scale=config.objective.layer_scale, cls_position=config.objective.cls_position),
    ]
    same = [replace(config, objective=objective) for objective in objectives]
    same.append(replace(config, rungs=replace(config.rungs, count=7)))
    assert len({untrained_key(each) for each in same}) == 1
    first, *others = [run_trial(each, data, _Silent()).metrics for each in same]
    assert all(metrics == first for metrics in others)
    for change in ({"layer_scale": 0.5}, {"cls_position": not config.objective.cls_position}, {"cls_std": 0.02}):
        other = replace(config, objective=replace(config.objective, **change))
        assert (untrained_key(other) == untrained_key(config)) == (kind == "raw_pixels")
    assert untrained_key(replace(config, seed=7)) != untrained_key(config)
    assert untrained_key(replace(config, model=replace(config.model, patch_size=8))) != untrained_key(config)


def test_trained_trials_have_no_key(trials: tuple[Trial, ...]) -> None:
    with pytest.raises(ValueError, match="must not be trained, but is 'specialize'"):
        untrained_key(trials[0].config)


def test_a_sweep_runs_its_floors_once_and_every_group_has_their_rows(
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    command: Callable[..., subprocess.CompletedProcess[str]],
    ran: Counter[str],
) -> None:
    write_sweep(tmp_path, vary={"objective.steps": [4, 6]}, seeds=2)
    planned = command("plan", "tiny.yaml").stdout
    assert "16 trials, 12 to run" in planned
    ended = command("run", "tiny.yaml", "--executor", "local")
    assert (ended.returncode, ended.stdout.count("done     ")) == (0, 16)
    assert ended.stdout.startswith("data: scenes")
    assert ran == {"specialize": 8, "random_init": 2, "raw_pixels": 2}
    path = tmp_path / "results" / "tiny" / LEDGER_NAME
    with Ledger.read(path) as ledger:
        records = ledger.records()
        assert {record.state for record in records} == {State.DONE}
        assert ledger.gpu_hours() == 0
    floors = [record for record in records if record.trial.role is Role.FLOOR]
    results = {(each.trial.arm, each.trial.seed, *each.metrics.values(), each.seconds) for each in floors}
    assert (len(floors), len(results)) == (8, 4)
    # A group that is added takes what is there; and what is done again is done again once for all.
    write_sweep(tmp_path, vary={"objective.steps": [4, 6, 8]}, seeds=2)
    assert "24 trials, 4 to run" in command("plan", "tiny.yaml").stdout
    assert command("run", "tiny.yaml", "--executor", "local").returncode == 0
    assert ran == {"specialize": 12, "random_init": 2, "raw_pixels": 2}
    again = command("redo", "tiny.yaml", "--arm", "random init", "--executor", "local")
    assert (again.returncode, ran["random_init"]) == (0, 4)
    with Ledger.read(path) as ledger:
        attempts = {r.num_attempts for r in ledger.records() if r.trial.arm == "random init"}
    assert attempts == {2}


def test_a_result_is_copied_with_its_diagnostics_to_trials_that_wait_alone(ledger: Ledger) -> None:
    first, second, third = (record.trial.trial_id for record in ledger.records()[:3])
    assert not ledger.copy_result(first, second)  # there is none yet
    ledger.record(Started(first, ledger.begin_attempt(first), "node:1", "cpu Xeon"))
    reading = Measurement(0, "mlp", "cosine", 0.5)
    cost = TrainingCost(1.5, 64.0, 0.5, 0.25)
    ledger.record(Finished(first, 1, {"knn_top1": 12.5}, 3.0, 2.0, (reading,), cost))
    ledger.begin_attempt(third)
    assert [ledger.copy_result(first, each) for each in (second, second, third)] == [True, False, False]
    source, copy, pending = ledger.records()[:3]
    assert (copy.metrics, copy.seconds, copy.core_seconds) == ({"knn_top1": 12.5}, 3.0, 2.0)
    assert copy.cost == cost
    assert copy.computation == source.computation
    assert copy.computation.device == "cpu Xeon"
    assert pending.state is State.PENDING
    assert ledger.diagnostics() == {first: (reading,), second: (reading,)}


def test_what_follows_a_trial_that_is_left_out_is_left_out(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    sharing = ResultSharing({trials[0].trial_id: trials[1:3]}, ledger)
    sharing.on_skip([trials[0], trials[3]], "no time left")
    assert [record.state for record in ledger.records()[:4]] == [
        State.WAITING,
        State.SKIPPED,
        State.SKIPPED,
        State.WAITING,
    ]
