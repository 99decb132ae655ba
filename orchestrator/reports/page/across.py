"""The section across groups: whether effects depend on what varies."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.reports.drawing.svg import render_svg
from orchestrator.reports.figures.across import changes_forest, combined_forest
from orchestrator.reports.figures.forest import Forest, draw_forest
from orchestrator.reports.interactions import ArmAcross, Interactions
from orchestrator.reports.page.groups import EM, NARROW
from orchestrator.reports.page.markup import Cell, arm, bullets, details, prose, section, table, text
from orchestrator.reports.page.report import MOST_GROUPS_IN_FULL, SweepReport
from orchestrator.reports.rendering.interaction_text import (
    change_texts,
    columns,
    combined_texts,
    heading,
    label,
    notes_across,
)


def across_section(report: SweepReport) -> str:
    """Return what is found across groups; of very many groups only what is so over all of them."""
    found = report.across
    if found is None:
        return ""
    titles = columns(found)
    has_groups = len(found.others) <= MOST_GROUPS_IN_FULL
    shown = titles if has_groups else [titles[0], *titles[-2:]]
    head: list[Cell] = [(("n" if number else ""), text(title, 80)) for number, title in enumerate(shown)]
    rows = [_row(found, row, has_groups=has_groups) for row in found.rows]
    figures = _figures(found) if has_groups else _figure("Over all groups", combined_forest(found))
    rest = "" if has_groups else f"<p>{len(found.others)} groups against the first: see interactions.csv.</p>"
    notes = details("How to read this table", bullets(map(prose, notes_across(found))))
    return section("across", prose(heading(found)), figures, table(head, rows, classes="results"), rest, notes)


def _figures(found: Interactions) -> str:
    """Return forests side by side: of each group against the first, and over all of them."""
    parts = [_figure(text(group, 80), changes_forest(found, group)) for group in found.others]
    return f'<div class="multiples">{"".join([*parts, _figure("Over all groups", combined_forest(found))])}</div>'


def _figure(title: str, forest: Forest | None) -> str:
    if forest is None:
        return ""
    drawing = render_svg(draw_forest(forest, width=NARROW, em=EM))
    return f"<figure><figcaption>{title}</figcaption>{drawing}</figure>"


def _row(found: Interactions, row: ArmAcross, *, has_groups: bool) -> Sequence[Cell]:
    name = arm(row.arm) + (f' <span class="role">{text(label(row).strip(" ()"))}</span>' if label(row) else "")
    changes = change_texts(found, row) if has_groups else []
    cells = [("n", f"<b>{text(each)}</b>" if is_found else text(each)) for each, is_found in changes]
    return [("", name), *cells, *(("n", text(each)) for each in combined_texts(found, row))]
