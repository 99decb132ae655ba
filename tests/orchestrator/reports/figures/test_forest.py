from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from orchestrator.reports.ablation_table import AblationTable, tables_of
from orchestrator.reports.drawing.shapes import Area, Drawing, Label, Line, Mark
from orchestrator.reports.figures.forest import draw_forest, effects_forest, forest_of
from orchestrator.trials.records import TrialRecord

from ..table_records import DECIDED, INFO, RECORDS, make_records

EVERY_VERDICT = [
    *DECIDED,
    *make_records("qkv@all", -3.0, -2.1, -1.2, -2.6, -1.6),
    *make_records("mlp@all", 0.05, 1.1, 1.9, 0.6, 1.4),
    *make_records("proj@all", 0.5, 2.3, 1.7, 1.6, 1.4),
    *make_records("pruned@all", 0.0, 2.0, None, None, None),
    *make_records("placebo", 0.3, 1.2, 2.4, 0.6, 1.6, role="control"),
    *make_records("random init", -9.0, -8.0, -7.0, -8.0, -8.0, role="floor"),
]


def table_of(records: list[TrialRecord], smallest: float | None = 1.0) -> AblationTable:
    return tables_of(records, replace(INFO, smallest_effects={} if smallest is None else {"miou": smallest}))[""]


@pytest.fixture(scope="module")
def table() -> AblationTable:
    return table_of(EVERY_VERDICT)


def texts(drawing: Drawing) -> list[str]:
    return [item.text for item in drawing.items if isinstance(item, Label)]


def marks(drawing: Drawing) -> list[tuple[str, str]]:
    return [(item.style, item.shape) for item in drawing.items if isinstance(item, Mark)]


def test_every_arm_has_a_row_and_every_verdict_a_mark_of_its_own(table: AblationTable) -> None:
    forest = forest_of(table, "miou")
    assert forest is not None
    assert [(row.label, row.verdict) for row in forest.rows] == [
        ("norm@all", "better"), ("qkv@all", "worse"), ("mlp@all", "equivalent"), ("proj@all", "undecided"),
        ("pruned@all", ""), ("placebo (control)", "equivalent"), ("random init (floor)", ""),
    ]
    assert (forest.rows[4].text, forest.rows[4].mean) == ("pruned", None)
    drawing = draw_forest(forest, width=700.0, em=10.0)
    assert marks(drawing) == [
        ("better", "up"), ("worse", "down"), ("equivalent", "square"), ("undecided", "circle"),
        ("equivalent", "square"),
        ("none", "left"),  # the floor lies 9 below, where the axis does not reach
    ]
    rules = [item for item in drawing.items if isinstance(item, Line) and item.points[0][0] == 0.0]
    assert len(rules) == 2  # below the arms, and below the control
    assert {"better", "worse", "equivalent", "undecided", "pruned", "-9.0"} <= set(texts(drawing))


def test_an_interval_lies_where_its_numbers_say(table: AblationTable) -> None:
    forest = forest_of(table, "miou")
    assert forest is not None
    drawing = draw_forest(forest, width=700.0, em=10.0)
    row = forest.rows[0]
    assert None not in (row.low, row.high, row.mean)
    whisker = next(item for item in drawing.items if isinstance(item, Line) and item.style == "better")
    zero = next(item for item in drawing.items if isinstance(item, Line) and item.style == "zero").points[0][0]
    band = next(item for item in drawing.items if isinstance(item, Area))
    (left, _), (right, _), *_ = band.points
    unit = (right - left) / 2  # the smallest effect reaches from -1 to 1
    assert (left + right) / 2 == pytest.approx(zero)
    assert [x for x, _ in whisker.points] == pytest.approx([zero + unit * row.low, zero + unit * row.high])  # type: ignore[operator]


def test_nothing_is_shaded_without_a_smallest_effect_or_in_another_metric(table: AblationTable) -> None:
    for shown, name in ((table_of(EVERY_VERDICT[:10], None), "miou"), (table, "linear_top1")):
        forest = forest_of(shown, name)
        assert forest is not None
        assert not any(isinstance(item, Area) for item in draw_forest(forest, width=700.0, em=10.0).items)


@pytest.mark.parametrize("width", [237.6, 350.0, 489.6, 980.0])
def test_all_lies_within_the_drawing(table: AblationTable, width: float) -> None:
    forest = forest_of(table, "miou")
    assert forest is not None
    drawing = draw_forest(forest, width=width, em=8.0)
    points = [p for item in drawing.items if isinstance(item, Line | Area) for p in item.points]
    points += [item.at for item in drawing.items if isinstance(item, Mark | Label)]
    assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in points)


def test_a_narrow_drawing_says_what_its_marks_stand_for() -> None:
    records = make_records("none", 0.0, 1.0, 2.0, 0.5, role="baseline")
    records += make_records("norm@first-third+qkv@first-third+mlp@first-third", 3.0, 4.1, 5.2, 3.6)
    forest = forest_of(table_of(records), "miou")
    assert forest is not None
    drawing = draw_forest(forest, width=250.0, em=8.0)
    assert texts(drawing)[-1] == "better"
    label = next(item for item in drawing.items if isinstance(item, Label) and item.full)
    assert label.full == "norm@first-third+qkv@first-third+mlp@first-third"


def test_no_two_rows_of_a_narrow_drawing_read_alike() -> None:
    """A name that is cut loses its middle, where names of combinations differ; the place that they share goes first."""
    parts = ("norm", "qkv", "proj", "mlp")
    arms = ["+".join(f"{part}@first-third" for part in some) for n in (1, 2, 3, 4) for some in combinations(parts, n)]
    records = make_records("none", 0.0, 1.0, 2.0, 0.5, role="baseline")
    for arm in arms:
        records += make_records(arm, 3.0, 4.1, 5.2, 3.6)
    records += make_records(f"placebo of {arms[-1]}", 0.0, 1.1, 2.2, 0.6, role="control")
    table = table_of(records)
    forest = forest_of(table, "miou")
    assert forest is not None
    (reading,) = table.factorials
    effects = effects_forest(table, reading, "miou")
    assert effects is not None
    for shown, width in ((forest, 348.0), (effects, 280.0)):
        drawing = draw_forest(shown, width=width, em=11.0)
        labels = [item.text for item in drawing.items if isinstance(item, Label) and item.at[0] == 0]
        assert len(set(labels)) == len(shown.rows)
    assert labels[0] == "norm@first-third"
    assert "qkv x mlp@first-third" in labels
    wide = draw_forest(forest, width=1200.0, em=11.0)
    *whole, control = [text for text in texts(wide) if "@" in text]
    assert [*whole, control] == [*arms, "placebo of norm+qkv+proj+mlp@first-third (control)"]


def test_no_forest_without_an_arm_and_one_with_arms_that_have_no_value_yet() -> None:
    baseline = make_records("none", 0.0, 1.0, role="baseline")
    assert forest_of(table_of(baseline), "miou") is None
    assert forest_of(table_of(RECORDS), "miou") is not None
