"""The ablation tables for people and programs: in the terminal, as Markdown, CSV and JSON.

A table never leaves out what did not go as planned: pruned, failed and unfinished trials are counted in every
row, and what they do to the means stands below the table.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.cell_text import (
    Row,
    difference_text,
    excludes_zero,
    failures_of,
    mean_text,
    metrics_of,
    notes_of,
    parameters_text,
    role_text,
    rows_of,
    seconds_text,
    states_texts,
)
from orchestrator.reports.formatting import column_title, describe
from orchestrator.trials.records import TrialRecord
from specvit.files.atomic import write_atomically
from specvit.messages import one_line

_ARM_WIDTH = 20


def render_markdown(tables: Mapping[str, pd.DataFrame], info: SweepInfo) -> str:
    """Write the tables as one Markdown document, a section per group.

    Args:
        tables: Group to its table, from ``orchestrator.reports.ablation_table.build_tables``.
        info: The sweep they are of.

    Returns:
        The document; differences whose interval excludes 0 are bold.
    """
    parts = [f"# {_prose(info.name)}", _prose(info.question)]
    for group, table in tables.items():
        metrics = metrics_of(table)
        header = ["arm", *(text for name in metrics for text in (_prose(column_title(name)), "difference"))]
        header += ["extra parameters", "seeds done", "seconds"]
        lines = [_markdown_line(header), _markdown_line(["---", *["---:"] * (len(header) - 1)])]
        lines += [_markdown_line(_markdown_cells(row, metrics)) for row in rows_of(table)]
        parts += [f"## {_prose(group)}" if group else "", "\n".join(lines)]
        parts.append("\n".join(f"- {note}" for note in notes_of(table, place="next to it")))
        failures = [f"- {_code(label)}: {_code(error)}" for label, error in failures_of(table)]
        parts += ["Failed trials:", "\n".join(failures)] if failures else []
    return "\n\n".join(part for part in parts if part) + "\n"


def render_rich(tables: Mapping[str, pd.DataFrame], info: SweepInfo) -> RenderableType:
    """Lay the tables out for the terminal: each metric's difference stands below its mean.

    Args:
        tables: Group to its table, from ``orchestrator.reports.ablation_table.build_tables``.
        info: The sweep they are of.

    Returns:
        What ``rich.console.Console.print`` takes. Metrics that do not fit side by side come one below the
        other.
    """
    parts: list[RenderableType] = [Text(one_line(info.name), style="bold"), Text(one_line(info.question))]
    for group, table in tables.items():
        parts += [Text(), Text(one_line(group), style="italic")] if group else []
        parts.append(_GroupView(table))
        notes = [Text(note, style="dim") for note in notes_of(table, place="below it")]
        notes += [Text(f"failed: {label}: {error}", style="red") for label, error in failures_of(table)]
        parts += [Padding(note, (0, 0, 0, 1)) for note in notes]
    return Group(*parts)


def render_csv(tables: Mapping[str, pd.DataFrame], info: SweepInfo) -> str:  # noqa: ARG001
    """Write the numbers of all tables as one CSV, in full precision, with the group in the first column.

    Texts are data, and stay as they are: a spreadsheet that takes text beginning with ``=`` for a formula must be
    told to import them as text.
    """
    framed = []
    for group, table in tables.items():
        framed.append(table.copy())
        framed[-1].insert(0, "group", group)
    return pd.concat(framed).to_csv(index=False, lineterminator="\n") if framed else ""


def render_json(tables: Mapping[str, pd.DataFrame], info: SweepInfo) -> str:
    """Write the numbers of all tables as JSON; what is missing or not finite is null."""
    names = dict.fromkeys(name for table in tables.values() for name in metrics_of(table))
    document = {
        "sweep": info.name,
        "question": info.question,
        "metrics": [vars(describe(name)) for name in names],
        "tables": [
            {
                "group": group,
                "rows": [{name: _jsonable(value) for name, value in row.items()} for row in rows_of(table)],
                "failures": [{"trial": label, "error": error} for label, error in failures_of(table)],
            }
            for group, table in tables.items()
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_tables(folder: Path, records: Sequence[TrialRecord], info: SweepInfo) -> tuple[Path, Path]:
    """Write ``table.md`` and ``table.csv``; a reader finds the old file or the new one, never half of one.

    Args:
        folder: Where to write; made if it does not exist.
        records: All trials of the sweep, in its order.
        info: The sweep.

    Returns:
        The two paths.

    Raises:
        SpecsweepError: If a file cannot be written; the text names it.
    """
    tables = build_tables(records, info.metrics)
    markdown_path, csv_path = folder / "table.md", folder / "table.csv"
    write_atomically(markdown_path, render_markdown(tables, info))
    write_atomically(csv_path, render_csv(tables, info))
    return markdown_path, csv_path


class _GroupView:
    """Lay one table out in the width there is, with as many metrics side by side as fit."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._rows = rows_of(table)
        self._metrics = metrics_of(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = 0
        while not shown or shown < len(self._metrics):
            count = len(self._metrics) - shown
            while count > 1 and self._width(console, options, shown, count) > options.max_width:
                count -= 1
            if shown:
                yield Text()
            yield _rich_table(self._rows, self._metrics[shown : shown + count])
            shown += max(count, 1)

    def _width(self, console: Console, options: ConsoleOptions, start: int, count: int) -> int:
        view = _rich_table(self._rows, self._metrics[start : start + count])
        return console.measure(view, options=options.update(width=10_000)).maximum


def _rich_table(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    view.add_column("arm", overflow="fold")
    for name in metrics:
        view.add_column(Text(one_line(column_title(name))), justify="right")
    view.add_column("extra\nparams", justify="right")
    view.add_column("seeds\ndone", justify="right")
    view.add_column("seconds", justify="right")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        cells = [Text.assemble(_folded(one_line(row["arm"])), (role_text(row), "dim"))]
        cells += [_rich_metric(row, name) for name in metrics]
        states = Text("\n".join(states_texts(row)), style="red" if row["failed"] else "")
        ends_section = following is not None and following["role"] != row["role"]
        view.add_row(*cells, parameters_text(row), states, seconds_text(row), end_section=ends_section)
    return view


def _rich_metric(row: Row, name: str) -> Text:
    difference = difference_text(row, name)
    if not difference:
        return Text(mean_text(row, name))
    return Text.assemble(mean_text(row, name), "\n", (difference, "bold" if excludes_zero(row, name) else ""))


def _folded(arm: str) -> str:
    """Break a long arm before a ``+``, where people would."""
    lines = [""]
    for term in arm.replace("+", "\n+").split("\n"):
        if lines[-1] and len(lines[-1]) + len(term) > _ARM_WIDTH:
            lines.append("")
        lines[-1] += term
    return "\n".join(lines)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", r"\|") for cell in cells) + " |"


def _markdown_cells(row: Row, metrics: Sequence[str]) -> list[str]:
    cells = [_code(row["arm"]) + role_text(row)]
    for name in metrics:
        difference = difference_text(row, name)
        cells += [mean_text(row, name), f"**{difference}**" if excludes_zero(row, name) else difference]
    return [*cells, parameters_text(row), ", ".join(states_texts(row)), seconds_text(row)]


def _code(text: str) -> str:
    """Set ``text`` as code, in which Markdown finds nothing to interpret."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def _prose(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, and takes no HTML, link, image or code from it."""
    return re.sub(r"[\\`*\[\]]", r"\\\g<0>", html.escape(one_line(text), quote=False))


def _jsonable(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
