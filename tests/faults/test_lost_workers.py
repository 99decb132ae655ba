"""Workers that are lost, stall, raise or run out of memory: every trial has its result once, and nothing is left."""

from __future__ import annotations

import json
import math
import os
import random
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.metrics import Sample
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.storage.checkpoint_store import StateFile
from orchestrator.sweep.grid import expand
from orchestrator.trials.events import END_STATES, Event, Pruned, Reported, Started
from orchestrator.trials.records import State
from orchestrator.trials.resources import ResourceRequest

from ..long_run import ONLY_LONG
from .harness.disturbed_runs import (
    Ground,
    Lent,
    Shared,
    Watcher,
    causes,
    check_invariants,
    make_ground,
    make_sweep,
    pid_of,
    ray_cluster,
    rows,
    shares_of,
    table,
    wait_until,
)
from .harness.processes import command_of, descendants_of, is_alive, kill
from .harness.stand_in import FAULT_STEP, HOLD_STEP, Fault

pytestmark = ONLY_LONG
HALF_A_CORE = ResourceRequest(cpus=0.5)
NUM_KILLS = 24
NUM_SEEDS = 8


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("ground") / "orders")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of one node, with a GPU that is none."""
    with ray_cluster(num_cpus=2, num_gpus=1, _system_config={"metrics_report_interval_ms": 500}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(cluster: Any, ground: Ground) -> Iterator[Shared]:
    """Hold the executor that tests share: two slots of the cluster, whose trials the stand-in computes."""
    shared = Shared(
        lambda: RayExecutor(
            ground.datasets, shares=[HALF_A_CORE], max_slots=2, address=cluster.address, runner=ground.stand_in
        )
    )
    yield shared
    shared.close()


@pytest.fixture
def executor(shared: Shared) -> RayExecutor:
    return shared.open()


def starting_workers() -> set[int]:
    """Return the ids of the workers that have not begun their first job."""
    return {pid for pid in descendants_of(os.getpid()) if "TrialActor.__init__" in command_of(pid)}


def test_trials_whose_workers_are_killed_at_any_time_go_on_to_the_table_of_an_undisturbed_run(
    executor: RayExecutor, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No trial ends well before the last kill: that is no fault of a slot or node, and nothing is to be waited for.
    monkeypatch.setattr("orchestrator.scheduling.faulty_places.SLOT_FAILURES", math.inf)
    monkeypatch.setattr("orchestrator.scheduling.faulty_places.NODE_FAILURES", math.inf)
    monkeypatch.setattr("orchestrator.scheduling.retries.LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr("orchestrator.scheduling.breaker.OUTAGE_S", math.inf)
    sweep = make_sweep(tmp_path, seeds=NUM_SEEDS, max_retries=1000, resources={"cpus": 0.5})
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, tmp_path / "whole")
    rng = random.Random(0)
    # Half of the trials die while they write their state, each once; the others die at a step, if there is time.
    kinds = ("dies while saving", "dies")
    faults = {t.trial_id: Fault(kinds[i % 2]) for i, t in enumerate(trials)}
    ground.stand_in.order(faults, step_s=0.02, hold=True)
    killed: list[int] = []
    killed_starting: set[int] = set()

    def on_tick() -> None:
        victims = watcher.running.keys()
        if len(killed) < NUM_KILLS and victims and rng.random() < 0.3:
            trial_id = rng.choice(sorted(victims))
            killed.append(watcher.running.pop(trial_id))
            kill(killed[-1])
        if not killed_starting and (starting := starting_workers()):
            killed_starting.add(min(starting))
            kill(min(starting))
        if len(killed) >= NUM_KILLS and killed_starting:
            ground.stand_in.release()

    watcher = Watcher(on_tick=on_tick)
    outcome = ground.run(sweep, tmp_path / "run", Lent(executor), watcher)
    assert outcome.num_failed == 0
    assert killed
    assert killed_starting
    check_invariants(tmp_path / "run", trials)
    assert table(tmp_path / "run") == whole
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert {cause for trial in trials for cause in causes(tmp_path / "run", trial)} == {"worker", None}
    steps = {
        trial.trial_id: [watcher.steps(trial.trial_id, n) for n in range(1, len(causes(tmp_path / "run", trial)) + 1)]
        for trial in trials
    }
    for of_trial in steps.values():  # nobody begins anew, and at most the step that was not saved is done again
        heard = [attempt for attempt in of_trial if attempt]
        assert all(after[0] >= before[-1] for before, after in pairwise(heard))
        assert heard[-1][0] >= FAULT_STEP


def test_workers_killed_while_idle_are_replaced_when_the_next_trials_come(
    executor: RayExecutor, ground: Ground, tmp_path: Path
) -> None:
    sweep = make_sweep(tmp_path, seeds=1, resources={"cpus": 0.5})
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, tmp_path / "whole")
    warm = Watcher()
    ground.run(sweep, tmp_path / "before", Lent(executor), warm)
    for pid in warm.pids:
        kill(pid)
    watcher = Watcher()
    outcome = ground.run(sweep, tmp_path / "run", Lent(executor), watcher)
    assert outcome.num_failed == 0
    assert not warm.pids & watcher.pids
    check_invariants(tmp_path / "run", trials)
    assert table(tmp_path / "run") == whole


def test_one_that_stalls_is_killed_and_one_that_raises_is_given_up_with_every_traceback_on_record(
    executor: RayExecutor, ground: Ground, tmp_path: Path
) -> None:
    limits = {"max_retries": 1, "stall_timeout_s": 8.0}
    sweep = make_sweep(tmp_path, seeds=1, resources={"cpus": 0.5}, **limits)
    raises, stops = expand(sweep)
    ground.stand_in.order({raises.trial_id: Fault("raises", 2), stops.trial_id: Fault("stops")})
    watcher = Watcher()
    outcome = ground.run(sweep, tmp_path / "run", Lent(executor), watcher)
    assert [record.state for record in outcome.records] == [State.FAILED, State.DONE]
    check_invariants(tmp_path / "run", [stops])
    assert causes(tmp_path / "run", stops) == ["stalled", None]
    assert watcher.steps(stops.trial_id, 2)[0] >= FAULT_STEP  # a signal can come a step late
    stalled = next(e for e in watcher.events if isinstance(e, Started) and e.trial_id == stops.trial_id)
    wait_until(lambda: not is_alive(pid_of(stalled)))
    failures = rows(
        tmp_path / "run", "SELECT error, traceback FROM attempts WHERE trial_id = ? ORDER BY attempt", raises.trial_id
    )
    assert len(failures) == 2
    for error, traceback in failures:
        assert error == f"ArithmeticError: ordered at step {FAULT_STEP}"
        assert traceback.startswith("Traceback (most recent call last):")
        assert error in traceback
    assert watcher.steps(raises.trial_id, 2)[0] >= FAULT_STEP - 1  # it goes on from its state


def test_a_trial_out_of_gpu_memory_gets_a_larger_share_then_smaller_batches_and_its_siblings_begin_with_them(
    executor: RayExecutor, ground: Ground, tmp_path: Path
) -> None:
    sweep = make_sweep(tmp_path, seeds=6, max_retries=0, resources={"cpus": 0.5, "gpus": 0.5})
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, tmp_path / "whole")
    ground.stand_in.order({trials[0].trial_id: Fault("memory", 2)}, step_s=0.05)
    watcher = Watcher()
    outcome = ground.run(sweep, tmp_path / "run", Lent(executor), watcher)
    assert outcome.num_failed == 0
    check_invariants(tmp_path / "run", trials)
    assert table(tmp_path / "run") == whole
    assert causes(tmp_path / "run", trials[0]) == ["gpu_memory", "gpu_memory", None]
    assert [why for _, why in watcher.again] == ["with 1 GPUs in place of 0.5", "with micro_batch 4"]
    assert [share["gpus"] for share in shares_of(tmp_path / "run", trials[0].trial_id)] == [0.5, 1.0, 1.0]
    later = rows(
        tmp_path / "run",
        "SELECT share FROM attempts WHERE trial_id <> ?1 AND submitted_at > "
        "(SELECT ended_at FROM attempts WHERE trial_id = ?1 AND attempt = 1)",
        trials[0].trial_id,
    )
    assert {json.loads(share)["gpus"] for (share,) in later} == {1.0}
    # It went on from its state, as no exception of its own had ended it.
    assert watcher.steps(trials[0].trial_id, 3)[0] == FAULT_STEP


def test_real_trials_whose_workers_are_killed_go_on_bit_for_bit(
    executor: RayExecutor, ground: Ground, tmp_path: Path
) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 18, "batch_size": 8}
    # Rungs stand at steps 6 and 12.
    sweep = make_sweep(tmp_path, seeds=4, objective=objective, resources={"cpus": 0.5})
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, tmp_path / "whole", real=True)
    killed: set[str] = set()

    def on_event(event: Event) -> None:
        if isinstance(event, Reported) and event.trial_id not in killed:
            killed.add(event.trial_id)
            kill(watcher.running[event.trial_id])

    watcher = Watcher(on_event)
    ground.stand_in.stand_aside()
    outcome = ground.run(sweep, tmp_path / "run", Lent(executor), watcher)
    assert outcome.num_failed == 0
    assert killed == {trial.trial_id for trial in trials}
    check_invariants(tmp_path / "run", trials, rungs=(6, 12))
    assert table(tmp_path / "run") == whole
    for trial in trials:
        assert causes(tmp_path / "run", trial) == ["worker", None]
        assert watcher.steps(trial.trial_id, 2)[0] >= 5  # a rung is told of before the step's state is saved


def test_an_order_to_stop_reaches_a_trial_whose_worker_has_not_begun(
    executor: RayExecutor, ground: Ground, tmp_path: Path
) -> None:
    (trial,) = expand(make_sweep(tmp_path, seeds=1, ablate={"components": ["none"]}))
    ground.stand_in.order({}, hold=True)
    state = StateFile(tmp_path / "states" / "of_it.json", every_s=3600.0)
    executor.submit(Job(trial.trial_id, 1, trial.label, trial.config, state=state, share=HALF_A_CORE))
    executor.prune(trial.trial_id)
    events: list[Event] = []
    wait_until(lambda: events.extend(executor.poll(0.1)) or (events and type(events[-1]) in END_STATES))
    pruned = events[-1]
    assert isinstance(pruned, Pruned)
    assert pruned.step < HOLD_STEP
    assert not state.location.exists()


def test_metrics_of_a_sweep_are_served_where_prometheus_looks(executor: RayExecutor) -> None:
    import ray

    tags = {"sweep": "disturbed", "state": "done"}
    (node,) = ray.nodes()
    address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"

    def served() -> str:
        executor.publish(
            [
                Sample("specsweep_trials", 3.0, tags),
                Sample("specsweep_retries", 1.0, {"sweep": "disturbed", "cause": "worker"}, is_counter=True),
            ]
        )
        time.sleep(0.5)
        with urllib.request.urlopen(address, timeout=10.0) as answer:
            return "\n".join(line for line in answer.read().decode().splitlines() if "specsweep" in line)

    wait_until(lambda: "ray_specsweep_trials{" in (text := served()) and "ray_specsweep_retries" in text)
    lines = [line for line in served().splitlines() if line.startswith("ray_specsweep_trials{")]
    (line,) = lines
    assert line.endswith(" 3.0")
    assert 'state="done"' in line
    assert 'sweep="disturbed"' in line


def test_ctrl_c_saves_states_on_ray_and_the_next_run_goes_on_from_them(
    executor: RayExecutor, shared: Shared, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(tmp_path, seeds=1, resources={"cpus": 0.5}, checkpoint_every_s=3600)
    trials = expand(sweep)
    whole = ground.undisturbed_table(sweep, tmp_path / "whole")
    ground.stand_in.order({}, hold=True)
    stopped_at = HOLD_STEP

    def on_event(event: Event) -> None:
        watcher.wants_to_stop = all(stopped_at in watcher.steps(trial.trial_id, 1) for trial in trials)

    watcher = Watcher(on_event)
    outcome = ground.run(sweep, tmp_path / "run", executor, watcher)
    shared.close()  # the run has closed it
    assert not outcome.finished
    states = {path.stem for path in (tmp_path / "run" / "checkpoints").glob("[!.]*")}
    assert states == {trial.trial_id for trial in trials}
    wait_until(lambda: not any(map(is_alive, watcher.pids)))
    ground.stand_in.order({}, step_s=0.0)
    again = Watcher()
    monkeypatch.setattr("specvit.trial.run_trial", ground.stand_in)
    ground.run(sweep, tmp_path / "run", LocalExecutor(ground.datasets), again)
    check_invariants(tmp_path / "run", trials)
    assert table(tmp_path / "run") == whole
    for trial in trials:
        assert again.steps(trial.trial_id, 2)[0] > stopped_at
    assert rows(tmp_path / "run", "SELECT DISTINCT state FROM attempts WHERE attempt = 1") == [("lost",)]
