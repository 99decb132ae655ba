from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import scipy.stats

from orchestrator.reports.ablation_table import AblationTable, build_tables, measured_metrics
from orchestrator.reports.comparisons import Difference
from orchestrator.trials.records import State, TrialRecord
from specvit.training.cost import TrainingCost

from .table_records import make_trial


def make_record(
    arm: str,
    seed: int,
    value: float | None,
    *,
    role: str = "arm",
    group: str = "",
    state: State = State.DONE,
    metric: str = "knn_top1",
    error: str | None = None,
    seconds: float = 10.0,
) -> TrialRecord:
    return TrialRecord(
        make_trial(arm, seed, role=role, group=group),
        state=state,
        metrics={} if value is None else {metric: value},
        seconds=None if value is None else seconds,
        core_seconds=None if value is None else 2 * seconds,
        error=error,
    )


def build_table(records: Sequence[TrialRecord], metrics: Sequence[str]) -> AblationTable:
    (table,) = build_tables(records, metrics).values()
    return table


def baseline(*values: float) -> list[TrialRecord]:
    return [make_record("none", seed, value, role="baseline") for seed, value in enumerate(values)]


def difference_of(table: AblationTable, row: int) -> Difference:
    difference = table.rows[row].metrics["knn_top1"].difference
    assert difference is not None
    return difference


def test_rows_are_baseline_then_arms_in_their_order_then_floors() -> None:
    records = [
        make_record("raw pixels", 0, 1.0, role="floor"),
        make_record("qkv@all", 0, 1.0),
        make_record("none", 0, 1.0, role="baseline"),
        make_record("norm@all", 0, 1.0),
        make_record("qkv@all", 1, 1.0),
    ]
    table = build_table(records, ["knn_top1"])
    assert [row.arm for row in table.rows] == ["none", "qkv@all", "norm@all", "raw pixels"]
    assert [row.role for row in table.rows] == ["baseline", "arm", "arm", "floor"]


def test_row_of_an_arm_equals_scipys_numbers() -> None:
    values, base = [52.0, 55.0, 54.5], [50.0, 51.0, 53.0]
    records = [*baseline(*base), *(make_record("norm@all", seed, value) for seed, value in enumerate(values))]
    row = build_table(records, ["knn_top1"]).rows[1]
    cell = row.metrics["knn_top1"]
    test = scipy.stats.ttest_rel(values, base)
    interval = test.confidence_interval(0.95)
    assert cell.mean == pytest.approx(sum(values) / 3)
    assert cell.sd == pytest.approx(scipy.stats.tstd(values))
    assert cell.difference is not None
    assert cell.difference.mean == pytest.approx(2.5)
    assert (cell.difference.low, cell.difference.high) == pytest.approx((interval.low, interval.high))
    assert (cell.n, cell.difference.n) == (3, 3)
    assert cell.difference.p_value == pytest.approx(test.pvalue)
    assert (row.seconds, row.core_seconds, row.extra_parameters_percent) == (10.0, 20.0, 2.5)


def test_costs_are_means_over_the_trials_of_which_they_are_known() -> None:
    costs = (TrainingCost(10.0, 100.0, 0.5), TrainingCost(14.0, 80.0, None, 2.0), None)
    records = [
        replace(make_record("none", seed, 1.0, role="baseline"), cost=cost) for seed, cost in enumerate(costs)
    ]
    (row,) = build_table([*records, make_record("none", 3, None, role="baseline")], ["knn_top1"]).rows
    assert (row.training_s, row.training_images_per_s) == (12.0, 90.0)
    assert (row.peak_memory_gib, row.peak_gpu_memory_gib) == (0.5, 2.0)
    (bare,) = build_table([make_record("none", 0, 1.0, role="baseline")], ["knn_top1"]).rows
    assert bare.training_s is bare.training_images_per_s is bare.peak_memory_gib is bare.peak_gpu_memory_gib is None


def test_differences_of_the_baseline_are_empty_and_those_of_floors_are_not() -> None:
    floor = make_record("random init", 0, 30.0, role="floor")
    table = build_table([*baseline(50.0, 51.0), floor], ["knn_top1"])
    assert table.rows[0].metrics["knn_top1"].difference is None
    assert difference_of(table, 1) == Difference(1, -20.0)


def test_differences_are_paired_by_seed_over_the_seeds_that_both_have_done() -> None:
    records = [*baseline(50.0, 60.0), make_record("a", 1, 61.0), make_record("a", 2, 99.0)]
    table = build_table(records, ["knn_top1"])
    cell, difference = table.rows[1].metrics["knn_top1"], difference_of(table, 1)
    assert (cell.mean, cell.n) == (80.0, 2)
    assert (difference.n, difference.low) == (1, None)
    assert difference.mean == pytest.approx(1.0)


def test_arm_without_a_finished_trial_has_a_row_that_counts_its_trials() -> None:
    states = [State.WAITING, State.RUNNING, State.PRUNED, State.FAILED, State.FAILED]
    records = [make_record("a", seed, None, state=state) for seed, state in enumerate(states)]
    table = build_table([*baseline(50.0), *records], ["knn_top1"])
    row, cell = table.rows[1], table.rows[1].metrics["knn_top1"]
    counts = {name: getattr(row, name) for name in ("seeds", "done", "pruned", "failed", "unfinished", "left_out")}
    assert counts == {"seeds": 5, "done": 0, "pruned": 1, "failed": 2, "unfinished": 2, "left_out": 0}
    assert (cell.n, difference_of(table, 1).n) == (0, 0)
    assert (cell.mean, cell.sd, difference_of(table, 1).mean, row.seconds) == (None,) * 4


def test_means_are_over_done_trials_only() -> None:
    records = [make_record("a", 0, 50.0), make_record("a", 1, 99.0, state=State.FAILED, seconds=99.0)]
    (row,) = build_table(records, ["knn_top1"]).rows
    assert (row.metrics["knn_top1"].mean, row.seconds) == (50.0, 10.0)


def test_metric_that_an_arm_lacks_leaves_its_cells_empty() -> None:
    records = [*baseline(50.0), make_record("a", 0, 3.0, metric="miou")]
    table = build_table(records, ["knn_top1", "miou"])
    assert [row.metrics["miou"].n for row in table.rows] == [0, 1]
    assert table.rows[0].metrics["miou"].mean is None


def test_failures_are_kept_with_label_and_error() -> None:
    failed = make_record("a", 1, None, state=State.FAILED, error="ValueError: boom")
    assert build_table([*baseline(1.0), failed], ["miou"]).failures == (("a seed 1", "ValueError: boom"),)


def test_every_group_has_its_own_table_and_baseline() -> None:
    records = [
        make_record("none", 0, 50.0, role="baseline", group="nano"),
        make_record("none", 0, 70.0, role="baseline", group="micro"),
        make_record("a", 0, 71.0, group="micro"),
        make_record("a", 0, 53.0, group="nano"),
    ]
    tables = build_tables(records)
    assert list(tables) == ["nano", "micro"]
    assert [difference_of(table, 1).mean for table in tables.values()] == [3.0, 1.0]


def test_metrics_named_are_shown_in_their_order_also_before_any_trial_has_them() -> None:
    (table,) = build_tables([make_record("a", 0, None, state=State.WAITING)], ["miou", "knn_top1"]).values()
    assert table.metrics == tuple(table.rows[0].metrics) == ("miou", "knn_top1")


def test_metrics_not_named_are_those_that_a_trial_has_in_the_order_of_the_probes() -> None:
    records = [make_record("a", seed, 1.0, metric=name) for seed, name in enumerate(("own", "miou", "knn_top1"))]
    assert measured_metrics(records) == ("knn_top1", "miou", "own")


def test_sweep_without_trials_has_no_table() -> None:
    assert build_tables([]) == {}
