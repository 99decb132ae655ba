"""The judge: decides which trials are hopeless, by Optuna's pruners, within groups only.

Optuna judges, the ledger records. The judge keeps one in-memory study per group, filled from the ledger when
it is made, so it knows as much after a resume as before. It returns a verdict and leaves the doing to the
scheduler.

Values are compared at equal steps: a step becomes a rung, 1, 2, 3, ..., by its place among the steps that the
group reports, and Optuna is shown the rungs. Optuna is imported when there is something to judge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.scheduling.pruning_reasons import Verdict, reason_text
from orchestrator.sweep import pruning_settings
from orchestrator.sweep.pruning_settings import AnyPruner
from orchestrator.trials.records import Report, State, TrialRecord
from orchestrator.trials.trial import Role

if TYPE_CHECKING:
    import optuna

_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "wilcoxon": "WilcoxonPruner",
}

_WORST = 1e300
"""Stands for a value that is not finite: worse than any, yet a number that Optuna can average."""


class Judge:
    """The judge of the trials of a sweep, each against those of its group.

    The baseline and the floors are never pruned. The baseline's values are evidence against the arms; the
    floors' are not, since to beat a model that was never trained proves nothing. A value that is NaN or
    infinite counts as worse than all others.

    Args:
        settings: The pruner and its arguments.
        higher_is_better: Which way is up for the metric that ``report`` is given.
        records: All trials of the sweep, in its order. The order numbers them, so that what Optuna derives
            from a trial's number, Hyperband's bracket, is the same after a resume. What those that are done
            or pruned reported is evidence.
        metric: The rung metric to read from ``records``; None = that of ``settings``, or else the first one
            of every report.
    """

    def __init__(
        self,
        settings: AnyPruner,
        *,
        higher_is_better: bool,
        records: Sequence[TrialRecord],
        metric: str | None = None,
    ) -> None:
        self._groups: dict[str, _Group] = {}
        self._metric = metric or settings.metric or "the metric"
        if isinstance(settings, pruning_settings.NoPruning):
            return
        members: dict[str, list[TrialRecord]] = {}
        for record in records:
            if record.trial.role.is_trained:
                members.setdefault(record.trial.group_id, []).append(record)
        for group_id, group_records in members.items():
            group = _Group(settings, group_id, group_records, higher_is_better=higher_is_better)
            group.replay(group_records, metric or settings.metric)
            self._groups.update((record.trial.trial_id, group) for record in group_records)

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Record a rung's value; return whether to prune the trial now.

        Args:
            trial_id: A trial of the sweep.
            step: Optimizer step of the rung. If the trial reported it before, in an earlier attempt, the new
                value is ignored and the answer is the one given then.
            value: The metric to judge by.

        Returns:
            True = prune it.
        """
        group = self._groups.get(trial_id)
        return group is not None and group.report(trial_id, step, value)

    def why(self, trial_id: str) -> str:
        """Return why a trial is to be pruned, after ``report`` said so: rung, value, threshold; human-readable."""
        group = self._groups.get(trial_id)
        return "" if group is None else group.why(trial_id, self._metric)

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
    """The study of one group, and the log of its reports, from which the study can be remade."""

    def __init__(
        self, settings: AnyPruner, group_id: str, records: Sequence[TrialRecord], *, higher_is_better: bool
    ) -> None:
        self._settings = settings
        self._group_id = group_id
        self._higher_is_better = higher_is_better
        self._can_prune = {record.trial.trial_id: record.trial.role is Role.ARM for record in records}
        self._steps: list[int] = []
        self._log: list[tuple[str, int, float]] = []
        self._values: dict[str, list[float]] = {record.trial.trial_id: [] for record in records}
        self._verdicts: dict[tuple[str, int], bool] = {}
        self._ended: dict[str, State] = {}
        self._num_rungs: int | None = None
        self._make_study()

    def replay(self, records: Sequence[TrialRecord], metric: str | None) -> None:
        """Record what the ledger knows, rung by rung, as if the trials had run side by side."""
        ended = [record for record in records if record.state in (State.DONE, State.PRUNED)]
        counts = [len(record.reports) for record in ended if record.state is State.DONE]
        if any(counts):
            self._num_rungs = max(counts)
            self._make_study()
        reports = [(report, record.trial.trial_id) for record in ended for report in record.reports]
        for report, trial_id in sorted(reports, key=lambda pair: pair[0].step):
            value = _value(report, metric)
            if value is not None:
                self.report(trial_id, report.step, value)
        for record in ended:
            self.end(record.trial.trial_id, record.state)

    def report(self, trial_id: str, step: int, value: float) -> bool:
        if (trial_id, step) in self._verdicts:
            return self._verdicts[trial_id, step]
        rung = self._rung(step)
        if rung is None or trial_id in self._ended:
            return False
        if not math.isfinite(value):
            value = -_WORST if self._higher_is_better else _WORST
        self._log.append((trial_id, rung, value))
        self._values[trial_id].append(value)
        verdict = self._show(trial_id, rung, value) and self._can_prune[trial_id]
        self._verdicts[trial_id, step] = verdict
        return verdict

    def why(self, trial_id: str, metric: str) -> str:
        step = max((step for (judged, step), hopeless in self._verdicts.items() if judged == trial_id and hopeless))
        rung = self._steps.index(step) + 1
        at_rung = {judged: value for judged, number, value in self._log if number == rung and judged != trial_id}
        finished = [value for judged, value in at_rung.items() if self._ended.get(judged) is State.DONE]
        own = [value for judged, number, value in self._log if judged == trial_id and number <= rung]
        verdict = Verdict(metric, step, rung, own, list(at_rung.values()), finished, self._higher_is_better)
        return reason_text(self._settings, verdict)

    def exempt(self, trial_id: str) -> None:
        if self._ended.get(trial_id) is not State.PRUNED:
            return
        self._can_prune[trial_id] = False
        self._verdicts = {key: verdict and key[0] != trial_id for key, verdict in self._verdicts.items()}

    def end(self, trial_id: str, state: State) -> None:
        if trial_id in self._ended or state not in (State.DONE, State.PRUNED):
            return
        self._ended[trial_id] = state
        self._tell_end(trial_id, state)
        num_rungs = len(self._values[trial_id])
        if state is State.DONE and self._num_rungs is None and num_rungs:
            self._num_rungs = num_rungs
            if isinstance(self._settings, pruning_settings.HyperbandPruning):
                self._remake_study()

    def _rung(self, step: int) -> int | None:
        """Return the number of the rung at ``step``, or None for a step that comes up after later ones."""
        if step in self._steps:
            return self._steps.index(step) + 1
        if self._steps and step < self._steps[-1]:
            return None
        self._steps.append(step)
        return len(self._steps)

    def _make_study(self) -> None:
        with _quiet() as optuna:
            self._study = optuna.create_study(
                study_name=self._group_id,
                direction="maximize" if self._higher_is_better else "minimize",
                sampler=optuna.samplers.RandomSampler(seed=0),
                pruner=_make_pruner(self._settings, self._num_rungs),
            )
            self._trials = {trial_id: self._study.ask() for trial_id in self._can_prune}

    def _remake_study(self) -> None:
        """Start over with a pruner that needed to know the number of rungs, and show it all so far."""
        self._make_study()
        for trial_id, rung, value in self._log:
            self._show(trial_id, rung, value)
        for trial_id, state in self._ended.items():
            self._tell_end(trial_id, state)

    def _show(self, trial_id: str, rung: int, value: float) -> bool:
        with _quiet():
            self._trials[trial_id].report(value, step=rung)
            return bool(self._trials[trial_id].should_prune())

    def _tell_end(self, trial_id: str, state: State) -> None:
        values = self._values[trial_id]
        with _quiet() as optuna:
            if state is State.DONE and values:
                # The value decides which trial Wilcoxon's test takes for the best.
                self._study.tell(self._trials[trial_id], sum(values) / len(values))
            else:
                ended = optuna.trial.TrialState.PRUNED if values else optuna.trial.TrialState.FAIL
                self._study.tell(self._trials[trial_id], state=ended)


def _value(report: Report, metric: str | None) -> float | None:
    if metric is not None:
        return report.metrics.get(metric)
    return next(iter(report.metrics.values()), None)


def _make_pruner(settings: AnyPruner, num_rungs: int | None) -> optuna.pruners.BasePruner:
    """Return Optuna's pruner, whose arguments have the names of our fields."""
    from optuna import pruners

    arguments = asdict(settings)
    name, _ = arguments.pop("pruner"), arguments.pop("metric")
    if isinstance(settings, pruning_settings.HyperbandPruning):
        rungs = num_rungs if settings.max_resource == "auto" else settings.max_resource
        if rungs is None:
            return pruners.NopPruner()
        # The end of the run is one rung more, as in Optuna's own "auto".
        arguments["max_resource"] = max(rungs + 1, settings.min_resource)
    pruner: optuna.pruners.BasePruner = getattr(pruners, _PRUNERS[name])(**arguments)
    return pruner


@contextmanager
def _quiet() -> Iterator[ModuleType]:
    """Yield Optuna, without its log lines and its warnings of what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield optuna
