from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.drawing.shapes import Label, Line, Mark
from orchestrator.reports.figures.curves import CurvePanel, draw_curves, panels_of
from orchestrator.trials.records import Report, State, TrialRecord

from ..table_records import DECIDED, INFO, make_records


def with_rungs(records: list[TrialRecord], slope: float) -> list[TrialRecord]:
    """Give each trial rungs at 10 and 20, a pruned one the first alone; a seed adds 1."""
    return [
        replace(
            record,
            reports=tuple(
                Report(step, {"miou": slope * step + record.trial.seed, "dino_loss": 1.0, "loss": 2.0})
                for step in ((10,) if record.state is State.PRUNED else (10, 20))
            ),
        )
        for record in records
    ]


RECORDS = [
    *with_rungs(make_records("none", 0.0, 1.0, 2.0, role="baseline"), 1.0),
    *with_rungs(make_records("norm@all", 3.0, 4.1, None), 2.0),
]


def panels(records: list[TrialRecord], most: int = 9) -> list[CurvePanel]:
    return panels_of(records, tables_of(records, INFO)[""], most=most)


def test_a_point_is_the_mean_over_the_seeds_that_have_come() -> None:
    primary, other = panels(RECORDS)
    assert (primary.metric, other.metric) == ("miou", "loss")  # what was learnt has no panel beside others
    assert [(curve.arm, curve.style, curve.points) for curve in primary.curves] == [
        ("none", "baseline", ((10, 11.0, True), (20, 21.0, True))),
        ("norm@all", "series1", ((10, 21.0, True), (20, 40.5, False))),  # of three seeds; of the two that were left
    ]


def test_where_not_all_seeds_have_come_a_curve_is_thin() -> None:
    drawing = draw_curves(panels(RECORDS, most=1), width=400.0, em=10.0)
    styles = [item.style for item in drawing.items if isinstance(item, Line)]
    assert "series1-thin" in styles
    assert "baseline" in styles
    names = [item.text for item in drawing.items if isinstance(item, Label) and item.style == "label"]
    assert names == ["none", "norm@all"]


def test_of_one_rung_arms_stand_side_by_side() -> None:
    records = [replace(record, reports=record.reports[:1]) for record in RECORDS]
    drawing = draw_curves(panels(records, most=1), width=400.0, em=10.0)
    none, norm = sorted(item.at[0] for item in drawing.items if isinstance(item, Mark))
    # The panel is 400 wide, less 34 and 6 for its axis: two arms are half of that apart, to both sides of the tick.
    assert norm - none == pytest.approx(180.0)
    labels = [item for item in drawing.items if isinstance(item, Label) and item.anchor == "middle"]
    (tick,) = [label.at[0] for label in labels if label.text == "10"]
    assert (none + norm) / 2 == pytest.approx(tick)


def test_of_many_arms_those_that_are_decided_stand_out() -> None:
    records = with_rungs(DECIDED, 1.0)
    for number in range(7):
        records += with_rungs(make_records(f"norm@{number}:9", 0.0, 1.3, 1.9, 0.4, 1.6), 1.0)
    (panel,) = panels(records, most=1)
    assert [curve.style for curve in panel.curves] == ["baseline", "better", *["others"] * 7]
    drawing = draw_curves([panel], width=400.0, em=10.0)
    names = [item.text for item in drawing.items if isinstance(item, Label) and item.style == "label"]
    assert names == ["none", "norm@all", "other arms"]
    first = [replace(record, reports=record.reports[:1]) for record in records]
    counts = Counter(item.style for item in draw_curves(panels(first, most=1), width=400.0, em=10.0).items
                     if isinstance(item, Mark))
    assert counts == {"baseline": 1, "better": 1, "others": 7}  # of one rung they are there, too
    others = make_records("mlp@all", 3.0, 4.1, 5.2, 3.6, 4.6)  # as good: two lines of one colour
    drawing = draw_curves(panels([*records, *with_rungs(others, 1.0)], most=1), width=400.0, em=10.0)
    names = [item.text for item in drawing.items if isinstance(item, Label) and item.style == "label"]
    assert names == ["none", "better arms", "other arms"]


def test_a_sweep_without_rungs_has_no_curves() -> None:
    assert panels(DECIDED) == []
