from __future__ import annotations

from dataclasses import replace

from orchestrator.reports.ablation_table import AblationTable, tables_of
from orchestrator.reports.drawing.shapes import Area, Label, Mark
from orchestrator.reports.figures.parameters import draw_parameters, points_of
from orchestrator.trials.records import TrialRecord

from ..table_records import DECIDED, INFO, make_records

EXTRA = {"norm@all": 0.5, "qkv@all": 24.4, "mlp@all": 64.6}


def table_of(records: list[TrialRecord]) -> AblationTable:
    sized = [
        replace(each, trial=replace(each.trial, extra_parameters_percent=EXTRA.get(each.trial.arm, 0.0)))
        for each in records
    ]
    return tables_of(sized, replace(INFO, smallest_effects={"miou": 0.5}))[""]


RECORDS = [
    *DECIDED,
    *make_records("qkv@all", -3.0, -2.1, -1.2, -2.6, -1.6),
    *make_records("mlp@all", 0.0, 1.0, 2.0, 0.5, 1.5),
    *make_records("random init", -9.0, -8.0, role="floor"),
]


def test_arms_are_points_but_not_floors_nor_those_that_change_nothing() -> None:
    found = points_of(table_of(RECORDS))
    assert [(point.arm, point.extra, round(point.mean, 6), point.verdict) for point in found] == [
        ("norm@all", 0.5, 3.1, "better"), ("qkv@all", 24.4, -3.1, "worse"),
    ]


def test_there_is_nothing_to_plot_where_all_arms_are_as_large() -> None:
    assert points_of(table_of(DECIDED)) == []


def test_points_stand_in_the_order_of_their_parameters_with_their_names() -> None:
    table = table_of(RECORDS)
    for width in (350.0, 900.0):
        drawing = draw_parameters(table, points_of(table), width=width, em=10.0)
        marks = [item for item in drawing.items if isinstance(item, Mark)]
        assert [(mark.style, mark.shape) for mark in marks] == [("better", "up"), ("worse", "down")]
        assert marks[0].at[0] < marks[1].at[0]
        assert marks[0].at[1] < marks[1].at[1]  # y runs downwards
        names = [item.text for item in drawing.items if isinstance(item, Label) and item.style == "name"]
        assert names == ["norm@all", "qkv@all"]
        assert any(isinstance(item, Area) for item in drawing.items)


def test_names_do_not_cover_each_other_nor_other_points() -> None:
    records = make_records("none", 0.0, 1.0, 2.0, 0.5, role="baseline")
    for number in range(12):
        arm = make_records(f"norm@{number}:{number + 1}", *(0.1 * number + value for value in (0.2, 1.1, 2.3, 0.4)))
        records += [replace(each, trial=replace(each.trial, extra_parameters_percent=1 + number / 50)) for each in arm]
    table = tables_of(records, INFO)[""]
    drawing = draw_parameters(table, points_of(table), width=500.0, em=10.0)
    places = [item.at[1] for item in drawing.items if isinstance(item, Label) and item.style == "name"]
    assert 0 < len(places) <= 12
