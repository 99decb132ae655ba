"""The judge: decides which arms are hopeless, by Optuna's pruners and differences to the baseline, within groups.

Optuna judges, the ledger records. The judge keeps what was reported, filled from the ledger when it is made, so it
knows as much after a resume as before. It returns a verdict and leaves the doing to the scheduler.

An arm is compared with the baseline at equal steps of equal seeds (``orchestrator.scheduling.paired_differences``): a
step becomes a rung, 1, 2, 3, ..., by its place among the steps that the baseline reports, and Optuna is shown the
differences at the rungs. What the arm did with the seeds before counts too, also where it was pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from orchestrator.scheduling.optuna_pruners import is_hopeless, num_others
from orchestrator.scheduling.paired_differences import Differences, PairedDifferences
from orchestrator.scheduling.pruning_reasons import reason_text
from orchestrator.sweep import pruning_settings
from orchestrator.sweep.pruning_settings import AnyPruner
from orchestrator.trials.records import Report, State, TrialRecord
from orchestrator.trials.trial import Role


class Judge:
    """The judge of the trials of a sweep, each arm against the baseline of its group.

    The baseline, controls and floors are never pruned, and the last two are no evidence: a control is no rival, and to
    beat a model that was never trained proves nothing. A value that is NaN or infinite counts as worse than all others.
    A rung is judged once, as soon as it can be compared: a report that comes before the baseline's waits for it.

    Args:
        settings: The pruner and its arguments.
        higher_is_better: Which way is up for the metric that ``report`` is given.
        records: All trials of the sweep, in its order. The order numbers arms, so that what Optuna derives from a
            number, Hyperband's bracket, is the same after a resume. What they have reported is evidence.
        metric: The rung metric to read from ``records``; None = that of ``settings``, or else the first one
            of every report.
        num_rungs: Rungs of a whole trial.
    """

    def __init__(
        self,
        settings: AnyPruner,
        *,
        higher_is_better: bool,
        records: Sequence[TrialRecord],
        metric: str | None = None,
        num_rungs: int = 1,
    ) -> None:
        self._groups: dict[str, _Group] = {}
        if isinstance(settings, pruning_settings.NoPruning):
            return
        members: dict[str, list[TrialRecord]] = {}
        for record in records:
            if record.trial.role.is_ablated:
                members.setdefault(record.trial.group_id, []).append(record)
        metric = metric or settings.metric
        for group_records in members.values():
            known = PairedDifferences(group_records, higher_is_better=higher_is_better)
            shown = partial(reason_text, settings, metric=metric or "the metric", higher_is_better=higher_is_better)
            group = _Group(settings, group_records, known, num_rungs=num_rungs, reason_of=shown)
            group.replay(group_records, metric)
            self._groups.update((record.trial.trial_id, group) for record in group_records)

    def report(self, trial_id: str, step: int, value: float) -> tuple[str, ...]:
        """Record a rung's value; return the trials to prune now.

        Args:
            trial_id: A trial of the sweep.
            step: Optimizer step of the rung. If the trial reported it before, in an earlier attempt, the new
                value is ignored and the answer is the one given then.
            value: The metric to judge by.

        Returns:
            Ids: of this trial, or of others that have waited for this report to be compared.
        """
        group = self._groups.get(trial_id)
        return () if group is None else group.report(trial_id, step, value)

    def why(self, trial_id: str) -> str:
        """Return why a trial is to be pruned, after ``report`` said so: rung, difference, threshold; human-readable."""
        group = self._groups.get(trial_id)
        return "" if group is None else group.reasons.get(trial_id, "")

    def end(self, trial_id: str, state: State) -> None:
        """Record that a trial ended. One that failed leaves its rungs as evidence, and may come back."""
        group = self._groups.get(trial_id)
        if group is not None:
            group.end(trial_id, state)

    def exempt(self, trial_id: str) -> None:
        """Record that a trial that was pruned is to run to its end: somebody wants to see it."""
        group = self._groups.get(trial_id)
        if group is not None:
            group.exempt(trial_id)


class _Group:
    """The reports of one group: those that wait to be judged, and the verdicts."""

    def __init__(
        self,
        settings: AnyPruner,
        records: Sequence[TrialRecord],
        known: PairedDifferences,
        *,
        num_rungs: int,
        reason_of: Callable[[Differences], str],
    ) -> None:
        self._settings, self._num_rungs, self._reason_of = settings, num_rungs, reason_of
        self._name = records[0].trial.group_id
        self._can_prune = {record.trial.trial_id: record.trial.role is Role.ARM for record in records}
        self._known = known
        self._waiting: dict[tuple[str, int], None] = {}
        self._ended: dict[str, State] = {}
        self.reasons: dict[str, str] = {}
        """Why trials are to be pruned, by id."""

    def replay(self, records: Sequence[TrialRecord], metric: str | None) -> None:
        """Record what the ledger knows."""
        for record in records:
            for report in record.reports:
                value = _value(report, metric)
                if value is not None:
                    self._known.add(record.trial.trial_id, report.step, value)
            self.end(record.trial.trial_id, record.state)

    def report(self, trial_id: str, step: int, value: float) -> tuple[str, ...]:
        if self._known.add(trial_id, step, value) and self._can_prune[trial_id] and trial_id not in self._ended:
            self._waiting[trial_id, step] = None
        found = [waiting for waiting in tuple(self._waiting) if self._judge(*waiting)]
        return tuple(dict.fromkeys([*(judged for judged, _ in found), *({trial_id} & self.reasons.keys())]))

    def exempt(self, trial_id: str) -> None:
        if self._ended.get(trial_id) is State.PRUNED:
            self._can_prune[trial_id] = False
            self.reasons.pop(trial_id, None)

    def end(self, trial_id: str, state: State) -> None:
        if state in (State.DONE, State.PRUNED, State.FAILED):
            self._known.end(trial_id)
        if trial_id in self._ended or state not in (State.DONE, State.PRUNED):
            return
        self._ended[trial_id] = state
        self._forget(trial_id)

    def _judge(self, trial_id: str, step: int) -> bool:
        """Judge a trial at a rung if it can be compared; return whether it is hopeless."""
        if (trial_id, step) not in self._waiting:
            return False
        seen = self._known.of_arm(trial_id, step, num_others(self._settings))
        if seen is None:
            return False
        del self._waiting[trial_id, step]
        if not is_hopeless(self._settings, seen, name=self._name, num_rungs=self._num_rungs):
            return False
        self._forget(trial_id)
        self.reasons[trial_id] = self._reason_of(seen)
        return True

    def _forget(self, trial_id: str) -> None:
        self._waiting = {waiting: None for waiting in self._waiting if waiting[0] != trial_id}


def _value(report: Report, metric: str | None) -> float | None:
    if metric is not None:
        return report.metrics.get(metric)
    return next(iter(report.metrics.values()), None)
