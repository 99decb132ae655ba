"""The value of an arm: the mean of a metric over all its seeds in the sweep, or why it has none.

An arm has a value only if all its seeds are done with a finite one: the mean of those that are left of an arm whose bad
seeds were pruned is that of the lucky ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.statistics.paired import mean, sample_sd
from orchestrator.trials.records import State, TrialRecord


@dataclass(frozen=True)
class ArmValue:
    """What an arm has of a metric.

    Attributes:
        by_seed: The value of each seed that is done and has one, finite or not.
        mean: Their mean, or None if some seed has no finite one.
        std_over_seeds: Their sample standard deviation, or None without a mean or with one seed.
        missing: Why there is no mean, a sentence; None if there is one.
        state: ``DONE`` if there is a mean; else ``FAILED`` if a seed failed or is done without a finite value, or else
            ``PRUNED`` if one was pruned, or else ``RUNNING``: one still waits, runs or was left out.
    """

    by_seed: Mapping[int, float]
    mean: float | None = None
    std_over_seeds: float | None = None
    missing: str | None = None
    state: State = State.DONE


def arm_value(records: Sequence[TrialRecord], metric: str) -> ArmValue:
    """Return what an arm has of a metric.

    Args:
        records: All trials of the arm in the sweep.
        metric: Name of the metric.
    """
    done = [record for record in records if record.state is State.DONE]
    by_seed = {record.trial.seed: record.metrics[metric] for record in done if metric in record.metrics}
    lacking = {record.trial.seed: record for record in records if not math.isfinite(_value(record, metric))}
    if not lacking:
        values = tuple(by_seed.values())
        return ArmValue(by_seed, mean(values), sample_sd(values))
    states = {State.FAILED if record.state is State.DONE else record.state for record in lacking.values()}
    texts = ", ".join(_why(record, metric) for record in lacking.values())
    return ArmValue(
        by_seed,
        missing=f"not all seeds of the arm have a value: {texts}",
        state=next((state for state in (State.FAILED, State.PRUNED) if state in states), State.RUNNING),
    )


def _value(record: TrialRecord, metric: str) -> float:
    return record.metrics.get(metric, math.nan) if record.state is State.DONE else math.nan


def _why(record: TrialRecord, metric: str) -> str:
    seed = f"seed {record.trial.seed}"
    match record.state:
        case State.DONE if metric in record.metrics:
            return f"{metric} of {seed} is {record.metrics[metric]}"
        case State.DONE:
            return f"{seed} has no {metric}"
        case State.FAILED:
            return f"{seed} failed"
        case State.PRUNED:
            return f"{seed} was pruned"
        case State.SKIPPED:
            return f"{seed} was left out"
        case state:
            return f"{seed} is {state}"
