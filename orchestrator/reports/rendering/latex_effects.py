"""Below the tables of arms in LaTeX: the effects of components, and what differs across groups, a ``table`` each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.factorial import Effect, FactorialReading
from orchestrator.reports.interactions import Interactions
from orchestrator.reports.rendering.arm_names import factor
from orchestrator.reports.rendering.factorial_text import (
    FACTORIAL_NOTE,
    effect_text,
    effect_verdict,
    factorial_metrics,
    factorial_title,
    is_decided_effect,
)
from orchestrator.reports.rendering.formatting import column_title, describe
from orchestrator.reports.rendering.interaction_text import (
    change_texts,
    columns,
    combined_texts,
    heading,
    label,
    notes_across,
)
from orchestrator.reports.rendering.latex_text import escape_latex

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def effect_tables(table: AblationTable, name: str) -> Iterator[str]:
    """Yield a table of effects for each factorial among the arms.

    Args:
        table: The table of the arms.
        name: The label of its table; those of effects are numbered below it.
    """
    for number, reading in enumerate(table.factorials, 1):
        caption = f"{factorial_title(reading)}. {FACTORIAL_NOTE} Bold: better or worse, in {_title(table)}."
        yield _table(*_effects(table, reading), caption=caption, name=f"{name}:effects-{number}")


def across_table(found: Interactions, name: str) -> str:
    """Return the table of what is found across groups."""
    first, *others = map(escape_latex, columns(found))
    rows = []
    for row in found.shown_rows:
        changes = [_bold(_numbers(text)) if is_found else _numbers(text) for text, is_found in change_texts(found, row)]
        arm = rf"\texttt{{{escape_latex(factor(row.arm))}}}{label(row)}"
        rows.append([arm, *changes, *map(_numbers, combined_texts(found, row))])
    caption = " ".join([f"{heading(found)}.", *notes_across(found)])
    return _table([first, *others], [rows], caption=caption, name=f"{name}:across")


def _effects(table: AblationTable, reading: FactorialReading) -> tuple[list[str], list[list[list[str]]]]:
    """Return the heading of a table of effects, and its rows: main effects, then interactions."""
    metrics = factorial_metrics(table, reading)
    main, both = ([each for each in reading.effects if each.is_interaction is wanted] for wanted in (False, True))
    head = ["effect", *(escape_latex(column_title(name)) for name in metrics)]
    rows = [[[_effect_name(each), *(_cell(each, name) for name in metrics)] for each in kind] for kind in (main, both)]
    return head, [kind for kind in rows if kind]


def _effect_name(effect: Effect) -> str:
    return r" $\times$ ".join(rf"\texttt{{{escape_latex(factor)}}}" for factor in effect.factors)


def _cell(effect: Effect, name: str) -> str:
    text, verdict = _numbers(effect_text(effect, name)), effect_verdict(effect, name)
    text = _bold(text) if is_decided_effect(effect, name) else text
    return f"{text}, {verdict}" if verdict else text


def _title(table: AblationTable) -> str:
    return describe(table.primary).title


def _numbers(text: str) -> str:
    """Return a cell of our own, which holds numbers and plain words, with its numbers as LaTeX sets numbers."""
    return _NUMBER.sub(lambda match: f"${match[0]}$", text)


def _bold(text: str) -> str:
    return rf"{{\bfseries\boldmath {text}}}"


def _table(head: Sequence[str], bodies: Sequence[Sequence[Sequence[str]]], *, caption: str, name: str) -> str:
    lines = [r"\toprule", _line(head)]
    for body in bodies:
        lines += [r"\midrule", *map(_line, body)]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(caption)}}}",
            rf"  \label{{{name}}}",
            r"  \small",
            rf"  \begin{{tabular}}{{{' '.join('l' + 'r' * (len(head) - 1))}}}",
            *(f"    {line}" for line in (*lines, r"\bottomrule")),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
