"""Numbers that are no measurements, as a stranger's ledger may hold: they make a table as others do."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_csv, render_json
from orchestrator.statistics.model import LARGEST_VALUE

from .table_records import INFO, METRICS, make_records


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
