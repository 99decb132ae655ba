"""Numbers that are no measurements, as a stranger's ledger may hold: they make a table as others do."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.rendering.latex_table import render_latex
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_csv, render_json
from orchestrator.statistics.model import LARGEST_VALUE
from orchestrator.sweep.declared.comparison import ComparisonSettings
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds

from .table_records import INFO, METRICS, make_records

EFFECTS = {"miou": 2.0}
CLAIMS = {
    "fixed": Claims("miou", EFFECTS),
    "unblocked": Claims("miou", EFFECTS, comparison=ComparisonSettings(model="unblocked")),
    "moderated": Claims("miou", EFFECTS, comparison=ComparisonSettings(variance="moderated")),
    "sequential": Claims("miou", EFFECTS, GrowingSeeds(start=4, most=6, looks=(4, 6))),
    "confirm": Claims("miou", EFFECTS, GrowingSeeds(start=4, most=8, method="confirm")),
}


@pytest.mark.parametrize("size", [1e59, 1e61, 1e155, -1e200, 1.7e308])
def test_a_metric_of_any_size_makes_every_table(size: float) -> None:
    records = [
        *make_records("none", 1.0, 2.0, 3.0, 4.5, role="baseline"),
        *make_records("norm@all", size, 2.0, 3.5, 4.0),
        *make_records("qkv@all", 1.5, 2.5, 3.0, 5.0),
    ]
    tables = build_tables(records, METRICS)
    huge, plain = (row.metrics["miou"].difference for row in tables[""].rows if row.arm in ("norm@all", "qkv@all"))
    assert huge is not None
    assert plain is not None
    assert (huge.low is None) == (abs(size) > LARGEST_VALUE)
    assert plain.low is not None
    Console(file=StringIO(), width=100).print(render_rich(tables, INFO))
    for render in (render_markdown, render_csv, render_json):
        assert "qkv@all" in render(tables, INFO)


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1)])
@pytest.mark.parametrize("role", ["baseline", "arm", "control", "floor"])
def test_huge_values_of_every_role_make_every_table(role: str, signs: tuple[int, int], claims: Claims) -> None:
    """Their sums and their differences overflow, which Python's exact sums raise."""
    records = [
        *make_records("none", 0.0, 1.0, 2.0, 0.5, 1.5, 0.8, role="baseline"),
        *make_records("a", 2.1, 2.9, 4.0, 2.6, 3.4, 2.8),
        *make_records("b", -0.1, 1.1, 2.1, 0.4, 1.5, 0.8),
        *make_records("repeat", 0.1, 1.1, 2.0, 0.5, 1.5, 0.8, role="control"),
        *make_records("random init", -9.0, -8.0, -7.0, -9.0, -8.0, -7.0, role="floor"),
    ]
    arm = next(record.trial.arm for record in records if record.trial.role == role)
    huge = [
        replace(record, metrics=dict.fromkeys(METRICS, 1.7e308 * signs[record.trial.seed]))
        if record.trial.arm == arm and record.trial.seed < len(signs)
        else record
        for record in records
    ]
    tables = build_tables(huge, METRICS, claims)
    Console(file=StringIO(), width=100).print(render_rich(tables, INFO))
    for render in (render_markdown, render_csv, render_json, render_latex):
        assert "random init" in render(tables, INFO)
