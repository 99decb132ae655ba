"""The state of a trial: where it is kept, whose it is, and what goes on from it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import timm

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import RunningJob, assist
from orchestrator.storage.checkpoint_store import StateFile
from orchestrator.trials.events import Finished
from specvit.data import Dataset
from specvit.training.checkpoint import Checkpoint
from specvit.trial import TrialResult

from ....waiting import LIMIT_S
from .bodies import NO_DATA, until


def checkpoint_of(job: Job, monkeypatch: pytest.MonkeyPatch, data: Dataset = NO_DATA) -> Checkpoint | None:
    """Return the checkpoint that the trial of a job is given."""
    given: list[Checkpoint | None] = []

    def body(*_: object, checkpoint: Checkpoint | None, **__: object) -> TrialResult:
        given.append(checkpoint)
        return TrialResult({})

    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.run_trial", body)
        RunningJob(job, {job.config.data: data}).join()
        assist(job, {job.config.data: data}, nullcontext())
    attempt, assisting = given
    assert (attempt and attempt.identity) == (assisting and assisting.identity)
    return attempt


def test_a_trial_keeps_its_state_where_the_job_says_and_nowhere_else(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint_of(job, monkeypatch) is None
    given = checkpoint_of(replace(job, state=StateFile(Path("state"), 5.0, max_share=0.25)), monkeypatch)
    assert given is not None
    assert (given.path, given.every_s, given.every_steps, given.max_share) == (Path("state"), 5.0, None, 0.25)


def test_a_state_is_that_of_its_trial_its_data_and_its_software(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(job, state=StateFile(Path("state"), 5.0))

    def identity(job: Job = kept, data: Dataset = NO_DATA) -> str:
        given = checkpoint_of(job, monkeypatch, data)
        assert given is not None
        return given.identity

    others = [identity(replace(kept, trial_id="other")), identity(data=replace(NO_DATA, fingerprint="other"))]
    for name in ("torch.__version__", "orchestrator.execution.worker_files.PROTOCOL_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(name, "other")
            others.append(identity())
    version = metadata.version
    for package in ("timm", "specsweep"):
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda name, other=package: "0" if name == other else version(name))
            others.append(identity())
    assert json.loads(identity())["timm"] == timm.__version__
    assert identity(replace(kept, attempt=9, label="other")) == identity()
    assert len({identity(), *others}) == 7


def test_an_interruption_is_an_order_to_stop_that_saves_the_state(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def body(*given: object, checkpoint: Checkpoint, **_: object) -> TrialResult:
        observer = given[2]
        assert isinstance(observer, RunningJob)
        ordered.wait(LIMIT_S)
        asked.extend((observer.should_stop(), checkpoint.at_stop()))
        return TrialResult({}, stopped_at=1)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    kept = replace(job, state=StateFile(Path("state"), 5.0))
    for order in (RunningJob.stop, RunningJob.interrupt):
        ordered = threading.Event()
        attempt = RunningJob(kept, {job.config.data: NO_DATA})
        order(attempt)
        ordered.set()
        attempt.join()
    assert asked == [True, False, True, True]


def test_the_seconds_of_a_trial_that_went_on_count_the_attempts_before(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(*given: object, checkpoint: Checkpoint, **_: object) -> TrialResult:
        observer = given[2]
        assert isinstance(observer, RunningJob)
        checkpoint.notes["spent"] = [100.0, 50.0]  # as a saved state has it
        for step in (3, 4):
            observer.progress(step=step, steps=4, images_per_s=1.0)
            notes.append(checkpoint.notes["spent"])
        time.sleep(0.2)
        return TrialResult({})

    notes: list[list[float]] = []
    monkeypatch.setattr("specvit.trial.run_trial", body)
    attempt = RunningJob(replace(job, state=StateFile(Path("state"), 5.0)), {job.config.data: NO_DATA})
    attempt.join()
    *_, end = until(attempt, Finished)
    assert isinstance(end, Finished)
    assert 100.2 <= end.seconds < 110.0
    assert 50.0 <= end.core_seconds < 60.0
    assert all(100.0 <= wall < 110.0 and 50.0 <= cpu < 60.0 for wall, cpu in notes)
