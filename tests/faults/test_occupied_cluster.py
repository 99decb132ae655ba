"""A cluster whose GPUs others hold: trials wait or are pending, cost nothing meanwhile, and run once there is room.

The GPUs are logical ones: Ray hands them out, and nobody computes on them.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.ray_cluster.connection import free_amounts
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.execution.worker import Runner
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.monitoring.status import SweepStatus
from orchestrator.sweep.grid import expand
from orchestrator.trials.records import State
from orchestrator.trials.resources import ResourceRequest

from ..long_run import ONLY_LONG
from .harness.disturbed_runs import (
    Ground,
    Lent,
    Watcher,
    causes,
    check_invariants,
    make_ground,
    make_sweep,
    ray_cluster,
    rows,
    wait_until,
)

pytestmark = ONLY_LONG

HOLD_GPUS = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_gpus=2, num_cpus=0)
class Holder:
    def is_up(self): return True
holder = Holder.remote()
ray.get(holder.is_up.remote())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("ground") / "orders")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of one node with two GPUs that are none."""
    with ray_cluster(num_cpus=2, num_gpus=2) as cluster:
        yield cluster


class Others:
    """Another job of the cluster, which takes both GPUs and lets them go."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._process: subprocess.Popen[str] | None = None

    def take(self) -> None:
        command = [sys.executable, "-c", HOLD_GPUS, self._address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"

    def let_go(self) -> None:
        if self._process is not None:
            self._process.communicate("")
            self._process = None


@pytest.fixture
def others(cluster: Any) -> Iterator[Others]:
    others = Others(cluster.address)
    yield others
    others.let_go()


@contextmanager
def executor_of(
    cluster: Any, ground: Ground, *shares: ResourceRequest, runner: Runner | None = None
) -> Iterator[RayExecutor]:
    executor = RayExecutor(
        ground.datasets, shares=shares, max_slots=9, address=cluster.address, runner=runner or ground.stand_in
    )
    try:
        yield executor
    finally:
        executor.close()


def test_workers_see_the_gpus_of_their_share_and_no_others(cluster: Any, ground: Ground, tmp_path: Path) -> None:
    def count_gpus(*_: object, **__: object) -> Any:
        import os

        from specvit.trial import TrialResult

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return TrialResult({"visible": -1.0 if visible is None else float(len(list(filter(None, visible.split(",")))))})

    seen = {}
    for gpus in (0, 0.5, 2):
        sweep = make_sweep(tmp_path, seeds=1, ablate={"components": ["none"]}, resources={"cpus": 0.5, "gpus": gpus})
        with executor_of(cluster, ground, ResourceRequest(0.5, gpus), runner=count_gpus) as executor:
            outcome = ground.run(sweep, tmp_path / f"{gpus} GPUs", executor)
        seen[gpus] = outcome.records[0].metrics["visible"]
    assert seen == {0: 0.0, 0.5: 1.0, 2: 2.0}


def test_a_run_waits_for_gpus_that_others_hold_says_so_and_is_charged_from_the_start_of_its_workers(
    cluster: Any,
    ground: Ground,
    others: Others,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("orchestrator.scheduling.standstill.STANDSTILL_S", 1.0)
    sweep = make_sweep(
        tmp_path, seeds=1, resources={"cpus": 0.5, "gpus": 1}, max_gpu_hours=1.0, stall_timeout_s=5, max_retries=0
    )
    folder = tmp_path / "run"
    ground.stand_in.order({}, step_s=0.02)
    others.take()

    told: list[str] = []

    def on_tick() -> None:
        if not told and len(caplog.messages) >= 3:  # for three seconds at least, nothing happened
            told.extend(caplog.messages)
            assert rows(folder, "SELECT COUNT(*) FROM attempts") == [(0,)]
            others.let_go()

    with caplog.at_level(logging.WARNING), executor_of(cluster, ground, ResourceRequest(0.5, 1)) as executor:
        assert executor.num_slots == 0
        assert executor.held_by_others().startswith("others hold 2 of 2 GPUs; jobs beside this one: ")
        ground.run(sweep, folder, executor, Watcher(on_tick=on_tick))
    trials = expand(sweep)
    check_invariants(folder, trials)
    assert causes(folder, trials[0]) == [None]
    label = trials[0].label
    assert told[0].startswith(f"nothing runs: there is no room for {label}, which takes 0.5 cores, 1 GPU; others hold")


def test_an_actor_that_ray_cannot_place_is_pending_then_waits_again_and_its_trial_has_not_failed(
    cluster: Any, ground: Ground, others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others take the GPUs in the moment between a look at the nodes and the start of a worker."""
    sweep = make_sweep(
        tmp_path, seeds=1, ablate={"components": ["none"]}, resources={"cpus": 0.5, "gpus": 2},
        max_gpu_hours=1.0, stall_timeout_s=5, start_timeout_s=8, max_retries=0,
    )
    (trial,) = expand(sweep)
    folder = tmp_path / "run"
    ground.stand_in.order({}, step_s=0.02)
    seen: list[State] = []
    is_late = True
    monkeypatch.setattr(
        "orchestrator.execution.ray_cluster.cluster.free_amounts", lambda: {} if is_late else free_amounts()
    )

    def on_tick() -> None:
        nonlocal is_late
        with Ledger.read(folder / LEDGER_NAME) as reader:
            seen.append(reader.records()[0].state)
            assert seen[-1] is not State.PENDING or SweepStatus.read(reader).gpu_hours == 0.0
        if watcher.again and is_late:
            is_late = False
            others.let_go()

    others.take()
    with executor_of(cluster, ground, ResourceRequest(0.5, 2)) as executor:
        watcher = Watcher(on_tick=on_tick)
        ground.run(sweep, folder, executor, watcher)
    check_invariants(folder, [trial])
    assert causes(folder, trial)[0] == "node"
    assert causes(folder, trial)[-1] is None
    assert {why for _, why in watcher.again} >= {"retry 1 of 20"}
    assert seen[0] is State.PENDING
    ((held_s,),) = rows(folder, "SELECT SUM(held_s) FROM attempts WHERE started_at IS NULL")
    assert held_s == 0.0


def test_gpus_of_slots_that_have_nothing_to_do_are_let_go(
    cluster: Any, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("orchestrator.execution.ray_cluster.slot_pool.IDLE_S", 1.0)
    sweep = make_sweep(tmp_path, seeds=1, ablate={"components": ["none"]}, resources={"cpus": 0.5, "gpus": 1})
    ground.stand_in.order({}, step_s=0.02)
    with executor_of(cluster, ground, ResourceRequest(0.5, 1)) as executor:
        ground.run(sweep, tmp_path / "run", Lent(executor))
        wait_until(lambda: ray.available_resources().get("GPU", 0.0) == 1.0)

        def is_let_go() -> bool:
            executor.poll(0.1)
            return ray.available_resources().get("GPU", 0.0) == 2.0

        wait_until(is_let_go)
        assert executor.has_room(ResourceRequest(0.5, 2))


def test_an_autoscaler_is_asked_for_room_for_as_many_jobs_as_can_run_at_once(cluster: Any, ground: Ground) -> None:
    from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    def asked() -> object:
        return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "null")

    small, large = ResourceRequest(0.5, 0.5), ResourceRequest(0.5, 1, processes=2)
    with executor_of(cluster, ground, small, large) as executor:
        executor.ask_for({large: 2, small: 100})
        process, job = {"CPU": 0.5, "GPU": 1}, {"CPU": 0.5, "GPU": 0.5}
        assert asked() == [process] * 4 + [job] * 7  # two of two processes each, and nine jobs at once at most
        executor.ask_for({})
        assert asked() == []
