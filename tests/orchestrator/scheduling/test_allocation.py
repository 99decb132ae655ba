from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.capacity import Node, count_slots, machine_for
from orchestrator.execution.executor import Machine
from orchestrator.scheduling.allocation import Allocator, grow_after_oom
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.memory import GIB

NOWHERE = Machine()


@pytest.fixture
def nano(trials: tuple[Trial, ...]) -> Trial:
    return trials[0]


@pytest.fixture
def micro(make_sweep: Callable[..., Sweep]) -> Trial:
    return expand(make_sweep(model={"scale": "micro"}))[0]


def grow(allocator: Allocator, trial: Trial, cause: Cause = Cause.GPU_MEMORY, machine: Machine = NOWHERE) -> str:
    """Say that an attempt with what the trial gets now ran out of memory."""
    return allocator.grow(
        trial,
        ran_with=allocator.request_for(trial),
        ran_config=allocator.config_of(trial),
        cause=cause,
        machine=machine,
    )


def test_a_share_is_that_of_the_scale(nano: Trial, micro: Trial) -> None:
    allocator = Allocator(Resources(cpus=2, by_scale={"micro": {"gpus": 0.5}}))
    assert allocator.request_for(nano) == ResourceRequest(cpus=2.0)
    assert allocator.request_for(micro) == ResourceRequest(cpus=2.0, gpus=0.5)
    assert allocator.config_of(nano) is nano.config


def test_growth_is_for_the_scale_and_is_remembered_each_time(nano: Trial, micro: Trial) -> None:
    remembered: list[tuple[str, ResourceFloor]] = []
    allocator = Allocator(Resources(gpus=0.5), remember=lambda *given: remembered.append(given))
    sibling = replace(nano, trial_id="sibling")
    assert grow(allocator, nano) == "1 GPUs in place of 0.5"
    assert (allocator.request_for(sibling).gpus, allocator.request_for(micro).gpus) == (1.0, 0.5)
    assert grow(allocator, sibling) == "micro_batch 4"
    assert remembered == [("nano", ResourceFloor(1.0)), ("nano", ResourceFloor(1.0, 0.0, 4))]
    assert allocator.config_of(nano).objective.micro_batch == 4
    assert allocator.config_of(micro) is micro.config


def test_what_earlier_runs_found_out_is_the_least_and_the_file_may_say_more(nano: Trial) -> None:
    known = {"nano": ResourceFloor(gpus=0.5, memory_gib=16.0, micro_batch=2)}
    allocator = Allocator(Resources(gpus=0.25, memory_gib=32), known)
    assert allocator.request_for(nano) == ResourceRequest(gpus=0.5, memory_gib=32.0)
    assert allocator.config_of(nano).objective.micro_batch == 2
    assert Allocator(Resources(gpus=1), known).request_for(nano).gpus == 1.0


def test_a_micro_batch_of_the_file_that_is_small_enough_stays(nano: Trial) -> None:
    small = replace(nano, config=replace(nano.config, objective=replace(nano.config.objective, micro_batch=2)))
    allocator = Allocator(Resources(), {"nano": ResourceFloor(micro_batch=4)})
    assert allocator.config_of(small) is small.config
    assert allocator.config_of(nano).objective.micro_batch == 4
    assert replace(nano.config, objective=allocator.config_of(nano).objective) == allocator.config_of(nano)


def test_an_attempt_with_less_than_its_siblings_get_by_now_adds_nothing(nano: Trial) -> None:
    remembered: list[object] = []
    allocator = Allocator(Resources(gpus=0.25), remember=lambda *given: remembered.append(given))
    old = allocator.request_for(nano)
    grow(allocator, nano)
    text = allocator.grow(nano, ran_with=old, ran_config=nano.config, cause=Cause.GPU_MEMORY, machine=NOWHERE)
    assert text == "0.5 GPUs in place of 0.25"
    assert allocator.request_for(nano).gpus == 0.5
    assert len(remembered) == 1


def test_an_attempt_with_a_larger_micro_batch_than_its_siblings_have_by_now_adds_nothing(nano: Trial) -> None:
    allocator = Allocator(Resources())
    assert grow(allocator, nano) == "micro_batch 4"
    text = allocator.grow(
        nano, ran_with=allocator.request_for(nano), ran_config=nano.config, cause=Cause.HOST_MEMORY, machine=NOWHERE
    )
    assert text == "micro_batch 4"
    assert allocator.config_of(nano).objective.micro_batch == 4


def test_when_there_is_nothing_to_add_nothing_is_said_nor_remembered(nano: Trial) -> None:
    remembered: list[Any] = []
    allocator = Allocator(Resources(), remember=lambda *given: remembered.append(given))
    texts = [grow(allocator, nano) for _ in range(5)]
    # A batch of 8 images: 4, 2, 1.
    assert texts == ["micro_batch 4", "micro_batch 2", "micro_batch 1", "", ""]
    assert len(remembered) == 3


def test_host_memory_that_is_reserved_keeps_a_smaller_micro_batch(nano: Trial) -> None:
    allocator = Allocator(Resources(gpus=1))
    machine = Machine(memory_gib=64.0, num_trials=2)
    assert grow(allocator, nano) == "micro_batch 4"
    assert grow(allocator, nano, Cause.HOST_MEMORY, machine) == "64.0 GiB of the machine's memory reserved"
    assert allocator.config_of(nano).objective.micro_batch == 4
    assert grow(allocator, nano, Cause.HOST_MEMORY, machine) == "micro_batch 2"


def test_of_several_processes_each_computes_fewer_images_than_its_part_of_the_batch(nano: Trial) -> None:
    allocator = Allocator(Resources(gpus=1, processes=4))
    # 8 images, 2 on each.
    assert [grow(allocator, nano) for _ in range(2)] == ["micro_batch 1", ""]


def host_memory_of_attempts(trial: Trial, resources: Resources, nodes: list[Node]) -> list[float]:
    """Let a trial run out of its machine's memory as long as it gets more; return what each attempt had, in GiB."""
    allocator, had = Allocator(resources), []
    for _ in range(20):
        share = allocator.request_for(trial)
        assert count_slots(nodes, share, max_slots=1) == 1, f"no room for {share}"
        had.append(share.memory_gib)
        if not grow(allocator, trial, Cause.HOST_MEMORY, machine_for(nodes, share)):
            return had
    raise AssertionError("it grows without end")


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("num_nodes", [1, 2])
def test_a_share_that_grew_has_room_on_the_cluster_on_which_it_did(
    processes: int, num_nodes: int, nano: Trial
) -> None:
    nodes = [Node(str(number), {"CPU": 8.0, "memory": 64.0 * GIB}) for number in range(num_nodes)]
    had = host_memory_of_attempts(nano, Resources(processes=processes), nodes)
    assert max(had) == 64.0 / processes


def test_the_first_memory_that_several_processes_reserve_is_more_than_they_had_by_chance(nano: Trial) -> None:
    nodes = [Node("a", {"CPU": 8.0, "memory": 64.0 * GIB})]
    _, second, *_ = host_memory_of_attempts(nano, Resources(processes=2), nodes)
    # Four trials of two processes: an eighth each.
    assert second == 2 * 64 / 8


def grown(
    share: ResourceRequest, cause: Cause, *, micro_batch: int = 32, node_gib: float = 0.0, num_beside: int = 1
) -> object:
    return grow_after_oom(share, cause, micro_batch=micro_batch, node_gib=node_gib, num_beside=num_beside)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (0.1, ResourceFloor(0.2)),
        (0.5, ResourceFloor(1.0)),
        (0.7, ResourceFloor(1.0)),
        (1.0, ResourceFloor(1.0, 0.0, 16)),
        (2.0, ResourceFloor(2.0, 0.0, 16)),
        (0.0, ResourceFloor(0.0, 0.0, 16)),
    ],
)
def test_a_part_of_a_gpu_doubles_up_to_a_whole_one(gpus: float, expected: ResourceFloor) -> None:
    assert grown(ResourceRequest(gpus=gpus), Cause.GPU_MEMORY) == expected


@pytest.mark.parametrize(
    ("share", "node_gib", "num_beside", "expected"),
    [
        (ResourceRequest(), 64.0, 4, ResourceFloor(0.0, 32.0)),  # had a quarter of 64
        (ResourceRequest(memory_gib=20.0), 64.0, 3, ResourceFloor(0.0, 2 * 64 / 3)),  # had more than it reserved
        (ResourceRequest(memory_gib=24.0), 64.0, 4, ResourceFloor(0.0, 48.0)),
        (ResourceRequest(memory_gib=40.0), 64.0, 1, ResourceFloor(0.0, 40.0, 16)),  # was alone: had it all
        (ResourceRequest(memory_gib=64.0), 64.0, 1, ResourceFloor(0.0, 64.0, 16)),
        (ResourceRequest(processes=2), 64.0, 2, ResourceFloor(0.0, 32.0)),  # each of two had 16
        (ResourceRequest(gpus=0.5), 64.0, 2, ResourceFloor(0.5, 64.0)),
        (ResourceRequest(), 0.0, 4, ResourceFloor(0.0, 0.0, 16)),  # not known
    ],
)
def test_memory_of_a_machine_doubles_up_to_all_of_it(
    share: ResourceRequest, node_gib: float, num_beside: int, expected: ResourceFloor
) -> None:
    assert grown(share, Cause.HOST_MEMORY, node_gib=node_gib, num_beside=num_beside) == expected


@pytest.mark.parametrize("cause", [Cause.GPU_MEMORY, Cause.HOST_MEMORY])
def test_a_single_image_on_all_that_there_is_cannot_get_more(cause: Cause) -> None:
    assert grown(ResourceRequest(gpus=1.0, memory_gib=8.0), cause, micro_batch=1, node_gib=8.0) is None


@given(
    gpus=st.one_of(st.floats(0.01, 1.0), st.integers(0, 8).map(float)),
    memory_gib=st.floats(0.0, 64.0),
    micro_batch=st.integers(1, 4096),
    num_beside=st.integers(1, 64),
    causes=st.lists(st.sampled_from([Cause.GPU_MEMORY, Cause.HOST_MEMORY]), min_size=100, max_size=100),
)
def test_growing_always_adds_something_and_comes_to_an_end(
    gpus: float, memory_gib: float, micro_batch: int, num_beside: int, causes: list[Cause]
) -> None:
    share, size, seen = ResourceRequest(gpus=gpus, memory_gib=memory_gib), micro_batch, set()
    for cause in causes:
        larger = grow_after_oom(share, cause, micro_batch=size, node_gib=64.0, num_beside=num_beside)
        if larger is None:
            break
        now = (larger.gpus, larger.memory_gib, -(larger.micro_batch or size))
        before = (share.gpus, share.memory_gib, -size)
        assert now != before
        assert all(a >= b for a, b in zip(now, before, strict=True))
        assert larger.memory_gib <= 64.0
        assert now not in seen
        seen.add(now)
        share, size = ResourceRequest(gpus=larger.gpus, memory_gib=larger.memory_gib), larger.micro_batch or size
    else:
        pytest.fail("it grows without end")
