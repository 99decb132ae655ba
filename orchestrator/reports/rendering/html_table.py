"""The ablation tables as HTML: a semantic table to be put into a page, and a page that needs nothing else.

Whatever comes from a sweep or a trial is escaped; there are no scripts, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.factorial import FactorialReading
from orchestrator.reports.interactions import Interactions, compare_groups
from orchestrator.reports.rendering.caption_text import caption_of
from orchestrator.reports.rendering.cell_text import (
    COST_TITLES,
    cost_texts,
    difference_text,
    failures_of,
    has_costs,
    mean_text,
    notes_of,
    parameters_text,
    role_text,
    seconds_text,
    states_texts,
)
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
from orchestrator.reports.rendering.verdict_marks import mark_of, verdict_of
from orchestrator.reports.rendering.verdict_text import sentences_of
from specvit.messages import one_line

_STYLE = """
:root { color-scheme: light dark; --line: #bbb; --better: #00703c; --worse: #b3261e; --dim: #666; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --better: #6fcf97; --worse: #ff8a80; --dim: #aaa; } }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 100rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
caption { caption-side: bottom; color: var(--dim); padding-top: .5rem; text-align: left; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th[scope=colgroup] { text-align: center; }
th[scope=row], thead tr:first-child th:first-child { text-align: left; }
th[scope=row] { background: Canvas; font-weight: normal; left: 0; position: sticky; }
th[scope=row] { max-width: 45vw; min-width: 10rem; white-space: normal; }
thead { border-bottom: 2px solid var(--line); }
tbody { border-bottom: 1px solid var(--line); }
.role, .notes { color: var(--dim); }
.verdict-better, .verdict-worse, .found { font-weight: bold; }
.verdict-better { color: var(--better); }
.verdict-worse, .failed { color: var(--worse); }
"""


def render_html(table: AblationTable, *, question: str = "", group: str = "") -> str:
    """Return a table of arms as a ``<table>``, without a style of its own.

    Args:
        table: The table.
        question: What the sweep asks, for the caption; empty = it is not said.
        group: What the table is of, likewise.

    Returns:
        HTML. A body for each role, rows with the classes ``role-arm`` and the like, and, of arms with a verdict,
        ``verdict-better`` and the like, which their difference in the primary metric has too; columns of the primary
        metric have the class ``primary``; what did not go as planned has ``failed``, ``pruned``.
    """
    has_cost = has_costs(table)
    titles = ["extra parameters", "seeds done", "seconds", *(COST_TITLES if has_cost else ())]
    primary = [_class("primary" * (name == table.primary)) for name in table.metrics]
    metrics = [
        f'<th scope="colgroup" colspan="2"{its_class}>{_text(column_title(name))}</th>'
        for name, its_class in zip(table.metrics, primary, strict=True)
    ]
    parts = ['<th scope="col">mean</th><th scope="col">difference</th>' for _ in table.metrics]
    lines = [
        '<table class="ablation">',
        f"<caption>{_text(' '.join(caption_of(table, question, group)))}</caption>",
        "<thead>",
        f'<tr><th scope="col" rowspan="2">arm</th>{"".join(metrics)}'
        + "".join(f'<th scope="col" rowspan="2">{title}</th>' for title in titles)
        + "</tr>",
        f"<tr>{''.join(parts)}</tr>",
        "</thead>",
    ]
    role = None
    for row in table.rows:
        if row.role is not role:
            lines += ["</tbody>"] * (role is not None) + ["<tbody>"]
        lines.append(_row(row, table, has_cost=has_cost))
        role = row.role
    return "\n".join([*lines, *(["</tbody>"] if table.rows else []), "</table>"]) + "\n"


def render_html_page(tables: Mapping[str, AblationTable], info: SweepInfo) -> str:
    """Return the tables as a page of its own, which loads nothing.

    Args:
        tables: Group to its table, from ``build_tables``.
        info: The sweep they are of.
    """
    parts = [f"<h1>{_text(info.name)}</h1>", f"<p>{_text(info.question)}</p>" if info.question else ""]
    for group, table in tables.items():
        parts.append(f"<h2>{_text(group)}</h2>" if group else "")
        parts += [f"<p>{_text(sentence)}</p>" for sentence in sentences_of(table)]
        parts.append(f'<div class="scroll">\n{render_html(table)}</div>')
        notes = "".join(f"<li>{_text(note)}</li>\n" for note in notes_of(table, place="next to it"))
        parts.append(f'<ul class="notes">\n{notes}</ul>')
        failures = "".join(
            f'<li class="failed">{_text(name)}: {_text(error)}</li>\n' for name, error in failures_of(table)
        )
        parts.append(f"<p>Failed trials:</p>\n<ul>\n{failures}</ul>" if failures else "")
        parts += [_effect_table(table, reading) for reading in table.factorials]
    if (found := compare_groups(tables)) is not None:
        parts.append(f"<h2>{_text(heading(found))}</h2>")
        parts += [f"<p>{_text(sentence)}</p>" for sentence in sentences_across(found)]
        parts.append(_across_table(found))
    body = "\n".join(part for part in parts if part)
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(info.name)}</title>\n<style>{_STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _row(row: ArmRow, table: AblationTable, *, has_cost: bool) -> str:
    verdict = verdict_of(row, table.primary)
    role = f' <span class="role">{_text(role_text(row).strip())}</span>' if role_text(row) else ""
    arm = _text(row.arm).replace("+", "<wbr>+")
    cells = [f'<th scope="row"><code>{arm}</code>{role}</th>']
    for name in table.metrics:
        primary = "primary" * (name == table.primary)
        cells += [f"<td{_class(primary)}>{_text(mean_text(row, name))}</td>", _difference(row, name, primary)]
    cells.append(f"<td>{_text(parameters_text(row))}</td>")
    states = ("failed" if row.failed else "", "pruned" if row.pruned else "")
    cells.append(f"<td{_class(*states)}>{_text(', '.join(states_texts(row)))}</td>")
    cells += [f"<td>{_text(text)}</td>" for text in (seconds_text(row), *(cost_texts(row) if has_cost else ()))]
    return f"<tr{_class(f'role-{row.role}', f'verdict-{verdict}' if verdict else '')}>{''.join(cells)}</tr>"


def _difference(row: ArmRow, name: str, primary: str) -> str:
    text, verdict = _text(difference_text(row, name)), verdict_of(row, name)
    if verdict is None:
        return f"<td{_class(primary)}>{text}</td>"
    mark = f'<span aria-hidden="true">{_text(mark_of(row, name))}</span>'
    return f"<td{_class(primary, f'verdict-{verdict}')}>{text} {mark} {verdict}</td>"


def _effect_table(table: AblationTable, reading: FactorialReading) -> str:
    metrics = factorial_metrics(table, reading)
    rows = []
    for effect in reading.effects:
        cells = []
        for name in metrics:
            verdict = effect_verdict(effect, name)
            its_class = _class("primary" * (name == table.primary), f"verdict-{verdict}" if verdict else "")
            cells.append(f"<td{its_class}>{_text(f'{effect_text(effect, name)} {verdict}')}</td>")
        rows.append(f'<tr><th scope="row"><code>{_text(effect.name)}</code></th>{"".join(cells)}</tr>')
    caption = f"{factorial_title(reading)}. {FACTORIAL_NOTE}"
    return _plain_table(["effect", *map(column_title, metrics)], rows, caption=caption, name="effects")


def _across_table(found: Interactions) -> str:
    rows = []
    for row in found.shown_rows:
        changes = [f"<td{_class('found' * is_found)}>{_text(text)}</td>" for text, is_found in change_texts(found, row)]
        combined = [f"<td>{_text(text)}</td>" for text in combined_texts(found, row)]
        arm = f"<code>{_text(row.arm)}</code>{_text(label(row))}"
        rows.append(f'<tr><th scope="row">{arm}</th>{"".join([*changes, *combined])}</tr>')
    return _plain_table(columns(found), rows, caption=" ".join(notes_across(found)), name="across")


def _plain_table(head: Sequence[str], rows: Sequence[str], *, caption: str, name: str) -> str:
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head)
    lines = (f'<table class="{name}">', f"<caption>{_text(caption)}</caption>", f"<thead>\n<tr>{titles}</tr>\n</thead>")
    return "\n".join(['<div class="scroll">', *lines, "<tbody>", *rows, "</tbody>", "</table>", "</div>"])


def _class(*names: str) -> str:
    known = " ".join(name for name in names if name)
    return f' class="{escape(known)}"' if known else ""


def _text(text: str) -> str:
    return escape(one_line(text))
