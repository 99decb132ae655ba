"""A disk or a connection that fails once, at each stage of a trial: it goes on from its state to the same numbers."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import specvit.trial
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.worker import RunningJob
from orchestrator.run import Outcome, run_sweep
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Progressed
from specvit.probing import Probing

from ..orchestrator.watcher import Watcher

pytestmark = pytest.mark.usefixtures("no_figures")

STEPS, RUNG = 6, 2


@dataclass(frozen=True)
class Stage:
    """A stage of a trial, by the function that fails in it.

    Attributes:
        owner, name: Where the function stands.
        step: The first step that the second attempt reports: that of the state it goes on from, 1 if there is none.
        is_due: Whether a call fails, by its arguments.
    """

    owner: Any
    name: str
    step: int
    is_due: Callable[..., bool] = lambda *_, **__: True


STAGES = {
    "the backbone is built": Stage(specvit.trial, "_build_backbone", 1),
    "the first step": Stage(specvit.trial._Watch, "after_step", 1, lambda _, report: report.step == 1),
    "a step": Stage(specvit.trial._Watch, "after_step", 2, lambda _, report: report.step == 3),
    "a rung's probes": Stage(Probing, "rung", RUNG - 1),
    "a rung is told": Stage(RunningJob, "rung", RUNG - 1),
    "the weights are written": Stage(specvit.trial, "_save_weights", STEPS),
    "the last probes": Stage(Probing, "backbone", STEPS),
}
IN_SHORT = ("the last probes",)
"""Stages of the short run."""


SWEEP: dict[str, Any] = {
    "model": {"scale": "nano", "patch_size": 4},
    "data": {"source": "scenes", "num_train": 64, "num_val": 32},
    "objective": {"recipe": "mae_cpu", "steps": STEPS, "batch_size": 8},
    "probes": {"knn": {}},
    "rungs": {"count": 2, "num_images": 32},
    "seeds": 1,
    "floors": [],
    "ablate": {"components": ["none"]},
    "keep_weights": True,
    "checkpoint_every_s": 1e-4,
    "checkpoint_max_share": 1,
}
"""One trial whose state is saved after every step; rungs stand at steps 2 and 4."""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(json.dumps(SWEEP))
    return load_sweep(path)


def run(sweep: Sweep, folder: Path) -> tuple[Outcome, Watcher]:
    watcher = Watcher(lambda _: False)
    outcome = run_sweep(
        sweep, folder=folder, make_executor=lambda datasets, _: LocalExecutor(datasets), callbacks=[watcher]
    )
    return outcome, watcher


@pytest.fixture(scope="module")
def whole(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run the sweep without a fault."""
    return run(sweep, tmp_path_factory.mktemp("whole") / "tiny")[0]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.long) for name in STAGES]
)
def test_a_trial_whose_disk_fails_once_goes_on_from_its_state_to_the_same_numbers(
    name: str, sweep: Sweep, whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = STAGES[name]
    call, errors = getattr(stage.owner, stage.name), iter([OSError(errno.EIO, "Input/output error")])

    def fail_once(*args: Any, **given: Any) -> Any:
        if stage.is_due(*args, **given) and (error := next(errors, None)) is not None:
            raise error
        return call(*args, **given)

    monkeypatch.setattr(stage.owner, stage.name, fail_once)
    outcome, watcher = run(sweep, tmp_path / "tiny")
    (trial,), (undisturbed,) = outcome.records, whole.records
    assert next(errors, None) is None
    assert (outcome.num_failed, trial.num_attempts) == (0, 2)
    assert (trial.metrics, trial.reports) == (undisturbed.metrics, undisturbed.reports)
    second = [event.step for event in watcher.events if isinstance(event, Progressed) and event.attempt == 2]
    assert min(second) == stage.step
    assert not (tmp_path / "tiny" / "checkpoints").exists()
