"""From a trial to the job that an executor runs: what it occupies, where it keeps things, what is known of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestrator.execution.executor import Job
from orchestrator.scheduling.allocation import Allocator
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.remote_folder import Location
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.stored import KeptTraining
from orchestrator.trials.trial import Trial, TrialInfo
from specvit.config import TrialConfig

_OTHER = re.compile(r"[^A-Za-z0-9@+=.,_-]+")
_LONGEST = 100
_ID_DIGITS = 12
"""Hex digits of the trial's id that tell names apart."""


class JobMaker:
    """Makes the jobs of a run. A job whose trial was trained before looks at the weights that were kept of that."""

    def __init__(
        self,
        allocator: Allocator,
        *,
        states: CheckpointStore | None = None,
        weights: Location | None = None,
        keeps_weights: Callable[[Trial], bool] = lambda _: True,
        kept: Mapping[str, KeptTraining] | None = None,
    ) -> None:
        """Take what jobs are made of.

        Args:
            allocator: What each trial gets to run on.
            states: Where trials keep their states while they run; None = nowhere.
            weights: Folder of kept weights; None = there is none.
            keeps_weights: Returns whether a trial's are kept.
            kept: What is known of trials before they run, by their ids.
        """
        self._allocator, self._states, self._weights = allocator, states, weights
        self._keeps_weights, self._kept = keeps_weights, kept or {}

    def kept_of(self, trial_id: str) -> KeptTraining | None:
        """Return what is known of a trial before it runs; None if that is nothing."""
        return self._kept.get(trial_id)

    def request_for(self, trial: Trial) -> ResourceRequest:
        """Return what a trial occupies; probes run in one process, however many train."""
        request = self._allocator.request_for(trial)
        return replace(request, processes=1) if trial.trial_id in self._kept and request.processes > 1 else request

    def make(self, trial: Trial, attempt: int, *, avoid: frozenset[str] = frozenset()) -> Job:
        """Return the job of an attempt.

        Args:
            trial: The trial.
            attempt: Number of the attempt.
            avoid: Slots and nodes where it is not to run.
        """
        kept = self.kept_of(trial.trial_id)
        share = self.request_for(trial)
        if kept is not None and kept.missing is not None:
            backbone = None
            if kept.probed is not None and self._weights is not None:
                backbone = self._weights
                for part in kept.probed.path.split("/"):
                    backbone = backbone / part
            config: TrialConfig = kept.missing
            return Job(
                trial.trial_id, attempt, trial.label, config, share=share, avoid=avoid, kept=kept, backbone=backbone
            )
        keeps = trial.config.treatment.is_trained and self._keeps_weights(trial)
        return Job(
            trial_id=trial.trial_id,
            attempt=attempt,
            label=trial.label,
            config=self._allocator.config_of(trial),
            state=None if self._states is None else self._states.file_of(trial.trial_id),
            weights=self._weights / weights_name(trial) if keeps and self._weights is not None else None,
            share=share,
            avoid=avoid,
        )


def weights_name(trial: TrialInfo) -> str:
    """Return the name of the folder of a trial's weights: what people call it, and the beginning of its id."""
    parts = (_OTHER.sub("-", text).strip("-.") for text in (trial.group, trial.arm))
    text = "-".join(filter(None, parts))[:_LONGEST]
    return "-".join(filter(None, (text, f"seed-{trial.seed}", trial.trial_id[:_ID_DIGITS])))
