"""What takes longest of the executor on Ray: the dashboard's view of trials, and trials of two processes."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Failed, Finished, Pruned, Reported, Started
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

from .....faults.harness.disturbed_runs import Lent, Watcher, pid_of, run, wait_until
from .....faults.harness.processes import kill
from ...executor_contract import LONG, RAISES, SHORT, end_of, events_until, is_end, job_of
from .real_jobs import ALONE, PAIR, long_trial, may_trace, needs_proc, num_open_ports, pids_of, ray_token, real_job


@pytest.mark.long
def test_a_trial_whose_worker_was_killed_goes_on_from_its_state_in_the_same_run(
    executor: RayExecutor, datasets: Mapping[DataSource, Dataset], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    # More steps than a worker does before it is killed; rungs stand at steps 20 and 40.
    objective = {"recipe": "dinov2_cpu", "steps": 60, "batch_size": 8}
    changes = {"seeds": 1, "ablate": {"components": ["none"]}, "floors": []}
    changes |= {"checkpoint_every_s": 1e-4, "checkpoint_max_share": 1}
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
