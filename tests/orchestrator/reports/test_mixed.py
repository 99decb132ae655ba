"""Differences between trials of different code, versions or devices are marked wherever a table is shown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_csv, render_json
from orchestrator.trials.computation import Computation
from orchestrator.trials.records import TrialRecord

from .table_records import INFO, METRICS, RECORDS, make_records

OLD = Computation({"specvit": "a"}, {"torch": "2.13.0"}, "cpu")
NEW = Computation({"specvit": "b"}, {"torch": "2.13.0"}, "cpu")


def computed(records: list[TrialRecord], *computations: Computation) -> list[TrialRecord]:
    return [replace(record, computation=each) for record, each in zip(records, computations, strict=True)]


BASELINE = computed(make_records("none", 0.0, 1.0, 2.0, role="baseline"), OLD, OLD, NEW)
SAME = computed(make_records("same", 3.0, 4.0, 5.0), OLD, OLD, NEW)
MIXED = computed(make_records("other", 3.0, 4.0, 5.0), OLD, NEW, NEW)
UNKNOWN = make_records("unknown", 3.0, 4.0, 5.0)
TABLES = build_tables([*BASELINE, *SAME, *MIXED, *UNKNOWN], METRICS)
NOTE = (
    "Differences marked ‡ are between trials that were computed with different code (specvit): they are not of the "
    "arm alone."
)


def test_pairs_are_compared_seed_by_seed() -> None:
    assert {row.arm: row.mixed for row in TABLES[""].rows} == {
        "none": {},
        "same": {},
        "other": {"code": ("specvit",)},
        "unknown": {},
    }


def test_every_difference_of_a_mixed_arm_is_marked_and_one_sentence_says_why() -> None:
    text = render_markdown(TABLES, INFO)
    marked = [line for line in text.splitlines() if "‡" in line]
    assert [line.partition("|")[2].split()[0] for line in marked if line.startswith("|")] == ["`other`"]
    assert marked[0].count("‡") == len(METRICS)
    assert f"- {NOTE}" in marked
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(render_rich(TABLES, INFO))
    assert console.export_text().count("‡") == len(METRICS) + 1


def test_csv_and_json_have_a_column_where_something_is_mixed_and_there_alone() -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(TABLES, INFO))))
    assert [row["mixed"] for row in rows] == ["", "", "code (specvit)", ""]
    (table,) = json.loads(render_json(TABLES, INFO))["tables"]
    assert [row["mixed"] for row in table["rows"]] == [None, None, "code (specvit)", None]
    assert "mixed" not in render_csv(build_tables(RECORDS, METRICS), INFO).splitlines()[0]
