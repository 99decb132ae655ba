"""The ablation tables: one row per arm, every metric as a mean and as a difference to the group's baseline.

Made from the ledger's records alone, at any time, also of an unfinished sweep. These are the numbers;
``orchestrator.reports.table_files`` makes them readable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.reports.statistics import mean, paired_difference, sample_sd
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.probes import METRICS

_COUNTS = ("seeds", "done", "pruned", "failed", "unfinished", "left_out")


def build_tables(records: Sequence[TrialRecord], metrics: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Make the table of every group.

    Args:
        records: All trials of the sweep, in its order.
        metrics: Names of the metrics to show, in the order of their columns; none = those that a trial has.

    Returns:
        Text of the group to its table (see ``build_table``), in the order of the sweep.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.trial.group, []).append(record)
    names = tuple(metrics) or measured_metrics(records)
    return {group: build_table(group_records, names) for group, group_records in groups.items()}


def measured_metrics(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Return the names of the final metrics that some trial has: those of the probes first, then others."""
    found = {name for record in records for name in record.metrics}
    return (*(name for name in METRICS if name in found), *sorted(found - METRICS.keys()))


def build_table(records: Sequence[TrialRecord], metrics: Sequence[str]) -> pd.DataFrame:
    """Make the table of one group: the baseline first, the arms in the order of the sweep, the floors last.

    Args:
        records: The trials of the group, in the order of the sweep.
        metrics: Names of the metrics to show, in the order of their columns.

    Returns:
        One row per arm, also for an arm of which no trial is done. Columns:

        * ``arm``, ``role``: text.
        * For each metric M, over the trials that are done: ``M_mean``, ``M_sd`` (sample standard deviation;
          empty with one seed), ``M_n``; and against the baseline, over the seeds that both have done:
          ``M_diff``, ``M_diff_low``, ``M_diff_high`` (95% Student t), ``M_diff_n``, ``M_diff_p`` (sign flip).
          The differences of the baseline itself are empty.
        * ``extra_parameters_percent``, ``num_parameters``: of the backbone.
        * ``seeds``: trials planned; ``done``, ``pruned``, ``failed``, ``unfinished``, ``left_out``: how they stand.
        * ``seconds``, ``core_seconds``: mean wall and CPU time of the trials that are done.

        ``attrs["failures"]`` lists ``[label, error]`` of every failed trial, ``attrs["left_out"]`` the reasons for
        which trials were left out, each once.
    """
    arms: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.trial.role.rank):
        arms.setdefault(record.trial.arm_id, []).append(record)
    baseline = [record for record in records if record.trial.role is Role.BASELINE]
    rows = [_row(trials, baseline, metrics) for trials in arms.values()]
    table = pd.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in columns_of(metrics)})
    table.attrs["failures"] = [
        [record.trial.label, record.error or ""] for record in records if record.state is State.FAILED
    ]
    table.attrs["left_out"] = list(dict.fromkeys(record.left_out for record in records if record.left_out is not None))
    return table


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    """Make a column of a table; a whole table of Python values would be converted much more slowly."""
    if name in ("arm", "role"):
        return pd.Series(values)
    if name in _COUNTS or name.endswith(("_n", "num_parameters")):
        return pd.Series(values, dtype="Int64")
    return pd.Series(np.array([math.nan if value is None else value for value in values], dtype=np.float64))


def columns_of(metrics: Sequence[str]) -> list[str]:
    """Return the names of a table's columns."""
    parts = ("mean", "sd", "n", "diff", "diff_low", "diff_high", "diff_n", "diff_p")
    return [
        *("arm", "role"),
        *(f"{metric}_{part}" for metric in metrics for part in parts),
        *("extra_parameters_percent", "num_parameters"),
        *_COUNTS,
        *("seconds", "core_seconds"),
    ]


def _row(
    trials: Sequence[TrialRecord], baseline: Sequence[TrialRecord], metrics: Sequence[str]
) -> dict[str, object]:
    first = trials[0]
    row: dict[str, object] = {"arm": first.trial.arm, "role": first.trial.role}
    for metric in metrics:
        row |= _metric_cells(metric, _by_seed(trials, metric), _by_seed(baseline, metric), first.trial.role)
    row["extra_parameters_percent"] = first.trial.extra_parameters_percent
    row["num_parameters"] = first.trial.num_parameters
    states = [trial.state for trial in trials]
    row |= {"seeds": len(trials), "done": states.count(State.DONE), "pruned": states.count(State.PRUNED)}
    row |= {"failed": states.count(State.FAILED)}
    row["unfinished"] = states.count(State.WAITING) + states.count(State.RUNNING)
    row["left_out"] = states.count(State.LEFT_OUT)
    done = [trial for trial in trials if trial.state is State.DONE]
    row["seconds"] = mean([trial.seconds for trial in done if trial.seconds is not None])
    row["core_seconds"] = mean([trial.core_seconds for trial in done if trial.core_seconds is not None])
    return row


def _by_seed(records: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    return {
        record.trial.seed: record.metrics[metric]
        for record in records
        if record.state is State.DONE and metric in record.metrics
    }


def _metric_cells(
    metric: str, values: Mapping[int, float], baseline: Mapping[int, float], role: Role
) -> dict[str, object]:
    measured = list(values.values())
    cells: dict[str, object] = {
        f"{metric}_mean": mean(measured),
        f"{metric}_sd": sample_sd(measured),
        f"{metric}_n": len(measured),
    }
    if role is Role.BASELINE:
        return cells
    difference = paired_difference(values, baseline)
    return cells | {
        f"{metric}_diff": difference.mean,
        f"{metric}_diff_low": difference.low,
        f"{metric}_diff_high": difference.high,
        f"{metric}_diff_n": difference.n,
        f"{metric}_diff_p": difference.p_value,
    }
