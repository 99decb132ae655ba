from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.failures import (
    ExitKind,
    WorkerLoss,
    cause_of_loss,
    is_connection_error,
    lost_attempt,
    merge_outcomes,
    reason_of,
)
from orchestrator.trials.events import Event, Failed, Finished, Pruned
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial

FAILED = Failed("a", 1, error="RuntimeError: connection reset", traceback="Traceback", seconds=3.0)
DIED = WorkerLoss("the actor died", "all of how it died", ExitKind.LOST)
RAISED = WorkerLoss("MemoryError: no more", "all of what it raised", ExitKind.RAISED)
SILENT = WorkerLoss("it does not answer", "", ExitKind.SILENT)
CLOSED = WorkerLoss(
    "RuntimeError: [pair.cc:547] Connection closed by peer [127.0.0.1]:1", "its traceback", ExitKind.RAISED
)
DIVERGED = replace(FAILED, error="DivergenceError: the loss is nan at step 3 of 4")


def test_the_cpu_seconds_of_all_processes_add_up() -> None:
    end = Finished("a", 1, metrics={"loss": 1.0}, seconds=5.0, core_seconds=4.0)
    assert merge_outcomes(end, core_seconds=3.5, losses=[]) == Finished(
        "a", 1, metrics={"loss": 1.0}, seconds=5.0, core_seconds=7.5
    )


@pytest.mark.parametrize("end", [FAILED, Pruned("a", 1, step=2, seconds=1.0)])
def test_an_end_to_which_there_is_nothing_to_add_stays_as_it_is(end: Event) -> None:
    assert merge_outcomes(end, core_seconds=3.5, losses=[]) == end


def test_where_another_process_was_lost_the_attempt_was() -> None:
    end = merge_outcomes(FAILED, core_seconds=0.0, losses=[RAISED, DIED])
    assert isinstance(end, Failed)
    assert (end.error, end.cause is Cause.WORKER, end.seconds) == ("a worker was lost: the actor died", True, 3.0)
    assert end.traceback.splitlines() == ["Traceback", "all of what it raised", "all of how it died"]


def test_what_another_process_raised_is_told_beside_and_what_all_raised_once() -> None:
    same = WorkerLoss(FAILED.error, "the same", ExitKind.RAISED)
    end = merge_outcomes(FAILED, core_seconds=0.0, losses=[same, RAISED, RAISED])
    assert isinstance(end, Failed)
    assert (end.error, end.cause is Cause.WORKER) == (f"{FAILED.error}; another process: {RAISED.reason}", False)


def error_of(end: Failed, *losses: WorkerLoss) -> tuple[str, bool]:
    merged = merge_outcomes(end, core_seconds=0.0, losses=losses)
    assert isinstance(merged, Failed)
    assert all(loss.text in merged.traceback for loss in losses)
    return merged.error, merged.cause is Cause.WORKER


def test_the_cause_is_told_and_not_that_the_others_heard_no_more() -> None:
    assert error_of(DIVERGED, CLOSED) == (DIVERGED.error, False)
    assert error_of(DIVERGED, SILENT) == (f"{DIVERGED.error}; another process: it does not answer", False)
    assert error_of(DIVERGED, DIED) == (f"a worker was lost: the actor died; the main process: {DIVERGED.error}", True)
    assert error_of(DIVERGED, CLOSED, RAISED) == (f"{DIVERGED.error}; another process: {RAISED.reason}", False)


def test_a_silent_process_was_lost_if_the_main_one_heard_no_more_of_it_and_nobody_tells_another_cause() -> None:
    assert error_of(FAILED, SILENT) == ("a worker was lost: it does not answer", True)
    assert error_of(FAILED, SILENT, CLOSED) == ("a worker was lost: it does not answer", True)
    expected = f"{FAILED.error}; another process: {RAISED.reason}; another process: it does not answer"
    assert error_of(FAILED, SILENT, RAISED) == (expected, False)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (CLOSED.reason, True),
        ("RuntimeError: [unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete", True),
        ("DistStoreError: wait timeout after 300000ms, keys: /here/1", True),
        ("DistBackendError: NCCL error in: x.cpp:1, remote process exited or there was a network error", True),
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied", False),
        ("DataError: the connection to the data timed out", False),
        ("MemoryError: ", False),
    ],
)
def test_it_is_told_whether_an_error_is_of_messages(reason: str, expected: bool) -> None:
    assert is_connection_error(reason) is expected


def test_the_reason_of_an_error_is_a_line_about_its_cause_if_it_has_one() -> None:
    error = RuntimeError("a task failed\nat length")
    assert reason_of(error) == "a task failed"
    error.cause = MemoryError("no more\nof it")  # type: ignore[attr-defined]
    assert reason_of(error) == "MemoryError: no more"
    assert reason_of(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR", Cause.WORKER),
        ("The actor is dead because its worker process has died. The process was killed by SIGKILL", Cause.WORKER),
        ("The actor died because its node has died. Node Id: 5f2a", Cause.NODE),
        ("The node it ran on was preempted", Cause.NODE),
        ("Task was killed due to the node running low on memory.", Cause.HOST_MEMORY),
        ("Worker was killed since the memory usage threshold was exceeded; its node has died", Cause.HOST_MEMORY),
        ("", Cause.WORKER),
    ],
)
def test_the_cause_of_a_loss_is_told_by_the_words_of_it(text: str, cause: Cause) -> None:
    assert cause_of_loss(text) is cause


def test_a_lost_attempt_is_a_failure_of_its_job(trials: tuple[Trial, ...]) -> None:
    job = Job(trials[0].trial_id, 4, trials[0].label, trials[0].config)
    expected = Failed(job.trial_id, 4, error="gone", traceback="", cause=Cause.NODE)
    assert lost_attempt(job, "gone", Cause.NODE) == expected
