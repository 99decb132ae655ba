from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from orchestrator.provenance import Provenance, collect_provenance
from orchestrator.records import State, TrialRecord
from orchestrator.run import describe
from orchestrator.status import render_status
from orchestrator.sweep_schema import Sweep
from orchestrator.trials import Trial


@pytest.fixture
def shown(sweep: Sweep, trials: tuple[Trial, ...]) -> Callable[..., list[str]]:
    def show(records: Sequence[TrialRecord], provenance: Sequence[Provenance] = (), **held: bool) -> list[str]:
        file = StringIO()
        rendered = render_status(describe(sweep, trials, {}), records, provenance, **held)
        Console(file=file, width=200, highlight=False).print(rendered)
        return [line.rstrip() for line in file.getvalue().splitlines()]

    return show


def test_trials_are_counted_by_group_and_state(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    states = [State.DONE] * 3 + [State.PRUNED, State.FAILED, State.RUNNING] + [State.WAITING] * 2
    records = [record_of(trial, state) for trial, state in zip(trials, states, strict=True)]
    records = [replace(r, group="model.scale=[b]nano" if i < 4 else "micro") for i, r in enumerate(records)]
    lines = shown(records)
    assert lines[:2] == ["tiny", "Does a tiny sweep run?"]
    assert lines[2].split() == ["group", "waiting", "running", "done", "pruned", "failed", "left", "out", "trials"]
    assert lines[3].split() == ["model.scale=[b]nano", "3", "1", "4"]
    assert lines[4].split() == ["micro", "2", "1", "1", "4"]


def test_running_trials_show_their_step_and_failed_ones_their_error(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [
        record_of(trials[0], State.RUNNING, step=3, steps=4, num_attempts=1),
        record_of(trials[1], State.RUNNING, num_attempts=1),
        record_of(trials[2], State.FAILED, num_attempts=2, error="DataError: [x] is missing"),
    ]
    lines = shown(records)
    at = lines.index("running")
    assert lines[at + 1 : at + 3] == ["  nano none seed 0: step 3/4", "  nano random init seed 0: step 0/?"]
    at = lines.index("failed")
    assert lines[at + 1] == "  nano raw pixels seed 0 (attempt 2): DataError: [x] is missing"


def test_what_was_running_is_interrupted_where_no_run_holds_the_folder(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    lines = shown([record_of(trials[0], State.RUNNING, step=3, steps=4, num_attempts=1)], is_held=False)
    at = lines.index("interrupted: no run holds the results folder; run the sweep again to go on")
    assert lines[at + 1] == "  nano none seed 0: step 3/4"
    assert "running" not in lines


def test_the_last_run_is_named(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    first = replace(collect_provenance(), argv=("specsweep", "run", "old.yaml"))
    last = replace(first, argv=("specsweep", "run", "new.yaml"), host="node7", started_at="2026-01-01")
    lines = shown([record_of(trials[0])], [first, last])
    assert lines[-1] == "last run: started 2026-01-01 on node7: specsweep run new.yaml"
