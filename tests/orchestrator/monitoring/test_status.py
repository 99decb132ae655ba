from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from orchestrator.ledger.attempts import FailedTrial, RunningTrial
from orchestrator.ledger.provenance import Provenance, collect_provenance
from orchestrator.monitoring.status import SweepStatus, render_status
from orchestrator.monitoring.status_parts import Progress, estimate_left, progress_of
from orchestrator.run import describe
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.trial import Trial


@pytest.fixture
def shown(sweep: Sweep, trials: tuple[Trial, ...]) -> Callable[..., list[str]]:
    def show(
        records: Sequence[TrialRecord],
        provenance: Sequence[Provenance] = (),
        *,
        max_lines: int | None = None,
        **known: Any,
    ) -> list[str]:
        file = StringIO()
        standing = SweepStatus(describe(sweep, trials, {}), records, provenance, **known)
        rendered = render_status(standing, max_lines=max_lines)
        Console(file=file, width=200, highlight=False).print(rendered)
        return [line.rstrip() for line in file.getvalue().splitlines()]

    return show


def test_trials_are_counted_by_group_and_state(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    states = [State.DONE] * 3 + [State.PRUNED, State.FAILED, State.RUNNING] + [State.WAITING] * 2
    records = [record_of(trial, state) for trial, state in zip(trials, states, strict=True)]
    records = [
        replace(record, trial=replace(record.trial, group="model.scale=[b]nano" if index < 4 else "micro"))
        for index, record in enumerate(records)
    ]
    lines = shown(records)
    assert lines[:2] == ["tiny", "Does a tiny sweep run?"]
    assert lines[2].split() == ["group", "waiting", "running", "done", "pruned", "failed", "trials"]
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


def failure(trial: Trial, attempt: int, cause: Cause, error: str = "gone") -> FailedTrial:
    return FailedTrial(trial.trial_id, trial.label, "lost", attempt, 1, attempt, cause, error)


def test_trials_that_wait_again_show_their_attempts_and_their_last_failure(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [
        record_of(trials[0]),
        record_of(trials[1], num_attempts=1),
        record_of(trials[2], num_attempts=3),
        record_of(trials[3], num_attempts=2),
        record_of(trials[4], State.RUNNING, num_attempts=2, step=1, steps=4),
    ]
    failures = [
        failure(trials[2], 2, Cause.GPU_MEMORY, "[x]\x1b[2J"),
        failure(trials[3], 2, Cause.NODE),
        failure(trials[4], 1, Cause.WORKER),
    ]
    lines = shown(records, failures=failures)
    at = lines.index("running")
    assert lines[at + 1] == f"  {trials[4].label} (attempt 2, after worker): step 1/4"
    at = lines.index("waiting again")
    assert lines[at + 1 : at + 4] == [
        f"  {trials[1].label}: 1 attempt; the last one was lost with its run",
        f"  {trials[2].label}: 3 attempts; the last one was lost with its run; "
        r"attempt 2 failed, gpu memory: [x]\x1b[2J",
        f"  {trials[3].label}: 2 attempts; the last one failed, node: gone",
    ]
    assert len(lines) == at + 4


def test_trials_that_were_left_out_are_counted_by_reason(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    reasons = ["no GPU hours left", "no GPU hours left", "too late"]
    records = [
        record_of(trial, State.SKIPPED, skip_reason=reason)
        for trial, reason in zip(trials[:3], reasons, strict=True)
    ]
    lines = shown(records)
    assert lines[2].split() == ["group", "waiting", "running", "done", "pruned", "failed", "left", "out", "trials"]
    at = lines.index("left out")
    assert lines[at + 1 :] == ["  2 trials: no GPU hours left", "  1 trial: too late"]


def test_larger_shares_and_gpu_hours_are_shown_where_there_are_any(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    shares = {"nano": ResourceFloor(gpus=0.5, memory_gib=6.0, micro_batch=16), "mini": ResourceFloor(micro_batch=4)}
    lines = shown([record_of(trials[0])], resource_floors=shares, gpu_hours=1.25)
    assert lines[-3:] == [
        "GPU hours taken: 1.25",
        "since memory ran out, trials of scale nano get 0.5 GPUs a process, 6 GiB of memory a process, "
        "micro-batches of at most 16",
        "since memory ran out, trials of scale mini get micro-batches of at most 4",
    ]
    assert not any("GPU" in line or "memory" in line for line in shown([record_of(trials[0])]))


def test_the_cause_of_a_failure_is_named_unless_the_trial_raised(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [
        record_of(trial, State.FAILED, num_attempts=2, error="no\n\x1b[1mroom", cause=cause)
        for trial, cause in zip(trials[:2], (Cause.RAISED, Cause.HOST_MEMORY), strict=True)
    ]
    assert shown(records)[-2:] == [
        rf"  {trials[0].label} (attempt 2): no \x1b[1mroom",
        rf"  {trials[1].label} (attempt 2, host memory): no \x1b[1mroom",
    ]


def test_long_sections_are_cut_where_lines_are_counted(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [record_of(trial, State.FAILED, num_attempts=1, error="x") for trial in trials[:5]]
    lines = shown(records, max_lines=2)
    assert lines[lines.index("failed") + 1 :] == [
        *(f"  {trial.label} (attempt 1): x" for trial in trials[:2]),
        "  and 3 more",
    ]


@pytest.mark.parametrize(
    ("states", "is_held", "ended", "done"),
    [
        ([State.DONE, State.PRUNED, State.SKIPPED], True, True, True),
        ([State.DONE, State.FAILED], True, False, False),
        ([State.DONE, State.FAILED], False, True, False),
        ([State.DONE, State.RUNNING], True, False, False),
        ([State.RUNNING, State.WAITING], False, True, False),
    ],
)
def test_a_sweep_has_ended_where_no_run_is_or_none_has_anything_left_to_do(
    states: list[State], is_held: bool, ended: bool, done: bool,
    sweep: Sweep, trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord],
) -> None:  # fmt: skip
    records = [record_of(trial, state) for trial, state in zip(trials, states, strict=False)]
    standing = SweepStatus(describe(sweep, trials, {}), records, is_held=is_held)
    assert (standing.has_ended, standing.all_done) == (ended, done)


def test_time_left_rates_rungs_what_was_pruned_and_results_are_shown(
    shown: Callable[..., list[str]], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [
        record_of(trials[0], State.DONE, seconds=100.0, metrics={"knn_top1": 40.0}),
        record_of(trials[1], State.DONE, seconds=10.0, metrics={"knn_top1": 20.0}),
        record_of(trials[2], State.PRUNED, step=2, error="rung 1 (step 2): knn_top1 3, worse than 4"),
        record_of(trials[3], State.RUNNING, step=3, steps=4, num_attempts=1),
    ]
    running = {trials[3].trial_id: RunningTrial("2026-01-01T00:00:00.000+00:00", 310.4, Report(2, {"knn_top1": 33.33}))}
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    progress = progress_of(running, now=now)
    left = estimate_left(records, progress)
    lines = shown(records, progress=progress, seconds_left=left)
    # The trial is of the kind that takes 100 s (10 s, if it is a floor), and has run for 60.
    assert left == pytest.approx(0.0 if trials[3].role == "floor" else 40.0)
    assert lines[4] == f"about {left:.0f} s left"
    assert f"  {trials[3].label}: step 3/4, 310 images/s, 60 s so far; rung at step 2: knn_top1 33.3" in lines
    where = lines.index("pruned")
    assert lines[where + 1] == f"  {trials[2].label} at step 2: rung 1 (step 2): knn_top1 3, worse than 4"
    where = lines.index("results so far, means over the seeds that are done")
    assert lines[where + 1] == "  none: 1/1 done, kNN top-1 40.0"


def test_a_status_is_json_with_every_trial_and_why_it_ended(
    sweep: Sweep, trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [
        record_of(trials[0], State.FAILED, cause=Cause.DIVERGED, error="DivergenceError: the loss is nan"),
        record_of(trials[1], State.DONE, metrics={"knn_top1": float("nan"), "loss": 1.0}),
        record_of(trials[3], State.RUNNING, step=3, steps=4),
    ]
    progress = {trials[3].trial_id: Progress(60.0, 310.0, 2, {"knn_top1": 33.0})}
    standing = SweepStatus(describe(sweep, trials, {}), records, progress=progress, seconds_left=40.0)
    told = json.loads(json.dumps(standing.to_json(), allow_nan=False))
    assert (told["sweep"], told["is_running"], told["has_ended"], told["seconds_left"]) == ("tiny", True, False, 40.0)
    assert {state: count for state, count in told["counts"].items() if count} == {"running": 1, "done": 1, "failed": 1}
    failed, done, running = told["trials"]
    assert (failed["cause"], failed["why"]) == ("diverged", "DivergenceError: the loss is nan")
    assert failed["not_tried_again"] == "it would diverge again"
    assert done["metrics"] == {"knn_top1": None, "loss": 1.0}
    assert (running["images_per_s"], running["last_rung"]) == (310.0, {"step": 2, "metrics": {"knn_top1": 33.0}})
