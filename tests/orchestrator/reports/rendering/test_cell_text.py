from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.reports.ablation_table import AblationTable, ArmRow, MetricCell
from orchestrator.reports.comparisons import Difference
from orchestrator.reports.rendering.cell_text import (
    difference_text,
    is_decided,
    mean_text,
    notes_of,
    parameters_text,
    role_text,
    seconds_text,
    states_texts,
    verdict_text,
)
from orchestrator.statistics import Verdict
from orchestrator.trials.trial import Role

ROW = ArmRow(
    arm="a", role=Role.ARM, metrics={}, extra_parameters_percent=0.0, num_parameters=1000, seeds=3, done=3, pruned=0,
    failed=0, unfinished=0, left_out=0, seconds=None, core_seconds=None,
)  # fmt: skip
CELL = MetricCell(None, None, 3, Difference(3))


def make_row(metric: str = "miou", difference: Difference | None = CELL.difference, **cell: Any) -> ArmRow:
    return replace(ROW, metrics={metric: replace(CELL, difference=difference, **cell)})


def make_table(**counts: int) -> AblationTable:
    return AblationTable(("miou",), (replace(make_row(), **counts),), (), ())


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ({"mean": 54.26, "sd": 0.849}, "54.3 ± 0.8"),
        ({"mean": 54.26, "n": 1}, "54.3"),
        ({"n": 0}, "-"),
        ({"mean": None, "n": 2}, "not finite"),
        ({"mean": float("inf"), "n": 2}, "not finite"),
        ({"mean": -0.01, "n": 1}, "0.0"),
    ],
)
def test_mean_text_shows_what_there_is(cells: dict[str, Any], text: str) -> None:
    assert mean_text(make_row(**cells), "miou") == text


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(3, 1.2, -0.4, 2.8), "+1.2 [-0.4, +2.8]"),
        (Difference(3, 1.2), "+1.2"),
        (Difference(3, -0.01, -0.02, 0.01), "+0.0 [+0.0, +0.0]"),
        (Difference(1, 1.2), "+1.2 n=1"),
        (Difference(3), ""),
        (Difference(3, math.inf), ""),
        (None, ""),
    ],
)
def test_difference_text_shows_what_there_is(difference: Difference | None, text: str) -> None:
    assert difference_text(make_row(difference=difference), "miou") == text


@pytest.mark.parametrize(
    ("verdict", "decided"), [*zip(Verdict, (True, True, False, False), strict=True), (None, False)]
)
def test_better_and_worse_are_decided(verdict: Verdict | None, decided: bool) -> None:
    row = make_row(difference=Difference(4, 1.0, 0.5, 1.5, verdict=verdict))
    assert is_decided(row, "miou") is decided
    assert verdict_text(row, "miou") == ("" if verdict is None else str(verdict))


def test_exploratory_differences_are_marked_by_their_adjusted_p() -> None:
    rows = [make_row(difference=Difference(3, 1.0, 0.5, 1.5, q_value=q_value)) for q_value in (0.04, 0.06)]
    assert [difference_text(row, "miou") for row in rows] == ["+1.0 [+0.5, +1.5] †", "+1.0 [+0.5, +1.5]"]


def test_pruned_arms_and_arms_that_change_nothing_say_so_in_place_of_a_difference() -> None:
    row = make_row(difference=Difference(3, 1.0))
    assert difference_text(replace(row, pruned=1), "miou") == "pruned"
    assert difference_text(replace(row, is_no_op=True), "miou") == "no-op"


def test_states_texts_name_what_did_not_go_as_planned() -> None:
    row = replace(ROW, seeds=9, done=2, pruned=1, failed=1, unfinished=3, left_out=2)
    assert states_texts(row) == ["2/9", "1 pruned", "1 failed", "3 to do", "2 left out"]
    assert states_texts(ROW) == ["3/3"]


def test_other_cells_show_what_there_is() -> None:
    assert parameters_text(replace(ROW, extra_parameters_percent=12.345)) == "+12.3%"
    assert parameters_text(replace(ROW, extra_parameters_percent=-100.0, num_parameters=0)) == "-"
    assert (seconds_text(replace(ROW, seconds=41.26)), seconds_text(ROW)) == ("41.3", "-")
    assert (role_text(replace(ROW, role=Role.FLOOR)), role_text(ROW)) == (" (floor)", "")


def test_unknown_metric_and_one_in_metres_have_three_decimals() -> None:
    assert mean_text(make_row("own", mean=0.12345, sd=0.001), "own") == "0.123 ± 0.001"
    assert mean_text(make_row("depth_rmse", mean=1.23456, sd=0.01), "depth_rmse") == "1.235 ± 0.010"
    row = make_row("depth_rmse", Difference(3, -0.0421, -0.061, -0.0232))
    assert difference_text(row, "depth_rmse") == "-0.042 [-0.061, -0.023]"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        *(("pruned", "surviving seeds"), ("failed", "did not fail")),
        *(("unfinished", "still to do"), ("left_out", "left out, the last seeds first")),
    ],
)
def test_notes_speak_of_pruned_failed_and_unfinished_trials_only_if_there_are(column: str, words: str) -> None:
    assert any(words in note for note in notes_of(make_table(**{column: 1}), place="below it"))
    assert not any(words in note for note in notes_of(make_table(), place="below it"))


def test_notes_warn_that_short_runs_may_not_predict_long_ones() -> None:
    assert any("not known to predict" in note for note in notes_of(make_table(), place="below it"))
