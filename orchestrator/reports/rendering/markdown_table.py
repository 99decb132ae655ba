"""The ablation tables as Markdown.

A table never leaves out what did not go as planned: pruned, failed and unfinished trials are counted in every
row, and what they do to the means stands below the table.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.factorial import Effect
from orchestrator.reports.interactions import Interactions, compare_groups
from orchestrator.reports.rendering.cell_text import (
    COST_TITLES,
    cost_texts,
    difference_text,
    failures_of,
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
from orchestrator.reports.rendering.verdict_text import sentences_of
from specvit.messages import one_line


def render_markdown(tables: Mapping[str, AblationTable], info: SweepInfo) -> str:
    """Return the tables as one Markdown document, a section per group.

    Args:
        tables: Group to its table, from ``build_tables``.
        info: The sweep they are of.

    Returns:
        The document; what is better or worse is bold. Of several groups, what is found across them is its last section.
    """
    parts = [f"# {_prose(info.name)}", _prose(info.question)]
    for group, table in tables.items():
        metrics = table.metrics
        header = ["arm", *(text for name in metrics for text in (_prose(column_title(name)), "difference"))]
        header += ["extra parameters", "seeds done", "seconds", *COST_TITLES]
        lines = [_markdown_line(header), _markdown_line(["---", *["---:"] * (len(header) - 1)])]
        lines += [_markdown_line(_markdown_cells(row, metrics)) for row in table.rows]
        parts += [f"## {_prose(group)}" if group else "", _prose(" ".join(sentences_of(table))), "\n".join(lines)]
        parts.append("\n".join(f"- {note}" for note in notes_of(table, place="next to it")))
        parts += _factorial_parts(table)
        failures = [f"- {_code(label)}: {_code(error)}" for label, error in failures_of(table)]
        parts += ["Failed trials:", "\n".join(failures)] if failures else []
    if (found := compare_groups(tables)) is not None:
        parts += _across_groups(found)
    return "\n\n".join(part for part in parts if part) + "\n"


def _across_groups(found: Interactions) -> list[str]:
    """Return the section on what is found across groups."""
    header = [columns(found)[0], *map(_prose, columns(found)[1:])]
    lines = [_markdown_line(header), _markdown_line(["---", *["---:"] * (len(header) - 1)])]
    for row in found.shown_rows:
        changes = [f"**{text}**" if is_found else text for text, is_found in change_texts(found, row)]
        lines.append(_markdown_line([_code(row.arm) + label(row), *changes, *combined_texts(found, row)]))
    notes = "\n".join(f"- {_prose(note)}" for note in notes_across(found))
    return [f"## {_prose(heading(found))}", _prose(" ".join(sentences_across(found))), "\n".join(lines), notes]


def _factorial_parts(table: AblationTable) -> list[str]:
    """Return the tables of effects, each below its title, and what they are."""
    parts = []
    for reading in table.factorials:
        metrics = factorial_metrics(table, reading)
        header = ["effect", *(_prose(column_title(name)) for name in metrics)]
        lines = [_markdown_line(header), _markdown_line(["---", *["---:"] * len(metrics)])]
        for effect in reading.effects:
            lines.append(_markdown_line([_code(effect.name), *(_effect_cell(effect, name) for name in metrics)]))
        parts += [f"{_prose(factorial_title(reading))}:", "\n".join(lines)]
    return [*parts, f"- {FACTORIAL_NOTE}"] if parts else []


def _effect_cell(effect: Effect, name: str) -> str:
    text, verdict = effect_text(effect, name), effect_verdict(effect, name)
    text = f"**{text}**" if is_decided_effect(effect, name) else text
    return f"{text}, {verdict}" if verdict else text


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", r"\|") for cell in cells) + " |"


def _markdown_cells(row: ArmRow, metrics: Sequence[str]) -> list[str]:
    cells = [_code(row.arm) + role_text(row)]
    for name in metrics:
        difference = difference_text(row, name)
        verdict = verdict_text(row, name)
        text = f"**{difference}**" if is_decided(row, name) else difference
        cells += [mean_text(row, name), f"{text}, {verdict}" if verdict else text]
    return [*cells, parameters_text(row), ", ".join(states_texts(row)), seconds_text(row), *cost_texts(row)]


def _code(text: str) -> str:
    """Return ``text`` as code, in which Markdown finds nothing to interpret."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def _prose(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, and takes no HTML, link, image or code from it."""
    return re.sub(r"[\\`*\[\]]", r"\\\g<0>", html.escape(one_line(text), quote=False))
