"""The ablation tables in the terminal, in the width there is; see also ``markdown_table``.

The tables of arms are laid out by ``terminal_group``; here is what stands above, between and below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.factorial import Effect, FactorialReading
from orchestrator.reports.interactions import Interactions, compare_groups
from orchestrator.reports.rendering.arm_names import ArmNames, short_names, whole_names
from orchestrator.reports.rendering.cell_text import failures_of
from orchestrator.reports.rendering.factorial_text import (
    FACTORIAL_NOTE,
    effect_text,
    effect_verdict,
    factorial_metrics,
    factorial_title,
)
from orchestrator.reports.rendering.formatting import column_title
from orchestrator.reports.rendering.interaction_text import (
    change_texts,
    columns,
    combined_texts,
    heading,
    label,
    notes_across,
    sentences_across,
)
from orchestrator.reports.rendering.terminal_group import GroupView
from orchestrator.reports.rendering.terminal_text import headed_table, plain, two_lines
from orchestrator.reports.rendering.verdict_marks import ASCII_MARKS, MARKS, STYLES
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.statistics import Verdict
from specvit.messages import one_line

_WIDE = 100
"""Columns of a terminal from which on arms have their own names in the tables that hold few numbers."""

_NAME_WIDTH = 28
"""Characters of their names below."""


def render_rich(tables: Mapping[str, AblationTable], info: SweepInfo) -> RenderableType:
    """Return the tables as the terminal shows them.

    Args:
        tables: Group to its table, from ``build_tables``.
        info: The sweep they are of.

    Returns:
        What ``rich.console.Console.print`` takes; it fits the width there is. Without UTF-8 it is in ASCII, but for
        names that are not.
    """
    return _Tables(tables, info)


class _Tables:
    """All tables of a sweep, what they say and their notes."""

    def __init__(self, tables: Mapping[str, AblationTable], info: SweepInfo) -> None:
        self._tables = tables
        self._info = info

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_ascii = options.ascii_only
        yield Text(one_line(self._info.name), style="bold")
        yield Text(one_line(self._info.question))
        for group, table in self._tables.items():
            if group:
                yield Text()
                yield Text(one_line(group), style="italic")
            yield from map(Text, sentences_of(table))
            yield GroupView(table)
            for name, error in failures_of(table):
                yield Padding(Text(f"failed: {name}: {error}", style="red"), (0, 0, 0, 1))
            for reading in table.factorials:
                yield Text()
                yield Text(factorial_title(reading))
                yield _effect_table(table, reading, is_ascii=is_ascii)
            if table.factorials:
                yield Padding(Text(plain(FACTORIAL_NOTE, is_ascii=is_ascii), style="dim"), (0, 0, 0, 1))
        if (found := compare_groups(self._tables)) is not None:
            yield from _across_groups(found, width=options.max_width, is_ascii=is_ascii)


def _across_groups(found: Interactions, *, width: int, is_ascii: bool) -> Iterator[RenderableType]:
    """Yield what is found across groups; an interval stands below its estimate."""
    names = _names([row.arm for row in found.shown_rows], width=width, is_ascii=is_ascii)
    view = headed_table(is_ascii=is_ascii)
    for number, title in enumerate(columns(found)):
        view.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for row in found.shown_rows:
        cells = [Text(two_lines(text), style="bold" * is_found) for text, is_found in change_texts(found, row)]
        arm = Text.assemble(names.short[row.arm], (label(row), "dim"))
        view.add_row(arm, *cells, *(Text(two_lines(text)) for text in combined_texts(found, row)))
    yield Text()
    yield Text(heading(found), style="italic")
    yield from map(Text, sentences_across(found))
    yield view
    for note in (*names.legend, *notes_across(found)):
        yield Padding(Text(plain(note, is_ascii=is_ascii), style="dim"), (0, 0, 0, 1))


def _names(arms: Sequence[str], *, width: int, is_ascii: bool) -> ArmNames:
    return whole_names(arms) if width >= _WIDE else short_names(arms, _NAME_WIDTH, is_ascii=is_ascii)


def _effect_table(table: AblationTable, reading: FactorialReading, *, is_ascii: bool) -> Table:
    """Return the effects of a factorial: below each in every metric its interval, with the mark of its verdict."""
    metrics = factorial_metrics(table, reading)
    view = headed_table(is_ascii=is_ascii)
    view.add_column("effect", overflow="fold")
    for name in metrics:
        view.add_column(Text(plain(one_line(column_title(name)), is_ascii=is_ascii)), justify="right")
    for effect, following in zip(reading.effects, [*reading.effects[1:], None], strict=True):
        cells = [_effect_cell(effect, name, is_ascii=is_ascii) for name in metrics]
        is_last = following is not None and following.is_interaction is not effect.is_interaction
        view.add_row(Text(effect.name.replace(" x ", "\n  x ")), *cells, end_section=is_last)
    return view


def _effect_cell(effect: Effect, name: str, *, is_ascii: bool) -> Text:
    estimate, _, interval = effect_text(effect, name).partition(" ")
    text = effect_verdict(effect, name)
    if not text:
        return Text("\n".join(line for line in (estimate, interval) if line))
    verdict = Verdict(text)
    mark = (ASCII_MARKS if is_ascii else MARKS)[verdict]
    return Text(f"{estimate}\n{interval} {mark}", style=STYLES.get(verdict, ""))
