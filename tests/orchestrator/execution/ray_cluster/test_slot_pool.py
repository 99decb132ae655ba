from __future__ import annotations

import pytest

from orchestrator.execution.capacity import Node
from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.slot_pool import IDLE_S, Slot, SlotPool
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

SMALL, LARGE = ResourceRequest(cpus=1), ResourceRequest(cpus=3)


@pytest.fixture
def stopped() -> list[Slot]:
    return []


@pytest.fixture
def slots(stopped: list[Slot]) -> SlotPool:
    """Keep slots on one node of four cores."""
    slots = SlotPool(stopped.append)
    slots.set_nodes([Node("a", {"CPU": 4.0})])
    return slots


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 1, trials[0].label, trials[0].config)


def busy(slots: SlotPool, share: ResourceRequest, job: Job) -> Slot:
    slot = slots.acquire(share)
    slot.job = job
    return slot


def test_a_slot_awaits_the_events_of_its_job_and_those_who_assist_until_it_is_free(trials: tuple[Trial, ...]) -> None:
    slot = Slot(workers=["main", "other"])
    assert slot.awaited == []
    job = Job(trials[0].trial_id, 1, trials[0].label, trials[0].config)
    slot.job, slot.events, slot.assisting, slot.core_seconds = job, "events", ["part"], 2.0
    assert slot.awaited == ["events", "part"]
    assert slot.free() is job
    assert (slot.awaited, slot.job, slot.core_seconds, slot.workers) == ([], None, 0.0, ["main", "other"])


def test_a_free_slot_of_the_same_share_is_taken_again(slots: SlotPool, job: Job) -> None:
    slot = busy(slots, SMALL, job)
    slot.free()
    assert slots.acquire(SMALL) is slot
    assert len(list(slots)) == 1


def test_busy_slots_fill_the_node_and_no_more(slots: SlotPool, job: Job) -> None:
    taken = [busy(slots, SMALL, job) for _ in range(4)]
    assert not slots.has_room(SMALL)
    assert slots.running(job.trial_id) == slots.busy == taken


def test_free_slots_of_another_share_give_way_and_busy_ones_do_not(
    slots: SlotPool, job: Job, stopped: list[Slot]
) -> None:
    first, second = busy(slots, SMALL, job), busy(slots, SMALL, job)
    assert not slots.has_room(LARGE)
    second.free()
    assert slots.has_room(LARGE)
    assert stopped == []  # to ask changes nothing
    assert busy(slots, LARGE, job) in list(slots)
    assert stopped == [second]
    assert first in list(slots)
    assert not slots.has_room(SMALL)


def test_a_slot_that_is_about_to_go_takes_no_other_job(slots: SlotPool, job: Job) -> None:
    slot = busy(slots, SMALL, job)
    slot.is_leaving = True
    slot.free()
    assert slots.acquire(SMALL) is not slot


def test_the_room_of_a_slot_that_is_closed_twice_is_given_back_once(
    slots: SlotPool, job: Job, stopped: list[Slot]
) -> None:
    slot = busy(slots, LARGE, job)
    slots.close(slot)
    busy(slots, LARGE, job)
    slots.close(slot)
    assert stopped == [slot]
    assert not slots.has_room(LARGE)
    assert slots.has_room(SMALL)


def test_on_nodes_that_join_there_is_room_and_what_runs_on_lost_ones_counts_no_more(slots: SlotPool, job: Job) -> None:
    for _ in range(4):
        busy(slots, SMALL, job)
    slots.set_nodes([Node("a", {"CPU": 4.0}), Node("b", {"CPU": 1.0})])
    assert slots.count(SMALL, at_most=10) == 5
    busy(slots, SMALL, job)
    assert not slots.has_room(SMALL)
    slots.set_nodes([Node("b", {"CPU": 1.0}), Node("c", {"CPU": 3.0})])
    assert slots.count(SMALL, at_most=10) == 4
    assert slots.has_room(LARGE)
    slots.clear()
    assert not slots.has_room(SMALL)


def test_a_slot_to_avoid_is_neither_used_nor_closed_and_keeps_its_room(
    slots: SlotPool, job: Job, stopped: list[Slot]
) -> None:
    slot = busy(slots, SMALL, job)
    slot.free()
    avoid = frozenset({slot.slot_id})
    assert slots.acquire(SMALL, avoid) is not slot
    whole = ResourceRequest(cpus=4)
    assert (slots.has_room(whole), slots.has_room(whole, avoid), slots.fits(whole, avoid)) == (True, False, False)
    assert slots.fits(LARGE, avoid)
    assert stopped == []


def test_a_node_to_avoid_takes_no_job(slots: SlotPool, job: Job) -> None:
    slot = busy(slots, SMALL, job)
    slot.free()
    avoid = frozenset({"a"})
    assert not slots.has_room(SMALL, avoid)
    assert not slots.fits(SMALL, avoid)
    slots.set_nodes([Node("a", {"CPU": 4.0}), Node("b", {"CPU": 1.0})])
    assert slots.has_room(SMALL, avoid)
    assert slots.acquire(SMALL, avoid).place.nodes == {"b"}


def test_what_others_hold_is_no_room_until_they_let_it_go(slots: SlotPool, job: Job) -> None:
    node = Node("a", {"CPU": 4.0, "object_store_memory": 9.0, "node:1.2.3.4": 1.0})
    busy(slots, SMALL, job)
    slots.set_nodes([node], {"a": {"CPU": 0.5}})  # ours 1, others 2.5
    assert slots.others == {"a": {"CPU": 2.5}}
    assert not slots.has_room(SMALL)
    assert (slots.count(SMALL, at_most=9), slots.fits(LARGE), slots.fits(SMALL)) == (1, False, True)
    slots.set_nodes([node], {"a": {"CPU": 2.0}})
    assert slots.has_room(SMALL)
    assert not slots.has_room(LARGE)
    slots.set_nodes([node], {"a": {"CPU": 4.0}})  # our worker is on its way: what it takes is not others'
    assert slots.others == {}
    assert slots.has_room(LARGE)
    slots.set_nodes([node])
    assert slots.count(SMALL, at_most=9) == 4


def test_gpus_that_others_hold_leave_whole_ones_and_parts_where_they_fit(slots: SlotPool) -> None:
    whole, half = ResourceRequest(cpus=0.1, gpus=1.0), ResourceRequest(cpus=0.1, gpus=0.5)
    node = Node("a", {"CPU": 4.0, "GPU": 2.0})
    slots.set_nodes([node], {"a": {"CPU": 4.0, "GPU": 0.5}})  # others have one and a half
    assert (slots.count(whole, at_most=9), slots.count(half, at_most=9)) == (0, 1)
    slots.set_nodes([node], {"a": {"CPU": 4.0, "GPU": 1.5}})
    assert (slots.count(whole, at_most=9), slots.count(half, at_most=9)) == (1, 3)


def test_a_slot_that_is_free_for_long_is_closed_and_one_that_is_used_in_between_is_not(
    job: Job, stopped: list[Slot]
) -> None:
    now_s = 0.0
    slots = SlotPool(stopped.append, clock=lambda: now_s)
    slots.set_nodes([Node("a", {"CPU": 4.0})])
    first, second = busy(slots, SMALL, job), busy(slots, SMALL, job)
    first.free()
    second.free()
    slots.close_idle()
    now_s = IDLE_S - 1
    second.job = job
    slots.close_idle()
    second.free()
    now_s = IDLE_S + 1
    slots.close_idle()
    assert stopped == [first]
    assert list(slots) == [second]
