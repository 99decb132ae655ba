"""Why an arm was given up, in a line: at which rung, by which difference to the baseline, against what.

Optuna says yes or no; what it compared is computed once more here, from the same differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from orchestrator.scheduling.paired_differences import Differences
from orchestrator.sweep.pruning_settings import AnyPruner, MedianPruning, PercentilePruning, WilcoxonPruning


def reason_text(settings: AnyPruner, seen: Differences, *, metric: str, higher_is_better: bool) -> str:
    """Return why a pruner gave an arm up: ``rung 1 (step 20): miou -4 against the baseline (mean of 3 seeds), ..``.

    Args:
        settings: The pruner.
        seen: What it looked at.
        metric: Name of the metric.
        higher_is_better: Which way is up: differences are told as they are, not with the better way up.
    """
    sign = 1.0 if higher_is_better else -1.0
    place = f"rung {seen.rung} (step {seen.step}): {metric}"
    if isinstance(settings, WilcoxonPruning):
        mean = math.fsum(value / len(seen.by_seed) for value in seen.by_seed)
        num_behind = sum(value < 0 for value in seen.by_seed)
        return (
            f"{place} {_against_baseline(sign * mean, len(seen.by_seed))}, behind with {num_behind}: "
            f"too far by Wilcoxon's signed-rank test with p_threshold {settings.p_threshold:g} for all rungs"
        )
    others = [values[seen.rung] for values in seen.others.values() if seen.rung in values]
    if isinstance(settings, MedianPruning | PercentilePruning):
        since = "" if len(seen.own) == 1 else " at best so far"
        share = settings.percentile if isinstance(settings, PercentilePruning) else 50.0
        what = "the median" if isinstance(settings, MedianPruning) else f"the bound of the best {share:g}%"
        bound = _number(sign * _percentile(others, 100.0 - share))
        count = f"{len(others)} other arm{'s' * (len(others) != 1)}"
        best = _against_baseline(sign * max(seen.own.values()), seen.num_seeds)
        return f"{place} {best}{since}, worse than {bound}, {what} of {count} with the baseline"
    own = seen.own[seen.rung]
    better = sum(other > own for other in others)
    rank = f"number {better + 1} of {len(others) + 1} arms there"
    return f"{place} {_against_baseline(sign * own, seen.num_seeds)}, {rank} ({_arguments(asdict(settings))})"


def _against_baseline(difference: float, num_seeds: int) -> str:
    seeds = "1 seed" if num_seeds == 1 else f"mean of {num_seeds} seeds"
    return f"{_number(difference)} against the baseline ({seeds})"


def _percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` percent lie, interpolated as ``numpy.percentile`` does."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * share / 100.0
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _number(value: float) -> str:
    return "not a finite number" if abs(value) >= 1e290 else f"{value:+.4g}"


def _arguments(settings: Mapping[str, object]) -> str:
    """Return a pruner and its arguments: ``successive_halving, reduction_factor 2``."""
    rest = [f"{name} {value}" for name, value in settings.items() if name not in ("pruner", "metric")]
    return ", ".join([str(settings["pruner"]), *rest])
