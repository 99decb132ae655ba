from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from orchestrator.ledger.attempts import Attempt, FailedTrial, LogLine, TrialName
from orchestrator.monitoring.attempt_view import render_failures, render_history
from orchestrator.trials.records import Cause, Report

NAME = TrialName("ab" * 32, "nano [red]odd[/red] \x1b[31mseed 1")
FAILED = Attempt(
    number=1,
    state="failed",
    worker="node:17",
    submitted_at="2026-01-01T00:00:00.000+00:00",
    started_at="2026-01-01T00:00:01.000+00:00",
    ended_at="2026-01-01T00:00:09.000+00:00",
    step=6,
    steps=9,
    gpus=0.5,
    metrics={},
    reports=(Report(3, {"knn_top1": 33.333, "depth_rmse": float("nan")}),),
    logs=(LogLine("2026-01-01T00:00:02.000+00:00", "WARNING", "[bold]low\x07\nmemory"),),
    seconds=8.0,
    error="OutOfMemoryError: [x]\x1b]0;title\x07",
    traceback="Traceback:\n  [y]\x1b[2J\n",
    cause=Cause.GPU_MEMORY,
)
RUNNING = replace(
    FAILED, number=2, state="running", worker=None, started_at=None, ended_at=None, step=0, steps=None, gpus=0.0,
    reports=(), logs=(), seconds=None, error=None, traceback=None, cause=None,
)  # fmt: skip


def lines_of(shown: RenderableType, *, is_terminal: bool = False) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=40, highlight=False, force_terminal=is_terminal, color_system=None)
    console.print(shown, soft_wrap=True)
    return file.getvalue().splitlines()


def shown(attempts: Sequence[Attempt]) -> list[str]:
    return lines_of(render_history(NAME, attempts))


def test_a_failed_attempt_is_shown_whole_as_text() -> None:
    assert shown([FAILED]) == [
        rf"nano [red]odd[/red] \x1b[31mseed 1  {'ab' * 32}",
        "",
        "attempt 1: failed (gpu memory) on node:17",
        "  begun 2026-01-01T00:00:00.000+00:00, started 2026-01-01T00:00:01.000+00:00, "
        "ended 2026-01-01T00:00:09.000+00:00",
        "  step 6/9, 8.0 s, 0.5 GPUs",
        "  rung at step 3: knn_top1 33.33, depth_rmse nan",
        r"  2026-01-01T00:00:02.000+00:00 WARNING: [bold]low\x07",
        "  memory",
        r"  error: OutOfMemoryError: [x]\x1b]0;title\x07",
        "  Traceback:",
        r"    [y]\x1b[2J",
    ]


def test_what_is_not_known_of_an_attempt_is_left_open() -> None:
    assert shown([RUNNING])[2:] == [
        "attempt 2: running",
        "  begun 2026-01-01T00:00:00.000+00:00, started -, ended -",
        "  step 0/?",
    ]


def test_a_trial_without_attempts_says_so() -> None:
    assert shown([])[1:] == ["no attempt has begun"]


def test_a_trial_that_left_the_sweep_file_is_marked() -> None:
    head = lines_of(render_history(replace(NAME, in_sweep=False), []))[0]
    assert head.endswith("; the sweep file no longer has it")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("failed", r"abababababab  a[b] seed 1: 2 of 3 attempts failed; attempt 2, node: lost \x1bM"),
        ("done", r"abababababab  a[b] seed 1: 2 of 3 attempts failed, now done; attempt 2, node: lost \x1bM"),
    ],
)
def test_a_trial_that_failed_has_one_line(state: str, expected: str) -> None:
    trial = FailedTrial("ab" * 32, "a[b] seed 1", state, 3, 2, 2, Cause.NODE, "lost\n\x1bM")
    assert lines_of(render_failures([trial])) == [expected]


def test_where_nothing_failed_that_is_said() -> None:
    assert lines_of(render_failures([])) == ["no attempt has failed"]


def test_no_escape_sequence_reaches_a_terminal_without_colours() -> None:
    # bold and dim are rich's own; with them taken off, nothing may be left.
    text = "\n".join(lines_of(render_history(NAME, [FAILED]), is_terminal=True))
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "\x07" not in text


def test_a_pruned_attempt_says_why() -> None:
    pruned = replace(RUNNING, number=1, state="pruned", step=6, steps=9, seconds=3.0, error="by hand")
    assert shown([pruned])[-2:] == ["  step 6/9, 3.0 s", "  pruned: by hand"]
