from __future__ import annotations

import pytest

from orchestrator.executor import Event, Failed, Finished, Job, Pruned
from orchestrator.slot import Loss, Slot, ended_together
from orchestrator.trials import Trial

FAILED = Failed("a", 1, error="RuntimeError: connection reset", traceback="Traceback", seconds=3.0)
DIED = Loss("the actor died", "all of how it died", lost=True)
RAISED = Loss("MemoryError: no more", "all of what it raised", lost=False)


def test_a_slot_awaits_the_events_of_its_job_and_those_who_assist_until_it_is_free(trials: tuple[Trial, ...]) -> None:
    slot = Slot(workers=["main", "other"])
    assert slot.awaited == []
    job = Job(trials[0].trial_id, 1, trials[0].label, trials[0].config)
    slot.job, slot.events, slot.assisting, slot.core_seconds = job, "events", ["part"], 2.0
    assert slot.awaited == ["events", "part"]
    assert slot.free() is job
    assert (slot.awaited, slot.job, slot.core_seconds, slot.workers) == ([], None, 0.0, ["main", "other"])


def test_the_cpu_seconds_of_all_processes_add_up() -> None:
    end = Finished("a", 1, metrics={"loss": 1.0}, seconds=5.0, core_seconds=4.0)
    assert ended_together(end, core_seconds=3.5, losses=[]) == Finished(
        "a", 1, metrics={"loss": 1.0}, seconds=5.0, core_seconds=7.5
    )


@pytest.mark.parametrize("end", [FAILED, Pruned("a", 1, step=2, seconds=1.0)])
def test_an_end_to_which_there_is_nothing_to_add_stays_as_it_is(end: Event) -> None:
    assert ended_together(end, core_seconds=3.5, losses=[]) == end


def test_where_another_process_was_lost_the_attempt_was() -> None:
    end = ended_together(FAILED, core_seconds=0.0, losses=[RAISED, DIED])
    assert isinstance(end, Failed)
    assert (end.error, end.lost, end.seconds) == ("a worker was lost: the actor died", True, 3.0)
    assert end.traceback.splitlines() == ["Traceback", "all of what it raised", "all of how it died"]


def test_what_another_process_raised_is_told_beside_and_what_all_raised_once() -> None:
    same = Loss(FAILED.error, "the same", lost=False)
    end = ended_together(FAILED, core_seconds=0.0, losses=[same, RAISED, RAISED])
    assert isinstance(end, Failed)
    assert (end.error, end.lost) == (f"{FAILED.error}; another process: {RAISED.reason}", False)
