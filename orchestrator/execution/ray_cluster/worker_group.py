"""The actors of a slot: starting and stopping them, giving them a job, and collecting how each came to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.execution.capacity import amounts_of
from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.actor import TrialActor
from orchestrator.execution.ray_cluster.connection import NODE_LABEL, fetch_dataset, host_address
from orchestrator.execution.ray_cluster.failures import SILENT_WORKER, WorkerLoss
from orchestrator.execution.ray_cluster.slot_pool import Slot
from orchestrator.execution.worker import Runner
from specvit.data import DataSource

SETTLE_TIMEOUT_S = 10.0
"""Longest wait, once a trial of several processes has come to an end, for the outcome of each."""


def start_workers(slot: Slot, references: Mapping[DataSource, Any], runner: Runner | None) -> None:
    """Start the workers of a slot on its places; several as close together as there is room.

    Args:
        slot: The slot, without workers.
        references: References to the data of each source.
        runner: What computes a trial; None = ``specvit.trial.run_trial``.
    """
    share = slot.share
    options: dict[str, Any] = {
        "num_cpus": share.cpus,
        "num_gpus": share.gpus,
        "memory": amounts_of(share).get("memory"),
        "resources": dict(share.custom) or None,
        "max_concurrency": 2,  # a second thread receives commands while a job runs
    }
    selectors = [{**dict(share.labels), NODE_LABEL: place.node_id} for place in slot.places]
    if share.processes > 1:
        bundles = [amounts_of(share)] * share.processes
        slot.placement = placement_group(bundles, strategy="PACK", bundle_label_selector=selectors)
    for rank, selector in enumerate(selectors):
        if slot.placement is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(slot.placement, rank)
        else:
            options["label_selector"] = selector
        worker = ray.remote(TrialActor).options(**options)
        slot.workers.append(
            worker.remote(
                references,
                fetch=fetch_dataset,
                host=host_address,
                num_threads=max(1, int(share.cpus)),
                gpus=share.gpus,
                runner=runner,
            )
        )
    slot.hosts = [worker.host.remote() for worker in slot.workers] if slot.placement is not None else []


def stop_workers(slot: Slot) -> None:
    """Stop the workers of a slot at once."""
    for worker in slot.workers:
        ray.kill(worker)
    slot.workers, slot.is_up = [], False
    if slot.placement is not None:
        remove_placement_group(slot.placement)
        slot.placement = None


def start_job(slot: Slot, job: Job) -> None:
    """Give a job to the workers of a slot, under its label."""
    main, *others = slot.workers
    run = main.run.options(name=job.label)
    if not (others and job.config.treatment.is_trained):
        slot.events = run.remote(job)
        return
    # A reference: a task that takes it begins when the main actor has opened the store.
    rendezvous = main.open_rendezvous.remote(*slot.hosts)
    slot.events = run.remote(job, rendezvous, len(slot.workers))
    slot.assisting = [
        other.assist.options(name=f"{job.label} process {rank}").remote(job, rendezvous, rank, len(slot.workers))
        for rank, other in enumerate(others, start=1)
    ]


def prune_job(slot: Slot, why: str) -> None:
    """Ask the job of a slot to stop for good."""
    assert slot.job is not None
    stop = slot.workers[0].stop.options(name=f"{slot.job.label}: asked to stop")
    stop.remote(slot.job.trial_id, slot.job.attempt, why)


def mark_pruned(slot: Slot, step: int) -> None:
    """Have the dashboard list that the job of a slot was pruned: its task itself has ended as any other."""
    assert slot.job is not None
    slot.workers[0].mark.options(name=f"{slot.job.label}: pruned at step {step}").remote()


def wait_until_over(events: Any) -> None:
    """Wait until Ray has seen the end of a task that has raised: killed before, it would have failed by that."""
    ray.wait([events.completed()], timeout=SETTLE_TIMEOUT_S)


def interrupt_job(slot: Slot) -> None:
    """Ask the job of a slot to save its state and stop."""
    assert slot.job is not None
    slot.workers[0].interrupt.remote(slot.job.trial_id, slot.job.attempt)


def collect_outcomes(slot: Slot) -> list[WorkerLoss]:
    """Wait for the other workers of a slot to do their parts; add their CPU seconds, return those that did not."""
    if not slot.assisting:
        return []
    done, silent = ray.wait(slot.assisting, num_returns=len(slot.assisting), timeout=SETTLE_TIMEOUT_S)
    losses = [SILENT_WORKER for _ in silent]
    for reference in done:
        try:
            slot.core_seconds += ray.get(reference)
        except ray.exceptions.RayError as error:
            losses.append(WorkerLoss.of(error))
    return losses
