"""Why a trial was pruned, in a line: at which rung, by which value, against what.

Optuna says yes or no; what it compared is computed once more here, from the same values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.sweep.pruning_settings import AnyPruner, MedianPruning, PercentilePruning


@dataclass(frozen=True)
class Verdict:
    """What a pruner looked at when it gave a trial up.

    Attributes:
        metric: Name of the metric.
        step: Optimizer step of the rung.
        rung: Number of the rung, from 1.
        own: The trial's values at its rungs so far.
        others: Value of each other trial that has come to this rung.
        finished: Those of ``others`` that have run to their ends.
        higher_is_better: Which way is up.
    """

    metric: str
    step: int
    rung: int
    own: Sequence[float]
    others: Sequence[float]
    finished: Sequence[float]
    higher_is_better: bool


def reason_text(settings: AnyPruner, verdict: Verdict) -> str:
    """Return why a pruner gave a trial up: ``rung 1 (step 20): miou 4, worse than 6, the median of 5 finished trials``.

    Args:
        settings: The pruner.
        verdict: What it looked at.
    """
    place = f"rung {verdict.rung} (step {verdict.step})"
    if isinstance(settings, MedianPruning | PercentilePruning) and verdict.finished:
        own = _best(verdict)
        since = "" if len(verdict.own) == 1 else " at best so far"
        share = settings.percentile if isinstance(settings, PercentilePruning) else 50.0
        what = "the median" if isinstance(settings, MedianPruning) else f"the bound of the best {share:g}%"
        bound = _number(_percentile(verdict.finished, share, higher_is_better=verdict.higher_is_better))
        count = f"{len(verdict.finished)} finished trial{'s' * (len(verdict.finished) != 1)}"
        return f"{place}: {verdict.metric} {_number(own)}{since}, worse than {bound}, {what} of {count}"
    value = verdict.own[-1]
    better = sum((other > value) if verdict.higher_is_better else (other < value) for other in verdict.others)
    rank = f"number {better + 1} of {len(verdict.others) + 1} trials there"
    return f"{place}: {verdict.metric} {_number(value)}, {rank} ({_arguments(asdict(settings))})"


def _best(verdict: Verdict) -> float:
    return max(verdict.own) if verdict.higher_is_better else min(verdict.own)


def _percentile(values: Sequence[float], share: float, *, higher_is_better: bool) -> float:
    """Return the value that the best ``share`` percent reach, interpolated as ``numpy.percentile`` does."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * (100.0 - share if higher_is_better else share) / 100.0
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _number(value: float) -> str:
    return "not a finite number" if abs(value) >= 1e300 else f"{value:.4g}"


def _arguments(settings: Mapping[str, object]) -> str:
    """Return a pruner and its arguments: ``successive_halving, reduction_factor 2``."""
    rest = [f"{name} {value}" for name, value in settings.items() if name not in ("pruner", "metric")]
    return ", ".join([str(settings["pruner"]), *rest])
