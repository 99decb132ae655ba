from __future__ import annotations

import pytest

from orchestrator.cli.app import main
from orchestrator.cli.arguments import EXIT_STOPPED
from orchestrator.execution.capacity import ClusterError, ClusterLostError, Node
from orchestrator.execution.ray_cluster.health import COME_BACK_TIMEOUT_S, LOOK_PERIOD_S, ClusterHealth


class World:
    """Be the clock and the machines that listen."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.listening: set[str] = set()
        self.asked: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def answers(self, address: str, *, timeout_s: float) -> bool:  # noqa: ARG002
        self.asked.append(address)
        return address in self.listening


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watch(world: World) -> ClusterHealth:
    return ClusterHealth(clock=world.clock, answers=world.answers)


def test_a_look_is_due_once_in_a_period(world: World, watch: ClusterHealth) -> None:
    assert watch.is_due()
    assert not watch.is_due()
    world.now_s += LOOK_PERIOD_S
    assert watch.is_due()


def test_a_cluster_is_there_where_its_head_answers(world: World, watch: ClusterHealth) -> None:
    assert not watch.is_there("head:1")
    world.listening.add("head:1")
    assert watch.is_there("head:1")


def test_a_cluster_that_was_lost_is_gone_until_it_is_back_and_not_tried_at_once(
    world: World, watch: ClusterHealth
) -> None:
    assert not watch.is_gone
    watch.mark_lost()
    assert watch.is_gone
    assert not watch.is_due()
    watch.mark_back()
    assert not watch.is_gone


def test_a_cluster_that_stays_away_for_too_long_is_given_up_with_the_reason(world: World, watch: ClusterHealth) -> None:
    refused = ClusterError("nobody listens")
    watch.mark_lost()
    world.now_s += COME_BACK_TIMEOUT_S
    watch.raise_if_timed_out(refused)
    world.now_s += 1.0
    with pytest.raises(ClusterLostError, match="the cluster did not come back within 3600 s: nobody listens"):
        watch.raise_if_timed_out(refused)


def test_only_nodes_in_doubt_are_asked_and_silent_ones_are_left_out_until_they_answer(
    world: World, watch: ClusterHealth
) -> None:
    nodes = [Node("a", {}, address="a:1"), Node("b", {}, address="b:1"), Node("c", {}, address="c:1")]
    world.listening = {"a:1", "b:1"}
    assert watch.reachable(nodes) == nodes
    assert world.asked == []
    assert watch.reachable(nodes, suspects={"a", "c"}) == nodes[:2]
    assert world.asked == ["a:1", "c:1"]
    assert watch.reachable(nodes) == nodes[:2]
    assert world.asked[2:] == ["c:1"]
    world.listening.add("c:1")
    assert watch.reachable(nodes) == nodes
    assert watch.reachable(nodes) == nodes
    assert world.asked[3:] == ["c:1"]


def test_a_command_whose_cluster_did_not_come_back_ends_as_one_that_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose() -> None:
        raise ClusterLostError("the cluster did not come back")

    monkeypatch.setattr("orchestrator.cli.app.app", lose)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == EXIT_STOPPED
    assert capsys.readouterr().err == "specsweep: the cluster did not come back\n"
