"""Nodes that go, come, are drained or are not fit: every trial has its result once, and nothing is left."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.execution.ray_cluster.node_check import NodeRequirements
from orchestrator.execution.ray_cluster.reachability import is_reachable
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Event, Progressed, Started
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..long_run import ONLY_LONG
from ..waiting import wait_for_end
from .harness.disturbed_runs import (
    Ground,
    Watcher,
    causes,
    check_invariants,
    count,
    make_ground,
    make_sweep,
    pid_of,
    ray_cluster,
    shares_of,
    table,
    wait_until,
    write_sweep,
)
from .harness.processes import descendants_of, is_alive, kill, parent_of
from .harness.stand_in import FAULT_STEP, Fault

pytestmark = ONLY_LONG

PROGRAM, RAY = (str(Path(sys.executable).with_name(name)) for name in ("specsweep", "ray"))
OTHER_CODE = replace(NodeRequirements.of_this_code(), code="other")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("ground") / "orders")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of three nodes."""
    with ray_cluster(num_cpus=1) as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=1, wait=False)
        cluster.wait_for_nodes()
        yield cluster


def raylet_of(node: Any) -> int:
    """Return the id of the process that is a node, and the parent of its workers."""
    return int(node.all_processes["raylet"][0].process.pid)


def drain(node_id: str, *, deadline_s: float) -> None:
    """Announce that a node will go, as clouds do of their spot machines."""
    import ray

    client = ray._private.worker.global_worker.gcs_client
    is_accepted, why = client.drain_node(node_id, 2, "preempted", int(1000 * (time.time() + deadline_s)))
    assert is_accepted, why


@dataclass
class Story:
    """Lose, add and drain nodes while a sweep runs, one after the other.

    Attributes:
        running: Returns the trials and attempts that have begun and not ended.
        unfit: A node that comes with other code.
        nodes: The node that each attempt began on, by trial and attempt; None = one that was gone by then.
        hung: The trial whose node is lost while it writes its state.
        lost: That node.
        orphans: The processes that were of that node.
        late: A node that comes, is used, and is drained.
        drained: The trial and attempt that ran there when it was.
    """

    cluster: Any
    ground: Ground
    executor: RayExecutor
    running: Callable[[], Collection[tuple[str, int]]]
    unfit: Any
    nodes: dict[tuple[str, int], Any] = field(default_factory=dict)
    hung: str = ""
    lost: Any = None
    orphans: set[int] = field(default_factory=set)
    late: Any = None
    drained: tuple[str, int] | None = None

    def on_event(self, event: Event) -> None:
        """Hear of an event."""
        if isinstance(event, Started):
            nodes = {raylet_of(node): node for node in self.cluster.list_all_nodes()}
            node = self.nodes[event.trial_id, event.attempt] = nodes.get(parent_of(pid_of(event)))
            if not self.hung and node not in (None, self.cluster.head_node):
                self.hung = event.trial_id
                self.ground.stand_in.add(event.trial_id, Fault("hangs while saving"))
        is_late = self.late is not None and self.nodes.get((event.trial_id, event.attempt)) is self.late
        if isinstance(event, Progressed) and is_late and self.drained is None:
            self.drained = event.trial_id, event.attempt
            drain(self.late.node_id, deadline_s=600.0)

    def on_tick(self) -> None:
        """Hear that time has passed."""
        is_unfit_checked = self.unfit.node_id in self.executor._cluster._admission._passed
        if self.lost is None and is_unfit_checked and self.ground.stand_in.is_hanging(self.hung):
            self.executor._cluster._admission._wanted = NodeRequirements.of_this_code()
            self.lost = self.nodes[self.hung, 1]
            self.orphans = descendants_of(raylet_of(self.lost))
            self.cluster.remove_node(self.lost, allow_graceful=False)
            self.late = self.cluster.add_node(num_cpus=1, wait=False)
        elif self.drained is not None and self.drained not in self.running():
            self.ground.stand_in.release()


@dataclass
class Told:
    """Hold what is left of the story."""

    story: Story
    watcher: Watcher
    folder: Path
    trials: dict[str, Trial]
    table: str
    log: str


@pytest.fixture(scope="module")
def told(cluster: Any, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Run a sweep through the story, in which no trial may be tried again for a fault of its own."""
    folder = tmp_path_factory.mktemp("story")
    sweep = make_sweep(folder, seeds=20, max_retries=0)
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, folder / "whole")
    ground.stand_in.order({}, step_s=0.02, hold=True)
    executor = RayExecutor(
        ground.datasets, shares=[ResourceRequest()], max_slots=4, address=cluster.address, runner=ground.stand_in
    )
    executor._cluster._admission._wanted = OTHER_CODE  # of nodes that come
    unfit = cluster.add_node(num_cpus=1, wait=False)
    story = Story(cluster, ground, executor, lambda: watcher.attempts, unfit)
    watcher = Watcher(story.on_event, story.on_tick)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("orchestrator").addHandler(handler)
    try:
        ground.run(sweep, folder / "run", executor, watcher)
    finally:
        logging.getLogger("orchestrator").removeHandler(handler)
    return Told(story, watcher, folder / "run", {trial.trial_id: trial for trial in trials}, whole, log.getvalue())


def test_a_sweep_whose_nodes_come_and_go_has_the_table_of_an_undisturbed_run(told: Told) -> None:
    check_invariants(told.folder, list(told.trials.values()))
    assert table(told.folder) == told.table
    assert not (told.folder / "checkpoints").exists()


def test_the_trial_of_a_node_lost_during_a_write_goes_on_elsewhere_and_it_does_not_count_as_a_retry(told: Told) -> None:
    story = told.story
    assert causes(told.folder, told.trials[story.hung])[0] == "node"  # no retry was allowed
    assert story.nodes[story.hung, 2] not in (None, story.lost)
    assert told.watcher.steps(story.hung, 2)[0] == FAULT_STEP  # the state of the step before was whole
    wait_until(lambda: not any(map(is_alive, story.orphans)))


def test_a_node_that_comes_is_used(told: Told) -> None:
    assert any(node is told.story.late for node in told.story.nodes.values())


def test_the_trial_of_a_drained_node_saves_its_state_and_goes_on_elsewhere_and_the_node_is_left(told: Told) -> None:
    story = told.story
    assert story.drained is not None
    trial_id, attempt = story.drained
    after = trial_id, attempt + 1
    assert causes(told.folder, told.trials[trial_id])[attempt - 1 :] == ["node", None]
    assert errors_of(told, trial_id)[-1].startswith("it was asked to go on elsewhere, at step ")
    assert told.watcher.steps(*after)[0] == told.watcher.steps(*story.drained)[-1] + 1
    order = list(story.nodes)
    assert not any(story.nodes[key] is story.late for key in order[order.index(after) :])


def test_a_node_with_other_code_is_warned_of_and_not_used(told: Told) -> None:
    assert not any(node is told.story.unfit for node in told.story.nodes.values())
    assert f"node {told.story.unfit.node_id[:12]} has joined the cluster, but is not used: " in told.log
    assert "has other code of specsweep than the driver" in told.log


def errors_of(told: Told, trial_id: str) -> list[str]:
    """Return how the attempts at a trial failed, in order."""
    return [event.error for event, _ in told.watcher.again if event.trial_id == trial_id]


def test_a_cluster_that_begins_with_a_node_of_other_code_is_refused(cluster: Any, ground: Ground) -> None:
    with pytest.raises(ClusterError, match=r"node [0-9a-f]{12} of the cluster: .* has other code of specsweep"):
        RayExecutor(
            ground.datasets, shares=[ResourceRequest()], max_slots=1, address=cluster.address, wanted=OTHER_CODE
        )


def test_trials_share_a_gpu_on_the_node_that_has_their_label_and_their_resource(
    cluster: Any, ground: Ground, tmp_path: Path
) -> None:
    labels = {"zone": "b"}
    of_both = {"num_cpus": 1, "num_gpus": 1, "resources": {"fast_disk": 1}}
    node, _ = cluster.add_node(labels=labels, **of_both), cluster.add_node(**of_both)
    of_nano = {"gpus": 0.25, "custom": {"fast_disk": 0.25}, "labels": labels}
    sweep = make_sweep(tmp_path, seeds=2, resources={"cpus": 0.25, "nano": of_nano})
    trials = expand(sweep)
    ground.stand_in.order({}, hold=True)
    parents: set[int] = set()

    def on_event(event: Event) -> None:
        if isinstance(event, Started):
            parents.add(parent_of(pid_of(event)))
        if len(set(watcher.running.values())) == 4:  # until then they wait for each other
            ground.stand_in.release()

    watcher = Watcher(on_event)

    def make_executor(shares: Sequence[ResourceRequest]) -> RayExecutor:
        made = RayExecutor(
            ground.datasets, shares=shares, max_slots=99, address=cluster.address, runner=ground.stand_in
        )
        assert made.num_slots == 4
        return made

    ground.run(sweep, tmp_path / "run", make_executor, watcher)
    check_invariants(tmp_path / "run", trials)
    assert len(watcher.pids) == 4
    assert parents == {raylet_of(node)}
    for trial in trials:
        (share,) = shares_of(tmp_path / "run", trial.trial_id)
        assert (share["gpus"], share["custom"], share["labels"]) == (0.25, [["fast_disk", 0.25]], [["zone", "b"]])


class Head:
    """Start the head of a cluster at the same port again and again, as a subprocess, and kill it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the head, and wait until it listens."""
        command = [RAY, "start", "--head", "--block", f"--port={self.port}", "--num-cpus=1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: is_reachable(f"127.0.0.1:{self.port}", timeout_s=1.0))

    def kill(self) -> None:
        """Kill the head and all its processes, as a power cut would."""
        if self._process is not None:
            processes = descendants_of(self._process.pid)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for pid in processes:
                kill(pid)
            wait_until(lambda: not any(map(is_alive, processes)))
            self._process = None


def test_a_driver_whose_head_is_killed_waits_joins_again_and_ends_with_the_same_table(
    ground: Ground, tmp_path: Path
) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 60, "batch_size": 8}
    file = write_sweep(tmp_path, objective=objective, seeds=2, max_retries=0)
    trials = expand(load_sweep(file))
    whole = ground.undisturbed_table(load_sweep(file), tmp_path / "whole", real=True)
    folder = tmp_path / "disturbed"
    head = Head()
    head.start()
    command = [PROGRAM, "run", str(file), "--results", str(tmp_path), "--address", f"127.0.0.1:{head.port}"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: count(folder, "attempts WHERE step > 0") or driver.poll() is not None)
        head.kill()
        wait_until(lambda: count(folder, "attempts WHERE cause = 'node'") or driver.poll() is not None)
        assert driver.poll() is None
        head.start()
        output, _ = wait_for_end(driver)
        assert driver.returncode == 0, output
    finally:
        kill(driver.pid)
        driver.wait()
        head.kill()
    check_invariants(folder, trials, rungs=(20, 40))
    assert table(folder) == whole
    assert "is gone; waiting for it to come back" in output
    assert "the Ray cluster is back" in output
