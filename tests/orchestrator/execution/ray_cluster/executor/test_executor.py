"""The executor on Ray: one cluster, which takes seconds to start, for all tests that are not long."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
import ray
from pandas.testing import assert_frame_equal

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.execution.ray_cluster.reachability import asks_for_token
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits, Sweep
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.events import Event, Failed, Finished, Pruned, Reported, Started
from orchestrator.trials.records import Cause, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.data import Dataset, DataSource

from .....faults.harness.disturbed_runs import Lent, Watcher, pid_of, run, wait_until
from .....measured_columns import MEASURED
from ...executor_contract import LONG, POISONS, SHORT, WorkerContract, end_of, events_until, is_end, job_of
from .real_jobs import ALONE, PAIR, long_trial, real_job


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


@pytest.mark.long
def test_the_same_sweep_has_the_same_table_through_both_executors(
    executor: RayExecutor, sweep: Sweep, datasets: Mapping[DataSource, Dataset], tmp_path: Path
) -> None:
    def table(through: Executor, folder: Path) -> pd.DataFrame:
        outcome = run(sweep, folder, through, datasets)
        assert (outcome.num_run, outcome.num_failed) == (4, 0)
        return pd.read_csv(folder / "table.csv").drop(columns=MEASURED)

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


@pytest.mark.long
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


@pytest.mark.long
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
def test_an_order_to_stop_ends_a_trial_of_two_processes(
    pair: RayExecutor, make_sweep: Callable[..., Sweep]
) -> None:
    trial = long_trial(make_sweep)
    pair.submit(real_job(trial, share=PAIR))
    events_until(pair, lambda event: isinstance(event, Reported))
    pair.prune(trial.trial_id)
    assert isinstance(events_until(pair, is_end)[-1], Pruned)
