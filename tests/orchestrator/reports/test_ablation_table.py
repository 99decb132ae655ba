from __future__ import annotations

import math

import pandas as pd
import pytest
import scipy.stats

from orchestrator.reports.ablation_table import build_table, build_tables, columns_of, measured_metrics
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo


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
        TrialInfo(
            trial_id=f"{group} {arm} {seed}",
            group_id=group,
            arm_id=f"{group} {arm}",
            group=group,
            arm=arm,
            role=Role(role),
            label=f"{arm} seed {seed}",
            seed=seed,
            num_parameters=1000,
            extra_parameters_percent=12.5,
        ),
        state=state,
        metrics={} if value is None else {metric: value},
        seconds=None if value is None else seconds,
        core_seconds=None if value is None else 2 * seconds,
        error=error,
    )


def baseline(*values: float) -> list[TrialRecord]:
    return [make_record("none", seed, value, role="baseline") for seed, value in enumerate(values)]


def test_rows_are_baseline_then_arms_in_their_order_then_floors() -> None:
    records = [
        make_record("raw pixels", 0, 1.0, role="floor"),
        make_record("qkv@all", 0, 1.0),
        make_record("none", 0, 1.0, role="baseline"),
        make_record("norm@all", 0, 1.0),
        make_record("qkv@all", 1, 1.0),
    ]
    table = build_table(records, ["knn_top1"])
    assert table["arm"].tolist() == ["none", "qkv@all", "norm@all", "raw pixels"]
    assert table["role"].tolist() == ["baseline", "arm", "arm", "floor"]


def test_columns_are_those_of_the_csv_in_their_order() -> None:
    assert list(build_table(baseline(1.0), ["miou"]).columns) == columns_of(["miou"])
    assert columns_of(["miou"]) == [
        *("arm", "role", "miou_mean", "miou_sd", "miou_n"),
        *("miou_diff", "miou_diff_low", "miou_diff_high", "miou_diff_n", "miou_diff_p"),
        *("extra_parameters_percent", "num_parameters"),
        *("seeds", "done", "pruned", "failed", "unfinished", "left_out", "seconds", "core_seconds"),
    ]


def test_row_of_an_arm_equals_scipys_numbers() -> None:
    values, base = [52.0, 55.0, 54.5], [50.0, 51.0, 53.0]
    records = [*baseline(*base), *(make_record("norm@all", seed, value) for seed, value in enumerate(values))]
    row = build_table(records, ["knn_top1"]).iloc[1]
    test = scipy.stats.ttest_rel(values, base)
    interval = test.confidence_interval(0.95)
    assert row["knn_top1_mean"] == pytest.approx(sum(values) / 3)
    assert row["knn_top1_sd"] == pytest.approx(scipy.stats.tstd(values))
    assert row["knn_top1_diff"] == pytest.approx(2.5)
    assert (row["knn_top1_diff_low"], row["knn_top1_diff_high"]) == pytest.approx((interval.low, interval.high))
    assert (row["knn_top1_n"], row["knn_top1_diff_n"], row["knn_top1_diff_p"]) == (3, 3, 0.25)
    assert (row["seconds"], row["core_seconds"], row["extra_parameters_percent"]) == (10.0, 20.0, 12.5)


def test_differences_of_the_baseline_are_empty_and_those_of_floors_are_not() -> None:
    floor = make_record("random init", 0, 30.0, role="floor")
    table = build_table([*baseline(50.0, 51.0), floor], ["knn_top1"])
    differences = table[[name for name in table.columns if "_diff" in name]]
    assert differences.iloc[0].isna().all()
    assert table["knn_top1_diff"][1] == -20.0


def test_differences_are_paired_by_seed_over_the_seeds_that_both_have_done() -> None:
    records = [*baseline(50.0, 60.0), make_record("a", 1, 61.0), make_record("a", 2, 99.0)]
    row = build_table(records, ["knn_top1"]).iloc[1]
    assert (row["knn_top1_mean"], row["knn_top1_n"]) == (80.0, 2)
    assert (row["knn_top1_diff"], row["knn_top1_diff_n"]) == (1.0, 1)
    assert pd.isna(row["knn_top1_diff_low"])


def test_arm_without_a_finished_trial_has_a_row_that_counts_its_trials() -> None:
    states = [State.WAITING, State.RUNNING, State.PRUNED, State.FAILED, State.FAILED]
    records = [make_record("a", seed, None, state=state) for seed, state in enumerate(states)]
    row = build_table([*baseline(50.0), *records], ["knn_top1"]).iloc[1]
    counts = {name: row[name] for name in ("seeds", "done", "pruned", "failed", "unfinished", "left_out")}
    assert counts == {"seeds": 5, "done": 0, "pruned": 1, "failed": 2, "unfinished": 2, "left_out": 0}
    assert (row["knn_top1_n"], row["knn_top1_diff_n"]) == (0, 0)
    assert row[["knn_top1_mean", "knn_top1_sd", "knn_top1_diff", "seconds"]].isna().all()


def test_means_are_over_done_trials_only() -> None:
    records = [make_record("a", 0, 50.0), make_record("a", 1, 99.0, state=State.FAILED, seconds=99.0)]
    row = build_table(records, ["knn_top1"]).iloc[0]
    assert (row["knn_top1_mean"], row["seconds"]) == (50.0, 10.0)


def test_metric_that_an_arm_lacks_leaves_its_cells_empty() -> None:
    records = [*baseline(50.0), make_record("a", 0, 3.0, metric="miou")]
    table = build_table(records, ["knn_top1", "miou"])
    assert table["miou_n"].tolist() == [0, 1]
    assert math.isnan(table["miou_mean"][0])


def test_failures_are_kept_with_label_and_error() -> None:
    failed = make_record("a", 1, None, state=State.FAILED, error="ValueError: boom")
    assert build_table([*baseline(1.0), failed], []).attrs["failures"] == [["a seed 1", "ValueError: boom"]]


def test_every_group_has_its_own_table_and_baseline() -> None:
    records = [
        make_record("none", 0, 50.0, role="baseline", group="nano"),
        make_record("none", 0, 70.0, role="baseline", group="micro"),
        make_record("a", 0, 71.0, group="micro"),
        make_record("a", 0, 53.0, group="nano"),
    ]
    tables = build_tables(records)
    assert list(tables) == ["nano", "micro"]
    assert [table["knn_top1_diff"][1] for table in tables.values()] == [3.0, 1.0]


def test_metrics_named_are_shown_in_their_order_also_before_any_trial_has_them() -> None:
    (table,) = build_tables([make_record("a", 0, None, state=State.WAITING)], ["miou", "knn_top1"]).values()
    assert [name for name in table.columns if name.endswith("_mean")] == ["miou_mean", "knn_top1_mean"]


def test_metrics_not_named_are_those_that_a_trial_has_in_the_order_of_the_probes() -> None:
    records = [make_record("a", seed, 1.0, metric=name) for seed, name in enumerate(("own", "miou", "knn_top1"))]
    assert measured_metrics(records) == ("knn_top1", "miou", "own")


def test_sweep_without_trials_has_no_table() -> None:
    assert build_tables([]) == {}
