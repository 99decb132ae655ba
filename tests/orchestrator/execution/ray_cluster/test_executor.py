from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import ray
from pandas.testing import assert_frame_equal

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor, Job
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.execution.ray_cluster.reachability import asks_for_token
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.run import load_datasets
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits, Sweep
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.events import Event, Failed, Finished, Pruned, Reported, Started
from orchestrator.trials.records import Cause, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

from ....faults.harness.disturbed_runs import Lent, Watcher, pid_of, run, wait_until
from ....faults.harness.processes import kill
from .. import executor_contract
from ..executor_contract import (
    LONG,
    POISONS,
    RAISES,
    SHORT,
    WorkerContract,
    end_of,
    events_until,
    is_end,
    job_of,
    play_or_run,
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Sweep:
    return load_sweep(write_sweep(tmp_path_factory.mktemp("sweep"), seeds=1, resources={"cpus": ALONE.cpus}))


@pytest.fixture(scope="module")
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture(scope="module")
def datasets(trials: tuple[Trial, ...]) -> Mapping[DataSource, Dataset]:
    return load_datasets(trials)


@pytest.fixture(scope="module")
def executor(datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Start Ray once for all tests of this file, with two workers that share a core."""
    ray.cloudpickle.register_pickle_by_value(executor_contract)  # workers cannot import it
    executor = RayExecutor(datasets, shares=[ALONE], max_slots=2, runner=play_or_run, job_name="tiny")
    yield executor
    executor.close()
    executor.close()


@pytest.fixture(scope="module")
def pair(executor: RayExecutor, datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Lend a slot of two processes on the cluster that is up; it stays up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.execution.ray_cluster.cluster.connect", lambda *_, **__: "")
        patch.setattr("ray.shutdown", lambda: None)
        pair = RayExecutor(datasets, shares=[PAIR], max_slots=1)
        yield pair
        pair.close()


ALONE, PAIR = ResourceRequest(cpus=0.5), ResourceRequest(cpus=0.25, processes=2)


def real_job(trial: Trial, *, attempt: int = 1, label: str = "", share: ResourceRequest = ALONE) -> Job:
    return Job(trial.trial_id, attempt, label or trial.label, trial.config, share=share)


def ray_token() -> str:
    """Return the token of Ray's that this user has."""
    return (Path.home() / ".ray" / "auth_token").read_text().strip()


def may_trace() -> bool:
    """Return whether this user may look into processes that it did not start."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"


def long_trial(make_sweep: Callable[..., Sweep]) -> Trial:
    """Return a trial that goes on until it is stopped; its data are those of the other trials."""
    objective = {"recipe": "dinov2_cpu", "steps": 100_000, "batch_size": 8}
    return expand(make_sweep(objective=objective, rungs={"count": 9_999, "num_images": 8}))[0]


class TestContract(WorkerContract):
    """The contract of all executors."""

    share = ALONE
    num_slots = 2


def test_the_dashboard_listens_to_this_machine_alone(executor: RayExecutor) -> None:
    url = urlsplit(executor.dashboard_url)
    assert (url.scheme, url.hostname) == ("http", "127.0.0.1")
    assert url.port is not None
    socket.create_connection(("127.0.0.1", url.port), timeout=10.0).close()


@pytest.mark.usefixtures("executor")
def test_our_own_cluster_asks_for_a_token() -> None:
    assert asks_for_token(ray.get_runtime_context().gcs_address)


def test_the_agent_of_our_own_dashboard_has_a_port_of_its_own(executor: RayExecutor) -> None:
    """Ray's default would be taken where another Ray runs on the machine."""
    node = ray._private.worker._global_node  # type: ignore[attr-defined]
    assert executor.dashboard_url
    assert node.dashboard_agent_listen_port not in (0, 52365)


def test_the_same_sweep_has_the_same_table_through_both_executors(
    executor: RayExecutor, sweep: Sweep, datasets: Mapping[DataSource, Dataset], tmp_path: Path
) -> None:
    def table(through: Executor, folder: Path) -> pd.DataFrame:
        outcome = run(sweep, folder, through, datasets)
        assert (outcome.num_run, outcome.num_failed) == (4, 0)
        return pd.read_csv(folder / "table.csv").drop(columns=["seconds", "core_seconds"])

    local = table(LocalExecutor(datasets), tmp_path / "local")
    through_ray = table(Lent(executor), tmp_path / "ray")
    assert local["done"].tolist() == [1, 1, 1, 1]
    assert_frame_equal(through_ray, local, check_exact=True)


def test_a_trial_that_is_killed_leaves_no_worker(executor: RayExecutor, trials: tuple[Trial, ...]) -> None:
    executor.submit(job_of(trials[0], LONG, share=ALONE))
    pid = pid_of(events_until(executor, lambda event: isinstance(event, Started))[0])
    executor.kill(trials[0].trial_id)
    assert executor.has_room(ALONE)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_worker_that_is_killed_is_a_failure_that_says_so_and_its_slot_works_again(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    executor.submit(job_of(trials[0], LONG, attempt=2, share=ALONE))
    pid = pid_of(events_until(executor, lambda event: isinstance(event, Started))[0])
    assert pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
    failed = events_until(executor, is_end)[-1]
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt, failed.cause is Cause.WORKER) == (trials[0].trial_id, 2, True)
    assert failed.error.startswith("the worker was lost: ")
    # Both slots take a job: the one that was left alone, and the replaced one.
    for name in ("a", "b"):
        executor.submit(job_of(trials[0], SHORT, name=name, share=ALONE))
    ended: dict[str, type[Event]] = {}
    while len(ended) < 2:
        ended |= {event.trial_id: type(event) for event in events_until(executor, is_end) if is_end(event)}
    assert ended == {"a": Finished, "b": Finished}


def test_a_trial_that_breaks_the_process_it_runs_in_costs_no_other_trial_an_attempt(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    def trial(number: int) -> Trial:
        job = job_of(trials[0], POISONS if number == 3 else SHORT, name=f"trial {number}")
        return replace(trials[0], trial_id=job.trial_id, label=job.label, config=job.config)

    forty = [trial(number) for number in range(40)]
    ledger, watcher = InMemoryLedger(trial.trial_id for trial in forty), Watcher()
    Scheduler(
        ledger=ledger,
        executor=executor,
        allocator=Allocator(Resources(cpus=ALONE.cpus)),
        judge=Judge(NoPruning(), higher_is_better=True, records=()),
        callbacks=[watcher],
        limits=Limits(max_retries=1),
    ).run(forty)
    states = {trial.trial_id: ledger.state(trial.trial_id) for trial in forty}
    assert {name for name, state in states.items() if state is not State.DONE} == {"trial 3"}
    failed = [event for event in watcher.events if isinstance(event, Failed)]
    assert [event.trial_id for event in failed] == ["trial 3"] * 2


@pytest.mark.long
def test_a_trial_whose_worker_was_killed_goes_on_from_its_state_in_the_same_run(
    executor: RayExecutor, datasets: Mapping[DataSource, Dataset], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    # More steps than a worker does before it is killed; rungs stand at steps 20 and 40.
    objective = {"recipe": "dinov2_cpu", "steps": 60, "batch_size": 8}
    changes = {"seeds": 1, "ablate": {"components": ["none"]}, "floors": [], "checkpoint_every_s": 1e-4}
    sweep = make_sweep(objective=objective, resources={"cpus": ALONE.cpus}, **changes)

    def on_event(event: Event) -> None:
        if isinstance(event, Reported) and not watcher.again:
            kill(watcher.running[event.trial_id])

    watcher = Watcher(on_event)
    outcome = run(sweep, tmp_path / "tiny", Lent(executor), datasets, watcher)
    assert (outcome.num_failed, outcome.records[0].num_attempts) == (0, 2)
    assert [(event.cause, why) for event, why in watcher.again] == [(Cause.WORKER, "retry 1 of 2")]
    assert watcher.steps(outcome.records[0].trial.trial_id, 2)[0] >= 19
    assert not (tmp_path / "tiny" / "checkpoints").exists()
    whole = run(sweep, tmp_path / "whole", Lent(executor), datasets)
    assert outcome.records[0].metrics == whole.records[0].metrics
    assert outcome.records[0].reports == whole.records[0].reports


def test_a_job_is_listed_by_its_label_on_the_cluster(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    state = pytest.importorskip("ray.util.state")
    label = "nano norm@all+qkv@first-third seed 1"
    executor.submit(job_of(trials[1], SHORT, name=label, share=ALONE))
    events_until(executor, is_end)

    def is_listed() -> bool:
        tasks = state.list_tasks(address=executor.dashboard_url, limit=1000)
        return label in [task.name for task in tasks]

    wait_until(is_listed)  # Ray gathers within a second or two what its workers tell of their tasks


@pytest.mark.long
def test_the_dashboard_tells_failed_pruned_and_finished_trials_apart_and_has_a_log_of_each(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    state = pytest.importorskip("ray.util.state")
    executor.submit(job_of(trials[0], SHORT, name="finishes", share=ALONE))
    executor.submit(job_of(trials[0], LONG, name="is pruned", share=ALONE))
    events_until(executor, lambda event: isinstance(event, Reported) and event.trial_id == "is pruned")
    executor.prune("is pruned", "rung 1 (step 3): miou 4, worse than 6")
    pruned = events_until(executor, lambda event: isinstance(event, Pruned))[-1]
    assert isinstance(pruned, Pruned)
    assert pruned.why == "rung 1 (step 3): miou 4, worse than 6"
    marker = f"is pruned: pruned at step {pruned.step}"

    def tasks() -> dict[str, Any]:
        with suppress(Exception):  # a busy dashboard answers late, or with an error: it is asked again
            return {
                task.name: task
                for task in state.list_tasks(address=executor.dashboard_url, limit=1000, detail=True)
            }
        return {}

    listed: dict[str, Any] = {}

    def are_over(*names: str) -> bool:
        found = tasks()
        return all(name in found and found[name].state in ("FINISHED", "FAILED") for name in names)

    # Ray gathers within a second or two what its workers tell; a process that ends meanwhile tells no more.
    wait_until(lambda: {name for name, task in tasks().items() if task.task_log_info} >= {"finishes", "is pruned"})
    assert isinstance(end_of(executor, job_of(trials[0], RAISES, name="fails", share=ALONE)), Failed)
    wait_until(lambda: are_over("finishes", "is pruned", marker, "fails"))
    wait_until(lambda: listed.update(tasks()) or listed)
    assert [listed[name].state for name in ("finishes", "is pruned", marker, "fails")] == [
        *("FINISHED", "FINISHED", "FINISHED", "FAILED")
    ]
    assert "ArithmeticError: as it was told" in listed["fails"].error_message

    gcs = ray.get_runtime_context().gcs_address

    def log(name: str) -> str:
        return "".join(state.get_log(address=gcs, task_id=listed[name].task_id, suffix="err"))

    def log_of_actor(name: str) -> str:
        return "".join(state.get_log(address=gcs, actor_id=listed[name].actor_id, suffix="err"))

    assert "finishes: rung at step 3: knn_top1 3\n" in log("finishes")
    assert "done after" in log("finishes")
    assert "is pruned: pruned at step" in log("is pruned")
    assert log("is pruned").endswith(": rung 1 (step 3): miou 4, worse than 6\n")
    assert "fails: failed (raised): ArithmeticError: as it was told\nTraceback" in log_of_actor("fails")


@pytest.mark.long
def test_our_own_cluster_names_the_job_and_shows_the_stack_of_a_running_trial(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    executor.submit(job_of(trials[0], LONG, name="runs", share=ALONE))
    pid = pid_of(events_until(executor, lambda event: isinstance(event, Started))[0])
    headers = {"Authorization": f"Bearer {ray_token()}"}

    def ask(path: str) -> str:
        request = urllib.request.Request(f"{executor.dashboard_url}{path}", headers=headers)
        text = ""
        with suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:  # it may be busy
            text = answer.read().decode()
        return text

    wait_until(lambda: ask("/api/jobs/"))
    jobs = json.loads(ask("/api/jobs/"))
    assert [job["metadata"] for job in jobs if job["type"] == "DRIVER"] == [{"job_name": "tiny"}]
    ip = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if may_trace():
        wait_until(lambda: "play (" in ask(f"/worker/traceback?pid={pid}&ip={ip}"))
    executor.kill("runs")


def test_a_trial_that_needs_more_than_the_cluster_has_is_refused(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cluster is the one that is up; it is to stay up.
    monkeypatch.setattr("orchestrator.execution.ray_cluster.cluster.connect", lambda *_, **__: "")
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises(ClusterError, match=r"a trial takes 100000 CPUs, but the cluster has \d+"):
        RayExecutor({}, shares=[ResourceRequest(cpus=100_000)], max_slots=1)
    with pytest.raises(ClusterError, match=r"a trial takes 1000 GPUs, but the cluster has \d+"):
        RayExecutor({}, shares=[ResourceRequest(gpus=1000)], max_slots=1)


@pytest.mark.parametrize("is_set", [False, True], ids=["--address", "RAY_ADDRESS"])
def test_an_address_where_nobody_listens_is_refused_at_once(is_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    if is_set:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}") as refused:
        RayExecutor({}, shares=[ResourceRequest()], max_slots=1, address=None if is_set else address)
    assert ("RAY_ADDRESS is set" in str(refused.value)) == is_set


def test_a_job_whose_cluster_fails_as_it_starts_ends_and_its_slot_works_again(
    executor: RayExecutor, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ray.exceptions.RaySystemError("the node has just died")

    job = job_of(trials[0], SHORT, share=ALONE)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.execution.ray_cluster.worker_group.start_job", fail)
        executor.submit(job)
    (failed,) = executor.poll(0.0)
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt) == (job.trial_id, job.attempt)
    assert failed.error == "the worker was lost: System error: the node has just died"
    assert isinstance(end_of(executor, job), Finished)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_one_of_two_processes_cannot_read_are_the_reason_and_nobody_waits(
    rank: int, pair: RayExecutor, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = trials[0].config.data

    def spoil(worker: Any) -> None:
        worker._unreadable[source] = DataError("photos: no such folder")

    monkeypatch.setattr("orchestrator.execution.ray_cluster.worker_group.SETTLE_TIMEOUT_S", 2.0)
    floor = next(trial for trial in trials if trial.role == "floor")
    assert isinstance(end_of(pair, real_job(floor, share=PAIR)), Finished)  # so that the workers are there
    (slot,) = pair._slots
    ray.get(slot.workers[rank].__ray_call__.remote(spoil))
    failed = end_of(pair, real_job(trials[0], share=PAIR))
    assert isinstance(failed, Failed)
    assert failed.error.partition(";")[0] == "DataError: photos: no such folder"
    assert failed.cause is (Cause.IO if rank == 0 else Cause.RAISED)
    monkeypatch.undo()
    assert isinstance(end_of(pair, real_job(trials[0], share=PAIR)), Finished)


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


def pids_of(executor: RayExecutor) -> list[int]:
    """Return the ids of the processes of the one slot that there is, the main one first."""
    (slot,) = executor._slots
    return [ray.get(worker.__ray_call__.remote(lambda _: os.getpid())) for worker in slot.workers]


def num_open_ports(pid: int) -> tuple[int, int]:
    """Count the ports at which a process listens to this machine alone, and those at which it listens to others."""
    inodes = {link.readlink().name.strip("socket:[]") for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    hosts = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    local = sum(host == "0100007F" for host in hosts)  # 127.0.0.1 as the kernel writes it
    return local, len(hosts) - local


@pytest.mark.long
def test_two_processes_train_a_trial_to_the_numbers_of_one(
    executor: RayExecutor, pair: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    assert pair.num_slots == 1
    alone = end_of(executor, real_job(trials[0]))
    assert isinstance(alone, Finished)
    pair.submit(real_job(trials[0], share=PAIR))
    events = events_until(pair, is_end)
    both = events[-1]
    assert isinstance(both, Finished), both
    assert both.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    # Of 32 images, one may change sides by rounding.
    assert both.metrics["knn_top1"] == pytest.approx(alone.metrics["knn_top1"], abs=100 / 32)
    assert [event.step for event in events if isinstance(event, Reported)] == [1, 3]
    assert sum(isinstance(event, Started) for event in events) == 1


@pytest.mark.long
def test_a_floor_is_not_trained_together_and_has_the_numbers_of_one(
    executor: RayExecutor, pair: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    floor = next(trial for trial in trials if trial.role == "floor")
    alone, both = end_of(executor, real_job(floor)), end_of(pair, real_job(floor, share=PAIR))
    assert isinstance(alone, Finished)
    assert isinstance(both, Finished)
    assert both.metrics == alone.metrics


def test_an_order_to_stop_ends_a_trial_of_two_processes(
    pair: RayExecutor, make_sweep: Callable[..., Sweep]
) -> None:
    trial = long_trial(make_sweep)
    pair.submit(real_job(trial, share=PAIR))
    events_until(pair, lambda event: isinstance(event, Reported))
    pair.prune(trial.trial_id)
    assert isinstance(events_until(pair, is_end)[-1], Pruned)


@needs_proc
@pytest.mark.long
@pytest.mark.parametrize("lost", ["the main process", "the other process"])
def test_two_processes_listen_to_this_machine_alone_and_the_loss_of_one_is_a_failure_after_which_the_slot_works(
    lost: str, pair: RayExecutor, make_sweep: Callable[..., Sweep], trials: tuple[Trial, ...]
) -> None:
    trial = long_trial(make_sweep)
    floor = next(trial for trial in trials if trial.role == "floor")
    pair.submit(real_job(floor, share=PAIR))
    idle = next(event for event in events_until(pair, is_end) if isinstance(event, Started))
    before = num_open_ports(pid_of(idle))
    pair.submit(real_job(trial, attempt=2, share=PAIR))
    events = events_until(pair, lambda event: isinstance(event, Reported))
    main, other = pids_of(pair)
    assert main != other
    assert [pid_of(event) for event in events if isinstance(event, Started)] == [main]
    # The main one has the store, and each a port for the other's messages; Ray's own ports are those of before.
    assert (num_open_ports(main), num_open_ports(other)) == ((before[0] + 2, before[1]), (before[0] + 1, before[1]))
    os.kill(main if lost == "the main process" else other, signal.SIGKILL)
    failed = events_until(pair, is_end)[-1]
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt, failed.cause is Cause.WORKER) == (trial.trial_id, 2, True)
    assert "worker was lost: The actor died" in failed.error
    assert isinstance(end_of(pair, real_job(trials[0], share=PAIR)), Finished)
