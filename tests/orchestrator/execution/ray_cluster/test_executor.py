from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import ray
from pandas.testing import assert_frame_equal

from orchestrator.execution.capacity import ClusterError, asks_for_token
from orchestrator.execution.executor import Executor, Job
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.run import Datasets, Outcome, load_datasets, run_sweep
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

from ....waiting import wait_for


class Shared:
    """Lend an executor to a run without letting it be closed."""

    def __init__(self, executor: RayExecutor) -> None:
        self.num_slots = executor.num_slots
        self.has_room, self.machine, self.kill = executor.has_room, executor.machine, executor.kill
        self.submit, self.prune, self.poll = executor.submit, executor.prune, executor.poll

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Sweep:
    return load_sweep(write_sweep(tmp_path_factory.mktemp("sweep"), resources={"cpus": ALONE.cpus}))


@pytest.fixture(scope="module")
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture(scope="module")
def datasets(trials: tuple[Trial, ...]) -> Mapping[DataSource, Dataset]:
    return load_datasets(trials)


@pytest.fixture(scope="module")
def executor(datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Start Ray once for all tests of this file, with two workers that share a core."""
    executor = RayExecutor(datasets, shares=[ALONE], max_slots=2)
    yield executor
    executor.close()
    executor.close()


@pytest.fixture(scope="module")
def pair(executor: RayExecutor, datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Lend a slot of two processes on the cluster that is up; it stays up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.execution.ray_cluster.executor._connect", lambda _: "")
        patch.setattr("ray.shutdown", lambda: None)
        pair = RayExecutor(datasets, shares=[PAIR], max_slots=1)
        yield pair
        pair.close()


ALONE, PAIR = ResourceRequest(cpus=0.5), ResourceRequest(cpus=0.25, processes=2)


def job_of(trial: Trial, *, attempt: int = 1, label: str = "", share: ResourceRequest = ALONE) -> Job:
    return Job(trial.trial_id, attempt, label or trial.label, trial.config, share=share)


def long_trial(make_sweep: Callable[..., Sweep]) -> Trial:
    """Return a trial that goes on until it is stopped; its data are those of the other trials."""
    objective = {"recipe": "dinov2_cpu", "steps": 100_000, "batch_size": 8}
    return expand(make_sweep(objective=objective, rungs={"count": 9_999, "num_images": 8}))[0]


def events_until(executor: RayExecutor, found: Callable[[Event], bool]) -> list[Event]:
    events: list[Event] = []

    def has_come() -> bool:
        events.extend(executor.poll(1.0))
        return any(map(found, events))

    wait_for(has_come)
    return events


def is_terminal(event: Event) -> bool:
    return type(event) in END_STATES


def test_the_dashboard_listens_to_this_machine_alone(executor: RayExecutor) -> None:
    url = urlsplit(executor.dashboard_url)
    assert (url.scheme, url.hostname) == ("http", "127.0.0.1")
    assert url.port is not None
    socket.create_connection(("127.0.0.1", url.port), timeout=10.0).close()


@pytest.mark.usefixtures("executor")
def test_our_own_cluster_asks_for_a_token() -> None:
    assert asks_for_token(ray.get_runtime_context().gcs_address)


def test_there_are_as_many_slots_as_are_of_use(executor: RayExecutor) -> None:
    assert executor.num_slots == 2


def test_a_job_starts_reports_and_finishes_in_order(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    executor.submit(job_of(trials[0], attempt=7))
    events = events_until(executor, is_terminal)
    assert {(event.trial_id, event.attempt) for event in events} == {(trials[0].trial_id, 7)}
    assert isinstance(events[0], Started)
    # 2 rungs in 4 steps stand at 4/3 and 8/3, rounded.
    assert [event.step for event in events if isinstance(event, Reported)] == [1, 3]
    assert isinstance(events[-1], Finished)
    assert list(executor.poll(0.0)) == []


def test_the_same_sweep_has_the_same_table_through_both_executors(
    executor: RayExecutor, sweep: Sweep, datasets: Mapping[DataSource, Dataset], tmp_path: Path
) -> None:
    def table(make_executor: Callable[[Datasets, Sequence[ResourceRequest]], Executor], folder: Path) -> pd.DataFrame:
        def load_data(_: Sequence[Trial]) -> Datasets:
            return datasets

        outcome = run_sweep(
            sweep, folder=folder, make_executor=make_executor, load_data=load_data
        )
        assert (outcome.num_run, outcome.num_failed) == (8, 0)
        return pd.read_csv(folder / "table.csv").drop(columns=["seconds", "core_seconds"])

    local = table(lambda datasets, _: LocalExecutor(datasets), tmp_path / "local")
    through_ray = table(lambda *_: Shared(executor), tmp_path / "ray")
    assert local["done"].tolist() == [2, 2, 2, 2]
    assert_frame_equal(through_ray, local, check_exact=True)


def test_a_trial_that_raises_fails_and_its_worker_goes_on(
    executor: RayExecutor, make_sweep: Callable[..., Sweep], trials: tuple[Trial, ...]
) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8, "lr": 1e30, "clip_norm": 0}
    executor.submit(job_of(expand(make_sweep(objective=objective))[0]))
    first, *_, failed = events_until(executor, is_terminal)
    assert isinstance(failed, Failed)
    assert failed.error.startswith("DivergenceError: ")
    assert "Traceback" in failed.traceback
    executor.submit(job_of(trials[1]))
    again, *_, finished = events_until(executor, is_terminal)
    assert isinstance(finished, Finished)
    assert isinstance(first, Started)
    assert isinstance(again, Started)
    assert again.worker == first.worker


def test_an_order_to_stop_reaches_a_running_trial(
    executor: RayExecutor, make_sweep: Callable[..., Sweep]
) -> None:
    trial = long_trial(make_sweep)
    executor.submit(job_of(trial))
    events_until(executor, lambda event: isinstance(event, Reported))
    executor.prune("another trial")
    executor.prune(trial.trial_id)
    pruned = events_until(executor, is_terminal)[-1]
    assert isinstance(pruned, Pruned)
    assert 1 <= pruned.step < 100_000


def test_a_worker_that_is_killed_is_a_failure_that_says_so_and_its_slot_works_again(
    executor: RayExecutor, make_sweep: Callable[..., Sweep], trials: tuple[Trial, ...]
) -> None:
    trial = long_trial(make_sweep)
    executor.submit(job_of(trial, attempt=2))
    started = events_until(executor, lambda event: isinstance(event, Started))[0]
    assert isinstance(started, Started)
    pid = int(started.worker.rpartition(":")[2])
    assert pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
    failed = events_until(executor, is_terminal)[-1]
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt, failed.cause is Cause.WORKER) == (trial.trial_id, 2, True)
    assert failed.error.startswith("the worker was lost: ")
    # Both slots take a job: the one that was left alone, and the replaced one.
    floors = [trial for trial in trials if trial.role == "floor"][:2]
    for floor in floors:
        executor.submit(job_of(floor))
    ended: set[str] = set()
    while len(ended) < 2:
        end = [event for event in events_until(executor, is_terminal) if is_terminal(event)]
        assert all(isinstance(event, Finished) for event in end)
        ended |= {event.trial_id for event in end}
    assert ended == {floor.trial_id for floor in floors}


def test_a_trial_whose_worker_was_killed_goes_on_from_its_state_in_the_same_run(
    executor: RayExecutor, datasets: Mapping[DataSource, Dataset], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    class Watcher(SweepCallback):
        def __init__(self, *, kills: bool) -> None:
            self.kills = kills
            self.steps: dict[int, list[int]] = {}
            self.losses: list[tuple[Cause, str]] = []

        def on_event(self, event: Event) -> None:
            if isinstance(event, Started):
                self.pid = int(event.worker.rpartition(":")[2])
            elif isinstance(event, Progressed):
                self.steps.setdefault(event.attempt, []).append(event.step)
            elif isinstance(event, Reported) and self.kills:
                self.kills = False
                os.kill(self.pid, signal.SIGKILL)

        def on_retry(self, event: Failed, why: str) -> None:
            self.losses.append((event.cause, why))

    def run(folder: Path, *, kills: bool = False) -> tuple[Outcome, Watcher]:
        watcher = Watcher(kills=kills)
        outcome = run_sweep(
            sweep,
            folder=folder,
            make_executor=lambda *_: Shared(executor),
            callbacks=[watcher],
            load_data=lambda _: datasets,
        )
        return outcome, watcher

    # More steps than a worker does before it is killed; rungs stand at steps 20 and 40.
    objective = {"recipe": "dinov2_cpu", "steps": 60, "batch_size": 8}
    changes = {"seeds": 1, "ablate": {"components": ["none"]}, "floors": [], "checkpoint_every_s": 1e-4}
    sweep = make_sweep(objective=objective, resources={"cpus": ALONE.cpus}, **changes)
    outcome, watcher = run(tmp_path / "tiny", kills=True)
    assert (outcome.num_failed, outcome.records[0].num_attempts) == (0, 2)
    assert watcher.losses == [(Cause.WORKER, "retry 1 of 2")]
    assert watcher.steps[2][0] >= 19
    assert not (tmp_path / "tiny" / "checkpoints").exists()
    whole, _ = run(tmp_path / "whole")
    assert outcome.records[0].metrics == whole.records[0].metrics
    assert outcome.records[0].reports == whole.records[0].reports


def test_a_trial_that_is_killed_is_heard_of_no_more_and_its_worker_is_gone(
    executor: RayExecutor, make_sweep: Callable[..., Sweep], trials: tuple[Trial, ...]
) -> None:
    trial = long_trial(make_sweep)
    executor.submit(job_of(trial))
    started = events_until(executor, lambda event: isinstance(event, Started))[0]
    assert isinstance(started, Started)
    executor.kill("another trial")
    executor.kill(trial.trial_id)
    assert executor.has_room(ALONE)
    executor.submit(job_of(trials[1]))
    events = events_until(executor, is_terminal)
    assert {event.trial_id for event in events} == {trials[1].trial_id}
    pid = int(started.worker.rpartition(":")[2])
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_there_is_room_for_as_many_jobs_as_there_are_slots(
    executor: RayExecutor, make_sweep: Callable[..., Sweep]
) -> None:
    assert not executor.has_room(ResourceRequest(cpus=100_000))
    running = [replace(long_trial(make_sweep), trial_id=str(number)) for number in range(2)]
    for trial in running:
        assert executor.has_room(ALONE)
        executor.submit(job_of(trial))
    assert not executor.has_room(ALONE)
    for trial in running:
        executor.kill(trial.trial_id)
    assert executor.has_room(ALONE)


def test_a_job_is_listed_by_its_label_on_the_cluster(
    executor: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    state = pytest.importorskip("ray.util.state")
    label = "nano norm@all+qkv@first-third seed 1"
    executor.submit(job_of(trials[1], label=label))
    events_until(executor, is_terminal)

    def is_listed() -> bool:
        return label in [task.name for task in state.list_tasks(address=executor.dashboard_url, limit=1000)]

    # Ray gathers what its workers tell of their tasks within a second or two.
    wait_for(is_listed, period_s=0.2)


def test_a_trial_that_needs_more_than_the_cluster_has_is_refused(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cluster is the one that is up; it is to stay up.
    monkeypatch.setattr("orchestrator.execution.ray_cluster.executor._connect", lambda _: "")
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises(ClusterError, match=r"a trial takes 100000 CPUs, but the cluster has \d+"):
        RayExecutor({}, shares=[ResourceRequest(cpus=100_000)], max_slots=1)
    with pytest.raises(ClusterError, match=r"a trial takes 1000 GPUs, but the cluster has \d+"):
        RayExecutor({}, shares=[ResourceRequest(gpus=1000)], max_slots=1)


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}"):
        RayExecutor({}, shares=[ResourceRequest()], max_slots=1, address=address)


def test_a_job_whose_cluster_fails_as_it_starts_ends_and_its_slot_works_again(
    executor: RayExecutor, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ray.exceptions.RaySystemError("the node has just died")

    job = job_of(next(trial for trial in trials if trial.role == "floor"))
    with monkeypatch.context() as patch:
        patch.setattr(executor, "_start", fail)
        executor.submit(job)
    (failed,) = executor.poll(0.0)
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt) == (job.trial_id, job.attempt)
    assert failed.error == "the worker was lost: System error: the node has just died"
    assert isinstance(end_of(executor, job), Finished)


def end_of(executor: RayExecutor, job: Job) -> Event:
    executor.submit(job)
    return events_until(executor, is_terminal)[-1]


@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_one_of_two_processes_cannot_read_are_the_reason_and_nobody_waits(
    rank: int, pair: RayExecutor, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = trials[0].config.data

    def spoil(worker: Any) -> None:
        worker._unreadable[source] = DataError("photos: no such folder")

    monkeypatch.setattr("orchestrator.execution.ray_cluster.executor.SETTLE_TIMEOUT_S", 2.0)
    floor = next(trial for trial in trials if trial.role == "floor")
    assert isinstance(end_of(pair, job_of(floor, share=PAIR)), Finished)  # so that the workers are there
    (slot,) = pair._slots
    ray.get(slot.workers[rank].__ray_call__.remote(spoil))
    failed = end_of(pair, job_of(trials[0], share=PAIR))
    assert isinstance(failed, Failed)
    assert failed.error.partition(";")[0] == "DataError: photos: no such folder"
    assert failed.cause is Cause.RAISED
    monkeypatch.undo()
    assert isinstance(end_of(pair, job_of(trials[0], share=PAIR)), Finished)


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


def processes_at(label: str) -> set[int]:
    """Return the ids of the processes that are at a task; Ray shows its name as the process's title."""
    titles = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return {int(pid) for pid, title in titles.items() if title.startswith(f"ray::{label}".encode())}


def num_open_ports(pid: int) -> tuple[int, int]:
    """Count the ports at which a process listens to this machine alone, and those at which it listens to others."""
    inodes = {link.readlink().name.strip("socket:[]") for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    hosts = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    local = sum(host == "0100007F" for host in hosts)  # 127.0.0.1 as the kernel writes it
    return local, len(hosts) - local


def test_two_processes_train_a_trial_to_the_numbers_of_one(
    executor: RayExecutor, pair: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    assert pair.num_slots == 1
    alone = end_of(executor, job_of(trials[0]))
    assert isinstance(alone, Finished)
    pair.submit(job_of(trials[0], share=PAIR))
    events = events_until(pair, is_terminal)
    transaction = events[-1]
    assert isinstance(transaction, Finished), transaction
    assert transaction.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    # Of 32 images, one may change sides by rounding.
    assert transaction.metrics["knn_top1"] == pytest.approx(alone.metrics["knn_top1"], abs=100 / 32)
    assert [event.step for event in events if isinstance(event, Reported)] == [1, 3]
    assert sum(isinstance(event, Started) for event in events) == 1


def test_a_floor_is_not_trained_together_and_has_the_numbers_of_one(
    executor: RayExecutor, pair: RayExecutor, trials: tuple[Trial, ...]
) -> None:
    floor = next(trial for trial in trials if trial.role == "floor")
    alone, transaction = end_of(executor, job_of(floor)), end_of(pair, job_of(floor, share=PAIR))
    assert isinstance(alone, Finished)
    assert isinstance(transaction, Finished)
    assert transaction.metrics == alone.metrics


def test_an_order_to_stop_ends_a_trial_of_two_processes(
    pair: RayExecutor, make_sweep: Callable[..., Sweep]
) -> None:
    trial = long_trial(make_sweep)
    pair.submit(job_of(trial, share=PAIR))
    events_until(pair, lambda event: isinstance(event, Reported))
    pair.prune(trial.trial_id)
    assert isinstance(events_until(pair, is_terminal)[-1], Pruned)


@needs_proc
@pytest.mark.parametrize("lost", ["the main process", "the other process"])
def test_two_processes_listen_to_this_machine_alone_and_the_loss_of_one_is_a_failure_after_which_the_slot_works(
    lost: str, pair: RayExecutor, make_sweep: Callable[..., Sweep], trials: tuple[Trial, ...]
) -> None:
    trial = long_trial(make_sweep)
    floor = next(trial for trial in trials if trial.role == "floor")
    pair.submit(job_of(floor, share=PAIR))
    idle = next(event for event in events_until(pair, is_terminal) if isinstance(event, Started))
    before = num_open_ports(int(idle.worker.rpartition(":")[2]))
    pair.submit(job_of(trial, attempt=2, share=PAIR))
    events = events_until(pair, lambda event: isinstance(event, Reported))
    main = next(int(event.worker.rpartition(":")[2]) for event in events if isinstance(event, Started))
    (other,) = processes_at(f"{trial.label} process 1")
    assert main != other
    # The main one has the store, and each a port for the other's messages; Ray's own ports are those of before.
    assert (num_open_ports(main), num_open_ports(other)) == ((before[0] + 2, before[1]), (before[0] + 1, before[1]))
    os.kill(main if lost == "the main process" else other, signal.SIGKILL)
    failed = events_until(pair, is_terminal)[-1]
    assert isinstance(failed, Failed)
    assert (failed.trial_id, failed.attempt, failed.cause is Cause.WORKER) == (trial.trial_id, 2, True)
    assert "worker was lost: The actor died" in failed.error
    assert isinstance(end_of(pair, job_of(trials[0], share=PAIR)), Finished)
