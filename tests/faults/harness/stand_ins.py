"""Stand-ins for trials: milliseconds of arithmetic that keep a state, go on from it, and report as trials do.

What a stand-in reports depends on every step before, so that a step that is lost or done twice shows in the table.
Its seconds are counted by steps, half a second each, and are saved with the state: whatever it went through, the table
is the same to the last byte.
"""

from __future__ import annotations

import queue
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import RunningJob
from orchestrator.trials.events import Event
from specvit.config import TrialConfig
from specvit.data import Dataset, DataSource
from specvit.device import Device
from specvit.training.checkpoint import Checkpoint, SavedStep, load_state, read_state
from specvit.training.state_writer import state_writer
from specvit.trial import TrialResult, rung_steps

WALL_S, CPU_S = 0.5, 0.25
"""What a step takes by the stand-in's own clock."""


class StandInAttempt(RunningJob):
    """Run a stand-in instead of the trial."""

    def __init__(
        self, job: Job, datasets: Mapping[DataSource, Dataset], *, journal: Path | None = None, pace_s: float = 0.0
    ) -> None:
        """Start the thread.

        Args:
            job: What to stand in for.
            datasets: What the trials' data sources load.
            journal: File that gets a line for every step that is computed: trial, attempt, step.
            pace_s: Seconds that a step lasts at least.
        """
        self.num_steps_here = 0
        self._journal = journal
        self._pace_s = pace_s
        super().__init__(job, datasets, runner=run_stand_in)

    def computed(self, step: int) -> None:
        """Hear that a step was computed."""
        self.num_steps_here += 1
        if self._journal is not None:
            with self._journal.open("a") as lines:
                lines.write(f"{self.job.trial_id} {self.job.attempt} {step}\n")
        time.sleep(self._pace_s)

    def _elapsed(self) -> tuple[float, float]:
        wall, cpu = self._elapsed_before or (0.0, 0.0)
        return wall + WALL_S * self.num_steps_here, cpu + CPU_S * self.num_steps_here


class InStepAttempt(StandInAttempt):
    """Hand out events one by one, and compute no further before the last one was taken: the same in every run."""

    def next_events(self, timeout_s: float | None = None) -> list[Event]:
        """Return the next event, if one comes in time."""
        try:
            return [self._events.get(timeout=timeout_s)]
        except queue.Empty:
            return []

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Pass on how far the trial is."""
        super().progress(step=step, steps=steps, images_per_s=images_per_s)
        self._wait()

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on the metrics of a rung."""
        super().rung(step=step, metrics=metrics)
        self._wait()

    def _wait(self) -> None:
        while not self._events.empty():
            time.sleep(1e-4)


def run_stand_in(
    config: TrialConfig,
    dataset: Dataset,
    observer: StandInAttempt,
    *,
    probe_datasets: Mapping[DataSource, Dataset],
    checkpoint: Checkpoint | None,
    weights: Path | None,
) -> TrialResult:
    """Do what ``specvit.trial.run_trial`` does, with arithmetic in the place of training."""
    seed = zlib.crc32(repr(config).encode())
    if not config.treatment.is_trained:
        observer.progress(step=0, steps=0, images_per_s=0.0)
        return TrialResult({"knn_top1": seed % 1000 / 10})
    assert checkpoint is not None
    steps = config.objective.steps
    rungs = rung_steps(steps, config.rungs.count)
    learner = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.fill_(seed % 97)
    notes: dict[str, Any] = checkpoint.notes
    notes["rungs"] = []
    start = 0
    if data := read_state(checkpoint.path):
        start = load_state(data, checkpoint, learner, optimizer).step
        for step, metrics in notes["rungs"]:
            observer.rung(step=step, metrics=metrics)
        observer.progress(step=start, steps=steps, images_per_s=0.0)
    with state_writer(checkpoint, learner, optimizer, device=Device(torch.device("cpu"))) as states:
        assert states is not None
        for step in range(start + 1, steps + 1):
            _train(learner, optimizer, step=step, seed=seed)
            observer.computed(step)
            value = float(learner.weight.detach().sum())
            observer.progress(step=step, steps=steps, images_per_s=1.0)
            if step in rungs:
                notes["rungs"].append([step, {"knn_top1": value}])
                observer.rung(step=step, metrics={"knn_top1": value})
            is_stopped = step < steps and observer.should_stop()
            if checkpoint.at_stop() if is_stopped else states.is_due(step):
                states.save(SavedStep(step, value, 1))
            if is_stopped:
                return TrialResult({}, stopped_at=step)
    return TrialResult({"knn_top1": float(learner.weight.detach().sum()), "loss": float(learner.bias.detach().sum())})


def _train(learner: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed + step)
    for parameter in learner.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw) + 0.01 * parameter.detach()
    optimizer.step()
