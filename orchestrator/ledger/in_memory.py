"""A record that is kept in memory, with the ledger's fence: for runs that are only simulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.errors import LedgerError
from orchestrator.trials.events import END_STATES, Event, Reported, Started
from orchestrator.trials.records import State
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest


@dataclass
class _Attempts:
    """The number of a trial's newest attempt, where it stands, and the rungs that it reported."""

    newest: int = 0
    state: State = State.WAITING
    rungs: set[int] = field(default_factory=set)


class InMemoryLedger:
    """What a scheduler records. As in the ledger, the newest attempt of a trial alone counts, until it has ended.

    Attributes:
        num_attempts: Attempts that were begun.
        skipped: Trials that there was no room for, by id, and why.
    """

    def __init__(self, trial_ids: Iterable[str]) -> None:
        """Take the trials."""
        self._trials = {trial_id: _Attempts() for trial_id in trial_ids}
        self.num_attempts = 0
        self.skipped: dict[str, str] = {}

    def state(self, trial_id: str) -> State:
        """Return where a trial stands."""
        return self._trials[trial_id].state

    def begin_attempt(
        self,
        trial_id: str,
        share: ResourceRequest = WHOLE_CORE,  # noqa: ARG002
        *,
        trained_by: str | None = None,  # noqa: ARG002
    ) -> int:
        """Record that a trial is handed to an executor; an attempt still running is lost by that.

        Raises:
            LedgerError: If the trial is unknown, or done already.
        """
        attempts = self._trials.get(trial_id)
        if attempts is None:
            raise LedgerError(f"trial {trial_id!r} is not registered")
        if attempts.state is State.DONE:
            raise LedgerError(f"trial {trial_id!r} is done; it cannot be attempted again")
        attempts.newest, attempts.state = attempts.newest + 1, State.PENDING
        attempts.rungs.clear()
        self.num_attempts += 1
        return attempts.newest

    def record_all(self, events: Sequence[Event]) -> list[Event]:
        """Record events; return those that count."""
        return [event for event in events if self._counts(event)]

    def skip(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that there is no room for trials."""
        for trial_id in trial_ids:
            self.skipped[trial_id] = reason

    def is_done(self, trial_id: str) -> bool:
        """Return whether a trial has a result."""
        return trial_id in self._trials and self._trials[trial_id].state is State.DONE

    def _counts(self, event: Event) -> bool:
        attempts = self._trials.get(event.trial_id)
        is_open = attempts is not None and attempts.state in (State.PENDING, State.RUNNING)
        if attempts is None or not is_open or attempts.newest != event.attempt:
            return False
        if isinstance(event, Reported):
            if event.step in attempts.rungs:
                return False
            attempts.rungs.add(event.step)
        attempts.state = State.RUNNING if isinstance(event, Started) else END_STATES.get(type(event), attempts.state)
        return True
