from __future__ import annotations

import pytest

from orchestrator.cluster import ClusterError, count_slots
from orchestrator.sweep_schema import Resources


def node(cpus: float, gpus: float = 0.0) -> dict[str, float]:
    return {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})


@pytest.mark.parametrize(
    ("nodes", "resources", "slots"),
    [
        ([node(4)], Resources(), 4),
        ([node(4)], Resources(cpus=0.5), 8),
        ([node(4)], Resources(cpus=3), 1),
        ([node(3), node(3)], Resources(cpus=2), 2),  # 6 CPUs, but each node has room for one
        ([node(8, 2)], Resources(gpus=0.25), 8),
        ([node(8, 2)], Resources(gpus=0.4), 4),  # two on each GPU
        ([node(8, 2)], Resources(gpus=1), 2),
        ([node(8, 5)], Resources(gpus=2), 2),
        ([node(1, 4)], Resources(gpus=1), 1),
        ([node(4)], Resources(processes=2), 2),
        ([node(4)], Resources(processes=3), 1),
        ([node(3), node(3)], Resources(cpus=2, processes=2), 1),  # one process on each
        ([node(16, 8), node(16, 8)], Resources(gpus=1, processes=4), 4),
        ([node(0.3)], Resources(cpus=0.1), 3),
        ([node(1000)], Resources(), 20),
    ],
)
def test_slots_are_counted_node_by_node(nodes: list[dict[str, float]], resources: Resources, slots: int) -> None:
    assert count_slots(nodes, resources, max_slots=20) == slots


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(cpus=5), "a trial takes 5 CPUs, but the cluster has 4"),
        (Resources(gpus=2), "a trial takes 2 GPUs, but the cluster has 1"),
        (Resources(processes=5), "a trial takes 5 CPUs (5 processes of 1), but the cluster has 4"),
        (
            Resources(cpus=4),
            "a trial takes 1 process with 4 CPUs and 0 GPUs on one node, but the nodes of the cluster have room for 0",
        ),
        (
            Resources(cpus=2, processes=2, gpus=0.5),
            "a trial takes 2 processes with 2 CPUs and 0.5 GPUs on one node, "
            "but the nodes of the cluster have room for 1",
        ),
    ],
)
def test_a_cluster_without_room_for_a_trial_is_refused(resources: Resources, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        count_slots([node(1), node(3, 1)], resources, max_slots=1)
    assert str(caught.value) == message
