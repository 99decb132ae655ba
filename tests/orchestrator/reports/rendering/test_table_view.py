from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.interactions import compare_groups
from orchestrator.reports.rendering.cell_text import notes_of
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.table_view import TableView, apply_view
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.result_files import render_csv
from specvit.errors import SpecsweepError

from ..table_records import INFO, METRICS, make_records

RECORDS = [
    *make_records("none", 0.0, 1.0, 2.0, 0.5, role="baseline"),
    *make_records("qkv@all", 1.0, 2.1, 3.0, 1.4),  # by 0.97
    *make_records("norm@all+qkv@all", 4.0, 5.1, 6.0, 4.4),  # by 3.97
    *make_records("mlp@all (placebo, own lr 0.5)", -1.0, 0.1, 1.0, -0.6),  # by -1.03
    *make_records("random init", -9.0, -8.0, -7.0, -8.5, role="floor"),
]


def viewed(metrics: str = "", arms: str = "", sort: str = "") -> AblationTable:
    return apply_view(build_tables(RECORDS, METRICS), TableView(metrics, arms, sort))[""]


def arms_of(table: AblationTable) -> list[str]:
    return [row.arm for row in table.rows]


def test_without_a_view_tables_stay_as_they_are() -> None:
    tables = build_tables(RECORDS, METRICS)
    assert apply_view(tables, TableView()) == tables
    assert "shown" not in render_markdown(apply_view(tables, TableView()), INFO)


@pytest.mark.parametrize(
    ("arms", "shown"),
    [
        ("qkv@all", ["qkv@all"]),
        ("*qkv*", ["qkv@all", "norm@all+qkv@all"]),
        ("norm*, random init", ["norm@all+qkv@all", "random init"]),
        ("mlp@all (placebo, own lr 0.5),qkv@all", ["qkv@all", "mlp@all (placebo, own lr 0.5)"]),
        ("mlp*, own*", ["mlp@all (placebo, own lr 0.5)"]),
        ("norm+qkv@all", ["norm@all+qkv@all"]),  # as a narrow table calls it
        ("none", []),
    ],
)
def test_arms_are_shown_by_name_or_glob_and_the_baseline_always(arms: str, shown: list[str]) -> None:
    assert arms_of(viewed(arms=arms)) == ["none", *shown]


def test_what_is_shown_changes_no_interval_no_verdict_and_no_sentence() -> None:
    whole, part = viewed(), viewed(metrics="knn_top1", arms="norm*", sort="difference")
    rows = {row.arm: row for row in whole.rows}
    assert all(row == rows[row.arm] for row in part.rows)
    assert sentences_of(part) == sentences_of(whole)
    assert "norm@all+qkv@all: +4.0" in sentences_of(part)[0]
    assert "3 arms" in sentences_of(part)[0]
    notes = notes_of(part, place="below it")
    assert "3 arms compared, 1 shown: intervals and verdicts are those of all 3." in notes
    assert "Rows are sorted by difference to the baseline in mIoU, best first." in notes


@pytest.mark.parametrize(
    ("sort", "arms"),
    [
        ("", ["qkv@all", "norm@all+qkv@all", "mlp@all (placebo, own lr 0.5)"]),
        ("arm", ["mlp@all (placebo, own lr 0.5)", "norm@all+qkv@all", "qkv@all"]),
        ("difference", ["norm@all+qkv@all", "qkv@all", "mlp@all (placebo, own lr 0.5)"]),
        ("knn_top1", ["norm@all+qkv@all", "qkv@all", "mlp@all (placebo, own lr 0.5)"]),
    ],
)
def test_rows_are_sorted_within_their_role(sort: str, arms: list[str]) -> None:
    assert arms_of(viewed(sort=sort)) == ["none", *arms, "random init"]


def test_fewest_extra_parameters_come_first_and_a_metric_that_is_better_low_ascends() -> None:
    records = []
    for arm, percent, value in (("none", 0.0, 3.0), ("a", 9.0, 2.0), ("b", 1.0, 1.0), ("c", 5.0, None)):
        for record in make_records(arm, 0.0, role="baseline" if arm == "none" else "arm"):
            trial = dataclasses.replace(record.trial, extra_parameters_percent=percent)
            metrics = {} if value is None else {"depth_rmse": value}
            records.append(dataclasses.replace(record, trial=trial, metrics=metrics))
    tables = build_tables(records, ["depth_rmse"])
    assert arms_of(apply_view(tables, TableView(sort="parameters"))[""]) == ["none", "b", "c", "a"]
    assert arms_of(apply_view(tables, TableView(sort="depth_rmse"))[""]) == ["none", "b", "a", "c"]


def test_metrics_are_the_columns_in_the_order_given() -> None:
    table = viewed(metrics="miou, knn_top1")
    assert table.metrics == ("miou", "knn_top1")
    (names, *_) = csv.reader(io.StringIO(render_csv({"": table}, INFO)))
    assert [name for name in names if name.endswith("_mean")] == ["miou_mean", "knn_top1_mean"]
    assert "linear" not in render_markdown({"": table}, INFO).split("\n- ")[0]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (TableView(metrics="miou,knn_top"), "--metrics: no metric 'knn_top' (did you mean 'knn_top1'?); there are"),
        (TableView(arms="qkv@al"), "--arms: no arm 'qkv@al' (did you mean 'qkv@all'?); arms are called as in the"),
        (TableView(arms="qkv@all,x*"), "--arms: no arm 'x*'; arms are called as in the table"),
        (TableView(sort="diff"), "--sort: no order 'diff'"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_like_it(view: TableView, message: str) -> None:
    with pytest.raises(SpecsweepError) as error:
        apply_view(build_tables(RECORDS, METRICS), view)
    assert str(error.value).startswith(message)


def test_a_group_without_a_named_arm_keeps_its_baseline_and_across_groups_the_family_stays() -> None:
    records = [
        record
        for group in ("g=1", "g=2")
        for arm, role, by in (("none", "baseline", 0.0), ("a", "arm", 1.0), ("b", "arm", 2.0))
        for record in make_records(arm, by, by + 1.1, by + 1.9, by + 0.4, role=role, group=group)
    ]
    records += make_records("c", 1.0, 2.0, 3.0, 1.4, group="g=2")
    tables = build_tables(records, METRICS)
    assert {group: arms_of(table) for group, table in apply_view(tables, TableView(arms="c")).items()} == {
        "g=1": ["none"],
        "g=2": ["none", "c"],
    }
    whole, part = compare_groups(tables), compare_groups(apply_view(tables, TableView(arms="b")))
    assert whole is not None
    assert part is not None
    assert part.rows == whole.rows == whole.shown_rows
    assert [row.arm for row in part.shown_rows] == ["none", "b"]
