"""Which trials have not learnt what their recipe says, for the tables; the rule is ``specvit.training.learnt``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.statistics.paired import mean
from orchestrator.trials.records import State, TrialRecord
from specvit.training.learnt import LOSS_SUFFIX, SPREAD, Unlearnt, find_unlearnt

_TITLES = {"dino": "DINO", "ibot": "iBOT", "bce": "BCE", "pixels": "pixel"}
"""How terms are written in a sentence, where not by their names."""


@dataclass(frozen=True)
class UnlearntMetric:
    """A metric by which trials of a table have not learnt.

    Attributes:
        metric: As of ``specvit.training.learnt.Unlearnt``.
        value: Its mean over these trials.
        reference: The mean of what it is compared with.
        trials: Number of these trials.
        arms: Number of their arms, the baseline among them.
    """

    metric: str
    value: float
    reference: float
    trials: int
    arms: int


def count_unlearnt(records: Sequence[TrialRecord]) -> int | None:
    """Return how many trials are done and have not learnt; None if of none it was recorded."""
    judged = [found for record in records if (found := _unlearnt(record)) is not None]
    return sum(map(bool, judged)) if judged else None


def collect_unlearnt(records: Sequence[TrialRecord]) -> tuple[UnlearntMetric, ...]:
    """Return by what trials have not learnt, in the order in which the metrics come."""
    found: dict[str, list[tuple[str, Unlearnt]]] = {}
    for record in records:
        for unlearnt in _unlearnt(record) or ():
            found.setdefault(unlearnt.metric, []).append((record.trial.arm_id, unlearnt))
    return tuple(
        UnlearntMetric(
            metric,
            value=mean([unlearnt.value for _, unlearnt in of_metric]) or 0.0,
            reference=mean([unlearnt.reference for _, unlearnt in of_metric]) or 0.0,
            trials=len(of_metric),
            arms=len({arm for arm, _ in of_metric}),
        )
        for metric, of_metric in found.items()
    )


def learning_note(unlearnt: Sequence[UnlearntMetric]) -> str | None:
    """Return the sentence that says what was not learnt; None if there is no such thing."""
    if not unlearnt:
        return None
    parts = [f"{_text(each)} in {_count(each.trials, 'trial')} of {_count(each.arms, 'arm')}" for each in unlearnt]
    return f"Not learnt: {', '.join(parts)}, so the table says nothing about arms that learn by this."


def _unlearnt(record: TrialRecord) -> tuple[Unlearnt, ...] | None:
    return find_unlearnt(record.metrics) if record.state is State.DONE else None


def _text(each: UnlearntMetric) -> str:
    if each.metric == SPREAD:
        return f"teacher collapsed (entropy of its mean target {each.value:.3g}, below {each.reference:.3g})"
    name = each.metric.removesuffix(LOSS_SUFFIX)
    return f"{_TITLES.get(name, name)} loss {each.value:.3g} of {each.reference:.3g} for trivial outputs"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
