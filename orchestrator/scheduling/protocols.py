"""Whom the scheduler works with: who keeps the record, who judges, who shows. The executor has a module of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from orchestrator.trials.events import Event, Failed
from orchestrator.trials.records import State
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest
from orchestrator.trials.trial import Trial


class Record(Protocol):
    """Keep the record; see ``orchestrator.ledger.ledger``."""

    def begin_attempt(self, trial_id: str, share: ResourceRequest = WHOLE_CORE) -> int:
        """Record that a trial is handed to the executor; return the number of the attempt."""

    def record_all(self, events: Sequence[Event]) -> list[Event]:
        """Record events at once; return those that count."""

    def is_done(self, trial_id: str) -> bool:
        """Tell whether a trial has run to its end."""

    def leave_out(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that there is no room for trials."""


class Judge(Protocol):
    """Decide on running trials; see ``orchestrator.scheduling.pruning``."""

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Hear of a rung's metric; return whether the trial is to be pruned."""

    def end(self, trial_id: str, state: State) -> None:
        """Hear that a trial has ended."""

    def exempt(self, trial_id: str) -> None:
        """Hear that a trial, if it was pruned, is to run to its end now, whatever it reports."""


class View(Protocol):
    """Show what goes on; see ``orchestrator.monitoring.live_view``."""

    def submitted(self, trial: Trial) -> None:
        """Hear that a trial was given to a slot."""

    def happened(self, event: Event) -> None:
        """Hear of an event that was recorded."""

    def on_retry(self, event: Failed, why: str) -> None:
        """Hear that an attempt failed and its trial will be tried again."""

    def left_out(self, trials: Sequence[Trial], reason: str) -> None:
        """Hear that the budget has no room for trials."""

    def tick(self) -> None:
        """Hear that time has passed."""
