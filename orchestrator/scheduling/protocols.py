"""What the scheduler works with besides the executor: the record, the judge, and the observers of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from orchestrator.trials.events import Event, Failed
from orchestrator.trials.records import State
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest
from orchestrator.trials.trial import Trial


class Record(Protocol):
    """The record of a run, as ``orchestrator.ledger.ledger`` keeps it."""

    def begin_attempt(
        self, trial_id: str, share: ResourceRequest = WHOLE_CORE, *, trained_by: str | None = None
    ) -> int:
        """Record that a trial is handed to the executor, and whose training it rests on; return the attempt."""

    def record_all(self, events: Sequence[Event]) -> list[Event]:
        """Record events at once; return those that count."""

    def is_done(self, trial_id: str) -> bool:
        """Return whether a trial has run to its end."""

    def skip(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that there is no room for trials."""


class Judge(Protocol):
    """The judge of running trials, as in ``orchestrator.scheduling.pruning``."""

    def report(self, trial_id: str, step: int, value: float) -> Sequence[str]:
        """Record a rung's metric; return the trials to be pruned: this one, or others that waited for it."""

    def why(self, trial_id: str) -> str:
        """Return why a trial is to be pruned, after ``report`` said so: rung, difference, threshold; human-readable."""

    def end(self, trial_id: str, state: State) -> None:
        """Record that a trial has ended."""

    def exempt(self, trial_id: str) -> None:
        """Record that a trial, if it was pruned, is to run to its end now, whatever it reports."""


class SweepCallback:
    """An observer of a run, called from the scheduler's loop; what a subclass does not define does nothing.

    It is a context manager, entered when the run begins and left when it ends.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Called when the run ends, by an error or not."""

    def on_submit(self, trial: Trial) -> None:
        """Called when a trial was given to a slot."""

    def on_event(self, event: Event) -> None:
        """Called when an event was recorded."""

    def on_retry(self, event: Failed, why: str) -> None:
        """Called when an attempt failed and its trial will be tried again."""

    def on_give_up(self, event: Failed, why: str) -> None:  # noqa: ARG002
        """Called when an attempt failed and its trial will not be tried again; by default as for any event."""
        self.on_event(event)

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:
        """Called when the budget has no room for trials."""

    def on_tick(self) -> None:
        """Called several times a second."""
