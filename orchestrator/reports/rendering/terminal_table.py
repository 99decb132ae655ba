"""The ablation tables in the terminal, in the width there is; see also ``markdown_table``.

What does not fit side by side comes below, and with it what the trainings took, which older ledgers do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.factorial import Effect, FactorialReading
from orchestrator.reports.interactions import Interactions, compare_groups
from orchestrator.reports.rendering.cell_text import (
    COST_TITLES,
    cost_texts,
    difference_text,
    failures_of,
    has_costs,
    is_decided,
    mean_text,
    notes_of,
    parameters_text,
    role_text,
    seconds_text,
    states_texts,
    verdict_text,
)
from orchestrator.reports.rendering.factorial_text import (
    FACTORIAL_NOTE,
    effect_text,
    effect_verdict,
    factorial_metrics,
    factorial_title,
    is_decided_effect,
)
from orchestrator.reports.rendering.formatting import column_title, fold_arm
from orchestrator.reports.rendering.interaction_text import (
    change_texts,
    columns,
    combined_texts,
    heading,
    label,
    notes_across,
    sentences_across,
)
from orchestrator.reports.rendering.verdict_text import sentences_of
from specvit.messages import one_line


def render_rich(tables: Mapping[str, AblationTable], info: SweepInfo) -> RenderableType:
    """Return the tables as the terminal shows them: each metric's difference stands below its mean.

    Args:
        tables: Group to its table, from ``build_tables``.
        info: The sweep they are of.

    Returns:
        What ``rich.console.Console.print`` takes. Metrics that do not fit side by side come one below the
        other.
    """
    parts: list[RenderableType] = [Text(one_line(info.name), style="bold"), Text(one_line(info.question))]
    for group, table in tables.items():
        parts += [Text(), Text(one_line(group), style="italic")] if group else []
        parts += [Text(sentence) for sentence in sentences_of(table)]
        parts.append(_GroupView(table))
        notes = [Text(note, style="dim") for note in notes_of(table, place="below it")]
        notes += [Text(f"failed: {label}: {error}", style="red") for label, error in failures_of(table)]
        parts += [Padding(note, (0, 0, 0, 1)) for note in notes]
        for reading in table.factorials:
            parts += [Text(), Text(factorial_title(reading)), _effect_table(table, reading)]
        if table.factorials:
            parts.append(Padding(Text(FACTORIAL_NOTE, style="dim"), (0, 0, 0, 1)))
    if (found := compare_groups(tables)) is not None:
        parts += _across_groups(found)
    return Group(*parts)


def _across_groups(found: Interactions) -> list[RenderableType]:
    """Return what is found across groups; an interval stands below its estimate."""
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for number, title in enumerate(columns(found)):
        view.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for row in found.shown_rows:
        cells = [Text(_two_lines(text), style="bold" * is_found) for text, is_found in change_texts(found, row)]
        arm = Text.assemble(fold_arm(one_line(row.arm)), (label(row), "dim"))
        view.add_row(arm, *cells, *(Text(_two_lines(text)) for text in combined_texts(found, row)))
    parts: list[RenderableType] = [Text(), Text(heading(found), style="italic")]
    parts += [*map(Text, sentences_across(found)), view]
    return [*parts, *(Padding(Text(note, style="dim"), (0, 0, 0, 1)) for note in notes_across(found))]


def _two_lines(text: str) -> str:
    return text.replace(" [", "\n[", 1)


class _GroupView:
    """A table laid out in the width there is, with as many metrics side by side as fit."""

    def __init__(self, table: AblationTable) -> None:
        self._rows = table.rows
        self._metrics = table.metrics
        self._has_costs = has_costs(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = 0
        while not shown or shown < len(self._metrics):
            count = len(self._metrics) - shown
            while count > 1 and not self._fits(console, options, self._metrics[shown : shown + count]):
                count -= 1
            if shown:
                yield Text()
            metrics = self._metrics[shown : shown + count]
            shown += max(count, 1)
            is_last = shown >= len(self._metrics)
            costs = is_last and self._has_costs and self._fits(console, options, metrics, costs=True)
            yield _rich_table(self._rows, metrics, costs=costs)
            if is_last and self._has_costs and not costs:
                yield Text()
                yield _cost_table(self._rows)

    def _fits(self, console: Console, options: ConsoleOptions, metrics: Sequence[str], *, costs: bool = False) -> bool:
        view = _rich_table(self._rows, metrics, costs=costs)
        return console.measure(view, options=options.update(width=10_000)).maximum <= options.max_width


def _rich_table(rows: Sequence[ArmRow], metrics: Sequence[str], *, costs: bool) -> Table:
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    view.add_column("arm", overflow="fold")
    for name in metrics:
        view.add_column(Text(one_line(column_title(name))), justify="right")
    view.add_column("extra\nparams", justify="right")
    view.add_column("seeds\ndone", justify="right")
    view.add_column("seconds", justify="right")
    for title in COST_TITLES if costs else ():
        view.add_column(title.replace(" ", "\n", 1), justify="right")
    for row, ends_section in _with_sections(rows):
        cells = [_arm_text(row), *(_rich_metric(row, name) for name in metrics)]
        states = Text("\n".join(states_texts(row)), style="red" if row.failed else "")
        cells += [Text(parameters_text(row)), states, Text(seconds_text(row))]
        view.add_row(*cells, *(cost_texts(row) if costs else ()), end_section=ends_section)
    return view


def _cost_table(rows: Sequence[ArmRow]) -> Table:
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    view.add_column("arm", overflow="fold")
    for title in COST_TITLES:
        view.add_column(title, justify="right")
    for row, ends_section in _with_sections(rows):
        view.add_row(_arm_text(row), *cost_texts(row), end_section=ends_section)
    return view


def _effect_table(table: AblationTable, reading: FactorialReading) -> Table:
    """Return the effects of a factorial: below each in every metric its interval, and its verdict."""
    metrics = factorial_metrics(table, reading)
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    view.add_column("effect", overflow="fold")
    for name in metrics:
        view.add_column(Text(one_line(column_title(name))), justify="right")
    for effect, following in zip(reading.effects, [*reading.effects[1:], None], strict=True):
        cells = [_effect_cell(effect, name) for name in metrics]
        is_last = following is not None and following.is_interaction is not effect.is_interaction
        view.add_row(Text(effect.name.replace(" x ", "\n  x ")), *cells, end_section=is_last)
    return view


def _effect_cell(effect: Effect, name: str) -> Text:
    """Return an effect, below it its interval and its verdict."""
    style = "bold" if is_decided_effect(effect, name) else ""
    estimate, _, interval = effect_text(effect, name).partition(" ")
    lines = [estimate, interval, effect_verdict(effect, name)]
    return Text("\n".join(line for line in lines if line), style=style)


def _with_sections(rows: Sequence[ArmRow]) -> Iterator[tuple[ArmRow, bool]]:
    """Yield each row, and whether rows of another role follow."""
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        yield row, following is not None and following.role is not row.role


def _arm_text(row: ArmRow) -> Text:
    return Text.assemble(fold_arm(one_line(row.arm)), (role_text(row), "dim"))


def _rich_metric(row: ArmRow, name: str) -> Text:
    difference = difference_text(row, name)
    if not difference:
        return Text(mean_text(row, name))
    style = "bold" if is_decided(row, name) else ""
    text = Text.assemble(mean_text(row, name), "\n", (difference, style))
    verdict = verdict_text(row, name)
    return Text.assemble(text, "\n", (verdict, style)) if verdict else text
