"""A group's table in the terminal, laid out in the width there is; nothing is squeezed or cut.

The layout with the fewest tables wins, then the one with a line for each row, then the one with the arms' own names.
With a line for each row, means and differences stand side by side; else a difference stands below its mean. What does
not fit comes in a table below: first what trainings took, then parameters and states, then metrics. Long names of arms
are short where that saves a table or a line, with a legend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.rendering.arm_names import ArmNames, short_names, whole_names
from orchestrator.reports.rendering.cell_text import (
    COST_TITLES,
    cost_texts,
    difference_text,
    has_costs,
    mean_text,
    notes_of,
    parameters_text,
    role_text,
    seconds_text,
    states_texts,
)
from orchestrator.reports.rendering.formatting import column_title, describe
from orchestrator.reports.rendering.terminal_text import headed_table, plain, table_width
from orchestrator.reports.rendering.verdict_marks import STYLES, mark_of, marks_legend, verdict_of
from specvit.messages import one_line

_NAME_WIDTHS = (28, 20)
"""Characters of short names, the first that helps."""

_BRIEF = 20
"""Rows of a brief view."""


@dataclass(frozen=True)
class _Part:
    """One of the tables that a group is shown in."""

    metrics: tuple[str, ...] = ()
    has_states: bool = False
    has_costs: bool = False


@dataclass(frozen=True)
class _Layout:
    """The tables of a group, what its arms are called, and whether a row takes one line."""

    parts: tuple[_Part, ...]
    names: ArmNames
    has_one_line: bool


@dataclass(frozen=True)
class _Column:
    title: str
    cells: Sequence[Text]
    justify: Literal["left", "right"] = "right"

    @cached_property
    def width(self) -> int:
        """Return the characters of its longest line."""
        texts = (self.title, *(cell.plain for cell in self.cells))
        return max(cell_len(line) for text in texts for line in text.split("\n"))


class GroupView:
    """The table of a group, its legend and its notes."""

    def __init__(self, table: AblationTable, *, is_brief: bool = False) -> None:
        """Take the table.

        Args:
            table: The table.
            is_brief: Whether metrics alone are shown, of the first 20 rows, without notes.
        """
        self._table = replace(table, rows=table.rows[:_BRIEF]) if is_brief else table
        self._num_more = len(table.rows) - len(self._table.rows)
        self._is_brief = is_brief
        self._columns: dict[tuple[object, ...], list[_Column]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables, one below the other, and the notes."""
        is_ascii = options.ascii_only
        layout = self._layout(options.max_width, is_ascii=is_ascii)
        for number, part in enumerate(layout.parts):
            if number:
                yield Text()
            yield self._rendered(self._all_columns(part, layout, is_ascii=is_ascii), is_ascii=is_ascii)
        place = "next to it" if layout.has_one_line else "below it"
        notes = [f"and {self._num_more} more rows"] if self._num_more else []
        notes += self._legend(layout, is_ascii=is_ascii)
        for note in (*notes, *([] if self._is_brief else notes_of(self._table, place=place))):
            yield Padding(Text(plain(note, is_ascii=is_ascii), style="dim"), (0, 0, 0, 1))

    def _legend(self, layout: _Layout, *, is_ascii: bool) -> list[str]:
        primary = self._table.primary
        found = (verdict_of(row, primary) for row in self._table.rows)
        marks = marks_legend((verdict for verdict in found if verdict is not None), is_ascii=is_ascii)
        is_shown = bool(marks) and primary in self._table.metrics
        return [*layout.names.legend, *([f"{describe(primary).title}: {marks}."] if is_shown else [])]

    def _layout(self, width: int, *, is_ascii: bool) -> _Layout:
        metrics, costs = self._table.metrics, has_costs(self._table)
        arms = [row.arm for row in self._table.rows]
        names = [whole_names(arms), *(short_names(arms, most, is_ascii=is_ascii) for most in _NAME_WIDTHS)]
        one = [(_Part(metrics, has_states=True, has_costs=costs),)]
        two = [(_Part(metrics, has_states=True), _Part(has_costs=True))] if costs else []
        two.append((_Part(metrics), _Part(has_states=True, has_costs=costs)))
        if self._is_brief:
            one, two = [(_Part(metrics),)], []
        for splits in (one, two):
            for has_one_line in (True, False):
                for parts in splits:
                    for each in names:
                        layout = _Layout(parts, each, has_one_line)
                        if all(self._fits(part, layout, width, is_ascii=is_ascii) for part in parts):
                            return layout
        return self._split(names[-1], width, is_ascii=is_ascii)

    def _split(self, names: ArmNames, width: int, *, is_ascii: bool) -> _Layout:
        """Return a layout with as many metrics side by side as fit, at least one."""
        layout = _Layout((), names, has_one_line=False)
        left, parts = list(self._table.metrics), []
        while left:
            count = len(left)
            while count > 1 and not self._fits(_Part(tuple(left[:count])), layout, width, is_ascii=is_ascii):
                count -= 1
            parts.append(_Part(tuple(left[:count])))
            left = left[count:]
        if self._is_brief:
            return _Layout(tuple(parts), names, has_one_line=False)
        costs = has_costs(self._table)
        last = parts.pop() if parts else _Part()
        beside = [_Part(last.metrics, has_states=True, has_costs=costs)]
        if costs:
            beside.append(_Part(last.metrics, has_states=True))
        fitting = next((part for part in beside if self._fits(part, layout, width, is_ascii=is_ascii)), last)
        parts.append(fitting)
        if not fitting.has_states:
            parts.append(_Part(has_states=True, has_costs=costs))
        elif costs and not fitting.has_costs:
            parts.append(_Part(has_costs=True))
        return _Layout(tuple(parts), names, has_one_line=False)

    def _fits(self, part: _Part, layout: _Layout, width: int, *, is_ascii: bool) -> bool:
        columns = self._all_columns(part, layout, is_ascii=is_ascii)
        return table_width([column.width for column in columns]) <= width

    def _all_columns(self, part: _Part, layout: _Layout, *, is_ascii: bool) -> list[_Column]:
        columns = [_arm_column(self._table.rows, layout, has_metrics=bool(part.metrics))]
        for name in part.metrics:
            columns += self._metric_columns(name, has_one_line=layout.has_one_line, is_ascii=is_ascii)
        columns += self._state_columns() if part.has_states else []
        return [*columns, *(self._cost_columns() if part.has_costs else [])]

    def _metric_columns(self, name: str, *, has_one_line: bool, is_ascii: bool) -> list[_Column]:
        key = (name, has_one_line)
        if key not in self._columns:
            title = plain(one_line(column_title(name)), is_ascii=is_ascii)
            means = [Text(plain(mean_text(row, name), is_ascii=is_ascii)) for row in self._table.rows]
            differences = [_difference(row, name, is_ascii=is_ascii) for row in self._table.rows]
            if has_one_line:
                columns = [_Column(title.replace(" (", "\n(", 1), means), _Column("difference", differences)]
            else:
                pairs = zip(means, differences, strict=True)
                cells = [Text("\n").join([mean, change]) if change.plain else mean for mean, change in pairs]
                columns = [_Column(title, cells)]
            self._columns[key] = [column for column in columns if column.title != "difference" or _is_filled(column)]
        return self._columns[key]

    def _state_columns(self) -> list[_Column]:
        rows = self._table.rows
        states = [Text("\n".join(states_texts(row)), style="red" if row.failed else "") for row in rows]
        return [
            _Column("extra\nparams", [Text(parameters_text(row)) for row in rows]),
            _Column("seeds\ndone", states),
            _Column("seconds", [Text(seconds_text(row)) for row in rows]),
        ]

    def _cost_columns(self) -> list[_Column]:
        texts = [cost_texts(row) for row in self._table.rows]
        return [
            _Column(title.replace(" ", "\n", 1), [Text(each[place]) for each in texts])
            for place, title in enumerate(COST_TITLES)
        ]

    def _rendered(self, columns: Sequence[_Column], *, is_ascii: bool) -> Table:
        view = headed_table(is_ascii=is_ascii)
        for column in columns:
            view.add_column(Text(column.title), justify=column.justify, overflow="fold")
        cells = zip(*(column.cells for column in columns), strict=True)
        for (_, ends_section), line in zip(_with_sections(self._table.rows), cells, strict=True):
            view.add_row(*line, end_section=ends_section)
        return view


def _is_filled(column: _Column) -> bool:
    return any(cell.plain for cell in column.cells)


def _arm_column(rows: Sequence[ArmRow], layout: _Layout, *, has_metrics: bool) -> _Column:
    """Return the arms; in rows of two lines what an arm is stands below its name where names are short."""
    own = layout.names.short
    breaks = bool(layout.names.legend) and has_metrics and not layout.has_one_line
    roles = (role_text(row) for row in rows)
    texts = [
        Text.assemble(own[row.arm], (role.replace(" ", "\n", 1) if breaks else role, "dim"))
        for row, role in zip(rows, roles, strict=True)
    ]
    return _Column("arm", texts, "left")


def _difference(row: ArmRow, name: str, *, is_ascii: bool) -> Text:
    """Return a difference with its interval and the mark of its verdict."""
    text, verdict = plain(difference_text(row, name), is_ascii=is_ascii), verdict_of(row, name)
    if verdict is None:
        return Text(text)
    return Text(f"{text} {mark_of(row, name, is_ascii=is_ascii)}", style=STYLES.get(verdict, ""))


def _with_sections(rows: Sequence[ArmRow]) -> Iterator[tuple[ArmRow, bool]]:
    """Yield each row, and whether rows of another role follow."""
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        yield row, following is not None and following.role is not row.role
