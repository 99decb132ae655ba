"""The sections of the groups: forests, tables, effects of components, gain against parameters, curves."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.drawing.shapes import Drawing
from orchestrator.reports.drawing.svg import render_svg
from orchestrator.reports.figures.curves import draw_curves, panels_of
from orchestrator.reports.figures.forest import Forest, draw_forest, effects_forest, forest_of
from orchestrator.reports.figures.parameters import draw_parameters, points_of
from orchestrator.reports.page.markup import Cell, arm, bullets, details, plural, prose, section, table, text
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.rendering.cell_text import (
    COST_TITLES,
    cost_texts,
    difference_text,
    has_costs,
    mean_text,
    notes_of,
    parameters_text,
    role_text,
    states_texts,
    verdict_text,
)
from orchestrator.reports.rendering.factorial_text import FACTORIAL_NOTE, factorial_metrics, factorial_title
from orchestrator.reports.rendering.formatting import column_title
from orchestrator.trials.records import TrialRecord

EM = 13.0
"""Size of the text in figures, in pixels."""
WIDE, NARROW = 980.0, 350.0
"""Widths of figures, for a screen and for a telephone."""
_MOST_METRICS, _MOST_PANELS = 6, 6


def group_sections(report: SweepReport) -> str:
    """Return a section for each group; of many groups each is folded."""
    return f'<div id="results">{"".join(_sections(report))}</div>' if report.tables else ""


def _sections(report: SweepReport) -> Iterator[str]:
    for number, (group, of_group) in enumerate(report.tables.items()):
        if report.shows_all:
            title = text(group) if group else "Differences to the baseline"
            yield section(f"group-{number}", title, _in_full(of_group, report.by_group[group]))
        else:
            body = _primary_forest(of_group, is_short=True) + group_table(of_group) + _notes(of_group)
            # A link to what is folded unfolds it; one to the fold itself would not.
            inside = f'<div id="group-{number}">{body}</div>'
            folded = details(f"<b>{text(group, 120)}</b> {plural(len(of_group.rows), 'row')}", inside)
            yield f'<section class="folded">{folded}</section>'


def _in_full(of_group: AblationTable, records: list[TrialRecord]) -> str:
    parts = [_primary_forest(of_group), _other_forests(of_group), group_table(of_group), _notes(of_group)]
    parts += [_effects(of_group), _parameters(of_group), _curves(of_group, records)]
    return "".join(parts)


def _primary_forest(of_group: AblationTable, *, is_short: bool = False) -> str:
    if not of_group.primary or (forest := forest_of(of_group, of_group.primary)) is None:
        return ""
    shaded = ""
    if of_group.smallest_effect is not None:
        shaded = f" Shaded: the smallest effect of interest, {of_group.smallest_effect:g} to either side."
    told = f"{text(column_title(of_group.primary))}: difference to the baseline, 95% intervals, simultaneous.{shaded}"
    return _figure(_forest_drawings(forest, is_short=is_short), told)


def _other_forests(of_group: AblationTable) -> str:
    """Return the forests of the exploratory metrics, side by side where there is room."""
    figures = []
    for name in [name for name in of_group.metrics if name != of_group.primary][:_MOST_METRICS]:
        if (forest := forest_of(of_group, name)) is not None:
            drawing = render_svg(draw_forest(forest, width=NARROW, em=EM))
            figures.append(f"<figure><figcaption>{text(column_title(name))}</figcaption>{drawing}</figure>")
    if not figures:
        return ""
    inside = f'<div class="multiples">{"".join(figures)}</div>'
    return details("Other metrics, exploratory: intervals without a verdict", inside, is_open=True)


def group_table(of_group: AblationTable) -> str:
    """Return the table of a group: in each metric the mean, below it the difference with its interval and verdict."""
    head: list[Cell] = [("", "arm"), *(("n", text(column_title(name))) for name in of_group.metrics)]
    head += [("n", "extra parameters"), ("n", "seeds")]
    return table(head, [_cells(of_group, row) for row in of_group.rows], classes="results") + _costs(of_group)


def _costs(of_group: AblationTable) -> str:
    """Return what a training of each arm took, where it is known of some."""
    if not has_costs(of_group):
        return ""
    head: list[Cell] = [("", "arm"), *(("n", title) for title in COST_TITLES)]
    rows = [[_name(row), *(("n", text(each)) for each in cost_texts(row))] for row in of_group.rows]
    return details("Time and memory of a training", table(head, rows, classes="compact"))


def _name(row: ArmRow) -> Cell:
    return "", arm(row.arm) + (f' <span class="role">{text(row.role)}</span>' if role_text(row) else "")


def _cells(of_group: AblationTable, row: ArmRow) -> list[Cell]:
    cells = [_name(row)]
    for name in of_group.metrics:
        difference, verdict = difference_text(row, name), verdict_text(row, name)
        word = f' <span class="v v-{verdict}">{verdict}</span>' if verdict else ""
        below = f'<span class="diff">{text(difference)}</span>{word}' if difference else ""
        cells.append(("n", text(mean_text(row, name)) + below))
    done, *others = states_texts(row)
    states = text(done) + "".join(f'<span class="state">{text(each)}</span>' for each in others)
    return [*cells, ("n", text(parameters_text(row))), ("n", states)]


def _notes(of_group: AblationTable) -> str:
    notes = bullets(prose(note) for note in notes_of(of_group, place="below it"))
    return details("How to read the table, and what could have been seen", notes)


def _effects(of_group: AblationTable) -> str:
    """Return the effects of components, where the arms are all combinations of some."""
    parts = []
    for reading in of_group.factorials:
        names = sorted(factorial_metrics(of_group, reading), key=lambda name: name != of_group.primary)
        figures = ""
        for name in names[:1]:
            if (forest := effects_forest(of_group, reading, name)) is not None:
                figures += _figure(_forest_drawings(forest), text(column_title(name)))
        others = ""
        for name in names[1:_MOST_METRICS]:
            if (forest := effects_forest(of_group, reading, name)) is not None:
                drawing = render_svg(draw_forest(forest, width=NARROW, em=EM))
                others += f"<figure><figcaption>{text(column_title(name))}</figcaption>{drawing}</figure>"
        others = details("In other metrics", f'<div class="multiples">{others}</div>') if others else ""
        parts.append(f"<h4>{prose(factorial_title(reading))}</h4>{figures}{others}")
    if not parts:
        return ""
    note = details("What these effects are", f"<p>{prose(FACTORIAL_NOTE)}</p>")
    return f"<h3>What each component does over the others</h3>{''.join(parts)}{note}"


def _parameters(of_group: AblationTable) -> str:
    points = points_of(of_group)
    if not points:
        return ""
    drawings = [draw_parameters(of_group, points, width=width, em=EM) for width in (WIDE, NARROW)]
    told = f"{text(column_title(of_group.primary))}: difference to the baseline over extra parameters."
    return f"<h3>Gain against extra parameters</h3>{_figure(drawings, told)}"


def _curves(of_group: AblationTable, records: list[TrialRecord]) -> str:
    panels = panels_of(records, of_group, most=_MOST_PANELS)
    if not panels:
        return ""
    drawings = [draw_curves(panels, width=width, em=EM) for width in (WIDE, NARROW)]
    told = (
        "Means over the seeds at the rungs, on images held out of the training: not the numbers of the table. Dashed "
        "and hollow where not all seeds have come."
    )
    return f"<h3>On the way</h3>{_figure(drawings, told)}"


def _forest_drawings(forest: Forest, *, is_short: bool = False) -> list[Drawing]:
    widths = (NARROW,) if is_short else (WIDE, NARROW)
    return [draw_forest(forest, width=width, em=EM) for width in widths]


def _figure(drawings: list[Drawing], caption: str) -> str:
    """Return a figure; of two widths the page shows that which fits."""
    if len(drawings) == 1:
        shown = render_svg(drawings[0])
    else:
        wide, narrow = map(render_svg, drawings)
        shown = f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    return f"<figure><figcaption>{caption}</figcaption>{shown}</figure>"
