"""Floors and external backbones that compute the same in several groups: one is run, the others take its result.

Each keeps its own id and its own row in the table of its group, so that what was run before stays where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.trials.events import Event, Finished
from orchestrator.trials.identity import untrained_key
from orchestrator.trials.trial import Trial

Followers = Mapping[str, Sequence[Trial]]
"""Id of a trial to those that take its result."""


class Record(Protocol):
    """What of the ledger is needed here."""

    def copy_result(self, source: str, target: str) -> bool:
        """Give a trial the result of another one; return whether that was possible."""

    def skip(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that there is no room for trials."""


def find_followers(
    trials: Sequence[Trial], pending: Sequence[Trial], done: Collection[str] = ()
) -> tuple[list[Trial], Followers]:
    """Return which of the pending trials have to run, and which take the result of one of these, or of one before.

    Args:
        trials: All trials of the sweep.
        pending: Those that are to get a result.
        done: Ids of trials whose results may be taken.
    """
    source_of: dict[str, str] = {}
    for trial in trials:
        if not trial.role.is_trained and trial.trial_id in done:
            source_of.setdefault(untrained_key(trial.config), trial.trial_id)
    to_run: list[Trial] = []
    followers: dict[str, list[Trial]] = {}
    for trial in pending:
        source = trial.trial_id
        if not trial.role.is_trained:
            source = source_of.setdefault(untrained_key(trial.config), trial.trial_id)
        if source == trial.trial_id:
            to_run.append(trial)
        else:
            followers.setdefault(source, []).append(trial)
    return to_run, followers


class ResultSharing(SweepCallback):
    """Gives trials the results of those that they follow, and tells the other callbacks."""

    def __init__(self, followers: Followers, ledger: Record, callbacks: Sequence[SweepCallback] = ()) -> None:
        """Take the trials that follow others, the ledger, and the callbacks to tell."""
        self._followers, self._ledger, self._callbacks = followers, ledger, callbacks

    def copy(self, source: str) -> list[Trial]:
        """Copy the result of a trial that is done; return the trials that have got it."""
        found = self._followers.get(source, ())
        return [trial for trial in found if self._ledger.copy_result(source, trial.trial_id)]

    def on_event(self, event: Event) -> None:
        """Pass a result on."""
        if not isinstance(event, Finished):
            return
        for trial in self.copy(event.trial_id):
            for callback in self._callbacks:
                callback.on_submit(trial)
                callback.on_event(Finished(trial.trial_id, 1, event.metrics, seconds=0.0, core_seconds=0.0))

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:
        """Skip what follows trials that there is no room for."""
        skipped = [follower for trial in trials for follower in self._followers.get(trial.trial_id, ())]
        if skipped:
            self._ledger.skip([trial.trial_id for trial in skipped], reason)
            for callback in self._callbacks:
                callback.on_skip(skipped, reason)
