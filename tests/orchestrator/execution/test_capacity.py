from __future__ import annotations

import itertools

import pytest

from orchestrator.execution.capacity import (
    Capacity,
    ClusterError,
    LowerBound,
    Node,
    check_room,
    count_slots,
    describe_others,
    machine_for,
)
from orchestrator.execution.executor import Machine
from orchestrator.trials.resources import ResourceRequest
from specvit.memory import GIB

Labels = dict[str, str]
NUMBERS = itertools.count()


def node(cpus: float, gpus: float = 0.0, gib: float = 1.0, labels: Labels | None = None, **custom: float) -> Node:
    has = {"CPU": cpus, "memory": gib * GIB, **custom} | ({"GPU": gpus} if gpus else {})
    return Node(f"node {next(NUMBERS)}", has, labels or {})


@pytest.mark.parametrize(
    ("nodes", "share", "slots"),
    [
        ([node(4)], ResourceRequest(), 4),
        ([node(4)], ResourceRequest(cpus=0.5), 8),
        ([node(4)], ResourceRequest(cpus=3), 1),
        ([node(3), node(3)], ResourceRequest(cpus=2), 2),  # 6 CPUs, but each node has room for one
        ([node(8, 2)], ResourceRequest(gpus=0.25), 8),
        ([node(8, 2)], ResourceRequest(gpus=0.4), 4),  # two on each GPU
        ([node(8, 2)], ResourceRequest(gpus=1), 2),
        ([node(8, 5)], ResourceRequest(gpus=2), 2),
        ([node(1, 4)], ResourceRequest(gpus=1), 1),
        ([node(4)], ResourceRequest(processes=2), 2),
        ([node(4)], ResourceRequest(processes=3), 1),
        ([node(3), node(3)], ResourceRequest(cpus=2, processes=2), 1),  # one process on each
        ([node(16, 8), node(16, 8)], ResourceRequest(gpus=1, processes=4), 4),
        ([node(0.3)], ResourceRequest(cpus=0.1), 3),
        ([node(1000)], ResourceRequest(), 20),
        ([node(8, gib=10)], ResourceRequest(memory_gib=3), 3),
        ([node(8, disk=2)], ResourceRequest(custom=(("disk", 0.5),)), 4),
        ([node(8)], ResourceRequest(custom=(("disk", 1.0),)), 0),
        ([node(8), node(4, labels={"kind": "A100"})], ResourceRequest(labels=(("kind", "A100"),)), 4),
        ([node(8, 2), node(8, 2, labels={"kind": "A100"})], ResourceRequest(gpus=0.5, labels=(("kind", "A100"),)), 4),
    ],
)
def test_slots_are_counted_node_by_node(nodes: list[Node], share: ResourceRequest, slots: int) -> None:
    assert count_slots(nodes, share, max_slots=20) == slots


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (ResourceRequest(cpus=5), "a trial takes 5 CPUs, but the cluster has 4"),
        (ResourceRequest(gpus=2), "a trial takes 2 GPUs, but the cluster has 1"),
        (ResourceRequest(processes=5), "a trial takes 5 CPUs (5 processes of 1), but the cluster has 4"),
        (
            ResourceRequest(cpus=4),
            "a trial takes 1 process with 4 CPUs and 0 GPUs on one node, but the nodes of the cluster have room for 0",
        ),
        (ResourceRequest(memory_gib=4), "a trial takes 4 GiB of memory, but the cluster has 2"),
        (ResourceRequest(custom=(("disk", 1.0),)), "a trial takes 1 disk, but the cluster has 0"),
        (
            ResourceRequest(labels=(("kind", "A100"),)),
            "a trial takes 1 process with 1 CPUs and 0 GPUs on one node, kind=A100, "
            "but the nodes of the cluster have room for 0",
        ),
        (
            ResourceRequest(cpus=2, processes=2, gpus=0.5),
            "a trial takes 2 processes with 2 CPUs and 0.5 GPUs on one node, "
            "but the nodes of the cluster have room for 1",
        ),
    ],
)
def test_a_cluster_without_room_for_a_trial_is_refused(share: ResourceRequest, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        check_room([node(1), node(3, 1)], share)
    assert str(caught.value) == message


def test_room_that_is_given_back_is_free_again_and_shares_of_different_kinds_fill_the_rest() -> None:
    capacity = Capacity([node(4, 4)])
    large, small = ResourceRequest(gpus=3), ResourceRequest(gpus=0.5)
    taken = capacity.reserve(large)
    assert taken is not None
    assert capacity.reserve(large) is None
    assert [capacity.reserve(small) is not None for _ in range(3)] == [True, True, False]
    capacity.release(taken)
    assert capacity.reserve(large) is not None


def test_a_trial_of_several_processes_takes_all_or_nothing() -> None:
    capacity = Capacity([node(1), node(2)])
    assert capacity.reserve(ResourceRequest(processes=4)) is None
    places = capacity.reserve(ResourceRequest(processes=3))
    assert places is not None
    assert len({place.node_id for place in places}) == 2


def test_places_on_a_node_that_is_gone_are_forgotten() -> None:
    first, second = node(1), node(1)
    places = Capacity([first, second]).reserve(ResourceRequest(processes=2))
    assert places is not None
    capacity = Capacity([second])
    capacity.mark_used(places)
    assert capacity.reserve(ResourceRequest()) is None
    capacity.release(places)
    assert capacity.reserve(ResourceRequest()) is not None
    assert capacity.reserve(ResourceRequest()) is None


def test_the_machine_of_a_share_is_the_one_with_the_most_memory_that_has_room_for_it() -> None:
    nodes = [node(4, gib=64), node(8, 2, gib=32), node(8, 1, gib=16)]
    assert machine_for(nodes, ResourceRequest(cpus=2)) == Machine(64.0, 2)
    assert machine_for(nodes, ResourceRequest(gpus=0.5)) == Machine(32.0, 4)
    assert machine_for(nodes, ResourceRequest(gpus=3)) == Machine()


def test_what_others_hold_is_told_with_who_they_may_be() -> None:
    nodes = [Node("a", {"CPU": 8.0, "GPU": 4.0, "memory": 4 * GIB}), Node("b", {"CPU": 8.0, "GPU": 4.0})]
    others = {"a": {"GPU": 4.0, "memory": GIB}, "b": {"GPU": 0.5}}
    held = "others hold 4.5 of 8 GPUs, 1 of 4 GiB of memory"
    assert describe_others(nodes, others, []) == held
    assert describe_others(nodes, others, ["one", "two"]) == f"{held}; jobs beside this one: one; two"
    assert describe_others(nodes, others, list("abcde")) == f"{held}; jobs beside this one: a; b; c; and 2 more"
    assert describe_others(nodes, {}, ["one"]) == ""


GPU_NODE = Node("a", {"CPU": 64.0, "GPU": 8.0})
ONE, EIGHT, THREE, CORES = (ResourceRequest(1, 1), ResourceRequest(1, 8), ResourceRequest(1, 3), ResourceRequest(32))


@pytest.mark.parametrize(
    ("work", "max_slots", "expected"),
    [
        ({}, 9, 0.0),
        ({ONE: 80.0}, 99, 10.0),
        ({ONE: 80.0}, 4, 20.0),
        ({ONE: 80.0, EIGHT: 5.0}, 99, 15.0),  # 80 + 40 GPU seconds on 8 GPUs
        ({THREE: 10.0}, 99, 5.0),  # two at once, though 8 / 3 is more
        ({THREE: 10.0, ONE: 2.0}, 99, 5.0),  # beside them there is room for others
        ({CORES: 6.0, ONE: 8.0}, 99, 3.125),  # 6 * 32 + 8 core seconds on 64 cores
        ({ResourceRequest(1, 1, processes=4): 6.0}, 99, 3.0),
        ({ResourceRequest(1, 99): 6.0}, 99, 99 * 6 / 8),
    ],
)
def test_no_schedule_is_shorter_than_the_lower_bound(
    work: dict[ResourceRequest, float], max_slots: int, expected: float
) -> None:
    assert LowerBound([GPU_NODE], max_slots=max_slots).seconds(work) == pytest.approx(expected)
