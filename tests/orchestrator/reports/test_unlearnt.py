"""Trials that have not learnt what their recipe says, in all formats of the tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping

import pytest
from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.curves import build_curves, make_figure
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_csv, render_json
from orchestrator.reports.unlearnt import UnlearntMetric, collect_unlearnt, count_unlearnt, learning_note
from orchestrator.trials.records import Report, State, TrialRecord

from .table_records import INFO, METRICS, RECORDS, make_records

STILL = {"dino_loss": 5.53, "dino_loss_trivial": 5.5452, "ibot_loss": 2.0, "ibot_loss_trivial": 2.77}
LEARNT = {**STILL, "dino_loss": 4.0, "teacher_spread": 5.0}
COLLAPSED = {**LEARNT, "teacher_spread": 0.1}


def _with(records: list[TrialRecord], *learnt: Mapping[str, float]) -> list[TrialRecord]:
    """Give each record the metrics of what it has learnt."""
    return [
        dataclasses.replace(record, metrics={**record.metrics, **metrics})
        for record, metrics in zip(records, learnt, strict=True)
    ]


MARKED = [
    *_with(make_records("none", 0.0, 1.0, 2.0, role="baseline"), STILL, STILL, LEARNT),
    *_with(make_records("norm@all", 3.0, 4.0, 5.0), STILL, LEARNT, LEARNT),
    *_with(make_records("qkv@all", 3.0, 4.0, 5.0), LEARNT, LEARNT, LEARNT),
    *make_records("random init", -9.0, -8.0, -7.0, role="floor"),
]
NOTE = (
    "Not learnt: DINO loss 5.53 of 5.55 for trivial outputs in 3 trials of 2 arms, so the table says nothing about "
    "arms that learn by this."
)


def test_trials_that_are_done_are_counted_and_others_are_not() -> None:
    assert [count_unlearnt(MARKED[first : first + 3]) for first in (0, 3, 6, 9)] == [2, 1, 0, None]
    pruned = [dataclasses.replace(record, state=State.PRUNED) for record in MARKED]
    assert count_unlearnt(pruned) is None
    assert collect_unlearnt(pruned) == ()
    assert collect_unlearnt(MARKED) == (UnlearntMetric("dino_loss", 5.53, pytest.approx(5.5452), trials=3, arms=2),)


def test_one_sentence_says_all_that_was_not_learnt() -> None:
    assert learning_note(()) is None
    assert learning_note(collect_unlearnt(MARKED)) == NOTE
    ibot = {**COLLAPSED, "ibot_loss": 2.8}
    note = learning_note(collect_unlearnt(_with(make_records("a", 0.0), ibot)))
    assert note == (
        "Not learnt: iBOT loss 2.8 of 2.77 for trivial outputs in 1 trial of 1 arm, teacher collapsed (entropy of its "
        "mean target 0.1, below 0.693) in 1 trial of 1 arm, so the table says nothing about arms that learn by this."
    )


def test_text_and_markdown_mark_the_arms_and_have_the_sentence_below() -> None:
    tables = build_tables(MARKED, METRICS)
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(render_rich(tables, INFO))
    text, markdown = console.export_text(), render_markdown(tables, INFO)
    for shown in (text, markdown):
        assert shown.count(NOTE) == 1
        assert (shown.count("2 not learnt"), shown.count("1 not learnt"), shown.count("0 not learnt")) == (1, 1, 0)
    (line,) = (line for line in markdown.splitlines() if line.startswith("| `norm@all`"))
    assert "| 3/3, 1 not learnt |" in line


def test_csv_and_json_have_the_number_of_an_arm_and_the_sentence() -> None:
    tables = build_tables(MARKED, METRICS)
    rows = list(csv.DictReader(io.StringIO(render_csv(tables, INFO))))
    assert [row["not_learnt"] for row in rows] == ["2", "1", "0", ""]
    assert [row["not_learnt_note"] for row in rows] == [NOTE, NOTE, "", ""]
    (table,) = json.loads(render_json(tables, INFO))["tables"]
    assert [row["not_learnt"] for row in table["rows"]] == [2, 1, 0, None]
    assert table["not_learnt_note"] == NOTE


def test_records_of_before_have_no_mark_no_sentence_and_no_column() -> None:
    tables = build_tables(RECORDS, METRICS)
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(render_rich(tables, INFO))
    shown = [render_markdown(tables, INFO), render_csv(tables, INFO), render_json(tables, INFO), console.export_text()]
    assert not any("learnt" in text for text in shown)


def test_where_all_have_learnt_there_is_no_sentence() -> None:
    tables = build_tables(MARKED[6:9], METRICS)
    assert "learnt" not in render_markdown(tables, INFO)
    (table,) = json.loads(render_json(tables, INFO))["tables"]
    assert table["not_learnt_note"] is None


def test_what_was_learnt_makes_no_column_of_a_table_that_shows_all_metrics() -> None:
    assert build_tables(MARKED)[""].metrics == METRICS


@pytest.mark.parametrize(("others", "panels"), [({"miou": 20.0, "loss": 5.0}, 2), ({}, 4)])
def test_curves_list_what_was_learnt_and_the_figure_leaves_it_out(others: dict[str, float], panels: int) -> None:
    (record,) = make_records("none", 0.0, role="baseline")
    curves = build_curves([dataclasses.replace(record, reports=(Report(10, {**others, **STILL}),))])
    assert set(curves["metric"]) == {*others, *STILL}
    assert len(make_figure(curves).axes) == panels
