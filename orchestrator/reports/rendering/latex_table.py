r"""The ablation tables in LaTeX, for a paper: booktabs, numbers as siunitx reads them, a ``table`` for each group.

Means and differences stand in ``S`` columns, aligned at the point; the options that they need are in their columns, and
mean the same in versions 2 and 3 of siunitx. Intervals are text. What is better or worse in the primary metric is bold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.interactions import compare_groups
from orchestrator.reports.rendering.arm_names import factor
from orchestrator.reports.rendering.caption_text import caption_of
from orchestrator.reports.rendering.cell_text import (
    difference_text,
    failures_of,
    is_decided,
    mean_text,
    parameters_text,
    role_text,
    states_texts,
    verdict_text,
)
from orchestrator.reports.rendering.formatting import column_title, decimals
from orchestrator.reports.rendering.interaction_text import sentences_across
from orchestrator.reports.rendering.latex_effects import across_table, effect_tables
from orchestrator.reports.rendering.latex_text import escape_latex, slug
from orchestrator.reports.rendering.verdict_text import sentences_of
from specvit.messages import one_line

_USES = r"\usepackage{booktabs} \usepackage{siunitx}; of a table that is too wide show fewer metrics or arms"


@dataclass(frozen=True)
class _Column:
    """A column: its kind, its heading, and its cells. Headings of a ``span`` stand below one that they share."""

    kind: str
    heading: str
    cell: Callable[[ArmRow], str]
    span: str = ""


def render_latex(tables: Mapping[str, AblationTable], info: SweepInfo) -> str:
    """Return the tables as LaTeX, for a document that loads ``booktabs`` and ``siunitx``.

    Args:
        tables: Group to its table, from ``build_tables``.
        info: The sweep they are of.

    Returns:
        A ``table`` for each group, with the sentences on what it shows above it, as comments; then one for each
        factorial among its arms, and at the end one for what is found across groups.
    """
    parts = [f"% {one_line(info.name)}: {one_line(info.question)}\n% {_USES}\n"]
    for group, table in tables.items():
        said = [*sentences_of(table), *(f"failed: {label}: {error}" for label, error in failures_of(table))]
        label = f"tab:{slug(info.name)}" + (f":{slug(group)}" if group else "")
        parts.append("".join(f"% {one_line(text)}\n" for text in said) + _table(table, info, group, label))
        parts += effect_tables(table, label)
    if (found := compare_groups(tables)) is not None:
        said = [f"% {one_line(text)}\n" for text in sentences_across(found)]
        parts.append("".join(said) + across_table(found, f"tab:{slug(info.name)}"))
    return "\n".join(parts)


def _table(table: AblationTable, info: SweepInfo, group: str, label: str) -> str:
    columns = _columns(table)
    lines: list[str] = []
    role = None
    for row in table.rows:
        lines += [r"\midrule"] if row.role is not role else []
        lines.append(_line([column.cell(row) for column in columns]))
        role = row.role
    sentences = caption_of(table, info.question, group)
    if (factored := next((row.arm for row in table.rows if factor(row.arm) != row.arm), None)) is not None:
        sentences.append(f"{factor(factored)} is {factored}.")
    caption = " ".join(map(escape_latex, sentences))
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{{label}}}",
            r"  \small",
            rf"  \begin{{tabular}}{{{' '.join(column.kind for column in columns)}}}",
            *(f"    {line}" for line in (r"\toprule", *_head(columns), *lines, r"\bottomrule")),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _columns(table: AblationTable) -> list[_Column]:
    columns = [_Column("l", "arm", _arm_cell)]
    for name in table.metrics:
        cells = [row.metrics[name] for row in table.rows]
        span = escape_latex(column_title(name))
        mean = _number_kind((each.mean for each in cells), name)
        sd = _number_kind((each.sd for each in cells), name, options=r", table-space-text-pre={$\pm$\,}")
        columns.append(_Column(mean, "{mean}", _mean_cell(name), span))
        columns.append(_Column(f"@{{}}{sd}", r"{$\pm$\,sd}", _sd_cell(name), span))
        if any(difference_text(row, name) for row in table.rows):
            found = (None if each.difference is None else each.difference.mean for each in cells)
            kind = _number_kind(found, name, sign="+", options=", retain-explicit-plus, detect-weight")
            columns.append(_Column(kind, "{difference}", _difference_cell(name), span))
            columns.append(_Column("r", r"{95\% interval}", _interval_cell(name), span))
        if any(verdict_text(row, name) for row in table.rows):
            columns.append(_Column("l", "verdict", _verdict_cell(name), span))
    columns.append(_Column("r", "extra params", lambda row: escape_latex(parameters_text(row))))
    columns.append(_Column("l", "seeds", lambda row: escape_latex(", ".join(states_texts(row)))))
    return columns


def _head(columns: Sequence[_Column]) -> list[str]:
    """Return the lines of the heading: the metrics, a rule below each, and what their columns are."""
    first, rules, place = [], [], 1
    while place <= len(columns):
        span = columns[place - 1].span
        width = sum(column.span == span for column in columns) if span else 1
        first.append(rf"\multicolumn{{{width}}}{{c}}{{{span}}}" if span else "")
        rules += [rf"\cmidrule(lr){{{place}-{place + width - 1}}}"] if span else []
        place += width
    return [_line(first), " ".join(rules), _line([column.heading for column in columns])]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _arm_cell(row: ArmRow) -> str:
    role = f" {escape_latex(role_text(row))}" if role_text(row) else ""
    return rf"\texttt{{{escape_latex(factor(row.arm))}}}{role}"


def _number_kind(values: Iterable[float | None], name: str, *, sign: str = "", options: str = "") -> str:
    """Return an S column with room for the longest of some numbers."""
    found = (abs(value) for value in values if value is not None and math.isfinite(value))
    whole = max((len(f"{value:.0f}") for value in found), default=1)
    return f"S[table-format={sign}{whole}.{decimals(name)}{options}]"


def _mean_cell(name: str) -> Callable[[ArmRow], str]:
    def cell(row: ArmRow) -> str:
        number, _, _ = mean_text(row, name).partition(" ± ")
        return number if _is_number(row.metrics[name].mean) else f"{{{escape_latex(number)}}}"

    return cell


def _sd_cell(name: str) -> Callable[[ArmRow], str]:
    def cell(row: ArmRow) -> str:
        _, mark, number = mean_text(row, name).partition(" ± ")
        return rf"{{$\pm$\,}} {number}" if mark else ""

    return cell


def _difference_cell(name: str) -> Callable[[ArmRow], str]:
    """Return a function to the difference alone, bold by verdict, or why there is none."""

    def cell(row: ArmRow) -> str:
        number, _, _ = difference_text(row, name).partition(" ")
        if number[:1] not in ("+", "-"):
            return f"{{{escape_latex(number)}}}" if number else ""
        return rf"\bfseries {number}" if is_decided(row, name) else number

    return cell


def _interval_cell(name: str) -> Callable[[ArmRow], str]:
    """Return a function to the interval and the marks behind it."""

    def cell(row: ArmRow) -> str:
        number, _, rest = difference_text(row, name).partition(" ")
        if number[:1] not in ("+", "-"):
            return ""
        interval, bracket, marks = rest.rpartition("]")
        low, _, high = interval.removeprefix("[").partition(", ")
        text = f"[${low}$, ${high}$]" if bracket else ""
        text = rf"\bfseries\boldmath {text}" if is_decided(row, name) else text
        return text + (f" {escape_latex(marks.strip())}" if marks.strip() else "")

    return cell


def _verdict_cell(name: str) -> Callable[[ArmRow], str]:
    def cell(row: ArmRow) -> str:
        return rf"\textbf{{{verdict_text(row, name)}}}" if is_decided(row, name) else verdict_text(row, name)

    return cell


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
