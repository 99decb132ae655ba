"""A wall clock that jumps by years, forth and back: order, results and budgets stay as they are."""

from __future__ import annotations

import io
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console

from orchestrator.cli.run import make_callbacks
from orchestrator.execution.executor import Job, Place
from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.monitoring.status import SweepStatus, render_status
from orchestrator.run import Datasets, Outcome, prepare_run
from orchestrator.storage.command_inbox import Command, CommandInbox, Prune, Retry, send
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.resources import ResourceRequest

from .harness.finished_sweeps import find_faults, read_end, select
from .harness.killed_sweeps import NUM_FLOORS, NUM_TRAINED, SHORT
from .harness.stand_ins import StandInAttempt

NUM_TRIALS = NUM_TRAINED + NUM_FLOORS
YEARS = (0, 30, -20, 7, -3)
SECTIONS: dict[str, Any] = SHORT.sections | {"time_budget_h": 1.0, "stall_timeout_s": 600.0, "max_gpu_hours": 1.0}


def install_jumping_clock(patch: pytest.MonkeyPatch) -> list[datetime]:
    """Let every look at the wall clock of this process be years from the last one; return what was seen."""
    years, seen = itertools.cycle(YEARS), []
    true_time = time.time

    def jumping_time() -> float:
        seen.append(datetime.fromtimestamp(true_time(), UTC) + timedelta(days=365 * next(years)))
        return seen[-1].timestamp()

    class JumpingDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(jumping_time(), tz)

    patch.setattr(time, "time", jumping_time)
    patch.setattr(time, "time_ns", lambda: int(jumping_time() * 1e9))
    for name, module in list(sys.modules.items()):
        if name.startswith("orchestrator.") and getattr(module, "datetime", None) is datetime:
            patch.setattr(module, "datetime", JumpingDatetime)
    return seen


class Recorder(LocalExecutor):
    """Run trials here; keep the order in which they were handed out."""

    def __init__(self, datasets: Datasets, submitted: list[str]) -> None:
        super().__init__(datasets)
        self._submitted = submitted

    def submit(self, job: Job) -> Place:
        self._submitted.append(job.label)
        return super().submit(job)


Run = Callable[[str], tuple[Outcome, list[str], Path]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the sweep of stand-ins into a folder of a name, with the view that people see."""
    file = tmp_path / "jumps.yaml"
    file.write_text(json.dumps(SECTIONS))
    monkeypatch.setattr("orchestrator.execution.local.RunningJob", partial(StandInAttempt, pace_s=0.002))
    monkeypatch.setattr("orchestrator.reports.curves.draw_curves", lambda *_: None)

    def run_here(name: str) -> tuple[Outcome, list[str], Path]:
        sweep, submitted, folder = load_sweep(file), list[str](), tmp_path / name
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        with prepare_run(sweep, folder) as prepared:
            with closing(Recorder(prepared.datasets, submitted)) as executor:
                prepared.execute(executor, make_callbacks(console, prepared, executor))
            return prepared.finish(), submitted, folder

    return run_here


def test_a_wall_clock_that_jumps_by_years_changes_neither_order_nor_results_nor_budgets(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, steady_order, steady_folder = run("steady")
    with monkeypatch.context() as patch:
        seen = install_jumping_clock(patch)
        jumped, jumped_order, jumped_folder = run("jumped")
        with Ledger.read(jumped_folder / "ledger.sqlite") as ledger:
            render_status(SweepStatus.read(ledger))
    assert max(seen) - min(seen) > timedelta(days=365 * 40)
    assert len(seen) > 3 * NUM_TRIALS  # every beginning, start and end of a trial is dated
    assert find_faults(jumped_folder, num_trials=NUM_TRIALS, rungs=SHORT.rungs) == []
    assert jumped_order == steady_order
    assert jumped.finished
    assert all(record.skip_reason is None for record in jumped.records)
    ends = [read_end(folder) for folder in (steady_folder, jumped_folder)]
    assert (ends[0].results, ends[0].reports, ends[0].seconds) == (ends[1].results, ends[1].reports, ends[1].seconds)
    assert [ends[0].files[f"table.{kind}"] for kind in ("md", "csv")] == [
        ends[1].files[f"table.{kind}"] for kind in ("md", "csv")
    ]
    held = [row[0] for row in select(jumped_folder, "SELECT held_s FROM attempts")]
    assert all(0 <= seconds < 3600 for seconds in held)  # by the monotonic clock


def test_after_a_killed_driver_a_clock_that_was_set_back_does_not_make_the_old_attempt_the_newest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, folder = run("sweep")
    with monkeypatch.context() as patch:
        seen = install_jumping_clock(patch)
        with Ledger.open(folder / "ledger.sqlite") as ledger:
            first = ledger.records()[0]
            ledger._connection.execute("UPDATE attempts SET state = 'lost' WHERE trial_id = ?", (first.trial.trial_id,))
            attempts = []
            for _ in YEARS:
                attempts.append(ledger.begin_attempt(first.trial.trial_id, ResourceRequest()))
                ledger.release_running()
        assert seen
        assert attempts == list(range(2, 2 + len(YEARS)))
        again, order, _ = run("sweep")
    assert order == [first.trial.label]
    assert again.records[0].num_attempts == 2 + len(YEARS)
    assert again.records[0].metrics == first.metrics


def test_orders_given_while_the_clock_jumps_are_all_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=1.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    box = CommandInbox(tmp_path)
    given: list[Command] = [Prune(("a",)), Retry(("b",)), Prune(("c",)), Retry(("d",))]
    seen = install_jumping_clock(monkeypatch)
    for order in given:
        send(tmp_path, order)
    taken = list(box.receive())
    assert len(seen) == len(given)
    assert sorted(map(str, taken)) == sorted(map(str, given))
    assert list(box.receive()) == []
