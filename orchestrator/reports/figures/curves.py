"""Curves over training: what the rungs of every arm say on the way, as means over its seeds.

Rungs score a held-out part of the training images, tables the reported split: they are not points of one curve.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.drawing.axes import Axis, can_be_drawn, cut_text, spanning, text_width, tick_text
from orchestrator.reports.drawing.shapes import Area, Drawing, Label, Line, Mark
from orchestrator.reports.drawing.styles import SERIES
from orchestrator.reports.rendering.arm_names import factor
from orchestrator.reports.rendering.cell_text import verdict_text
from orchestrator.reports.rendering.formatting import column_title
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role
from specvit.messages import one_line
from specvit.training.learnt import is_learning_metric

Item = Area | Line | Mark | Label
_BASELINE = "baseline"
_TOLD = ("better", "worse", "equivalent")
_SHARED_STYLES = {"others": "other arms"} | {verdict: f"{verdict} arms" for verdict in _TOLD}
"""Styles that many curves have, which are not told apart, and what they have in common."""
_THIN = {_BASELINE: "ink-thin", "others": "axis-thin"}


@dataclass(frozen=True)
class Curve:
    """The means of an arm.

    Attributes:
        arm: Its text.
        style: How it is drawn.
        points: Step, mean over the seeds that have come there, whether these are all that have come to any rung.
    """

    arm: str
    style: str
    points: tuple[tuple[int, float, bool], ...]


@dataclass(frozen=True)
class CurvePanel:
    """The curves of a group in one metric."""

    metric: str
    curves: tuple[Curve, ...]


def panels_of(records: Sequence[TrialRecord], table: AblationTable, *, most: int) -> list[CurvePanel]:
    """Return the curves of a group, a panel for each metric of its rungs.

    Few arms have a colour and a dash each; of many only those that are decided, the others are grey lines.

    Args:
        records: The trials of the group.
        table: Its table.
        most: Panels at most, that of the primary metric first.
    """
    arms: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.trial.role.rank):
        if record.reports:
            arms.setdefault(one_line(record.trial.arm), []).append(record)
    names = dict.fromkeys(name for record in records for report in record.reports for name in report.metrics)
    shown = [name for name in names if not is_learning_metric(name)] or list(names)
    styles = _styles(arms, table)
    panels = []
    for name in sorted(shown, key=lambda name: name != table.primary)[:most]:
        curves = [Curve(arm, styles[arm], _means(its, name)) for arm, its in arms.items()]
        curves = [curve for curve in curves if curve.points]
        if curves:
            panels.append(CurvePanel(name, tuple(curves)))
    return panels


def _styles(arms: Mapping[str, Sequence[TrialRecord]], table: AblationTable) -> dict[str, str]:
    baselines = [arm for arm, its in arms.items() if its[0].trial.role is Role.BASELINE]
    others = [arm for arm in arms if arm not in baselines]
    styles = dict.fromkeys(baselines, _BASELINE)
    if len(others) <= len(SERIES):
        return styles | dict(zip(others, SERIES, strict=False))
    verdicts = {one_line(row.arm): verdict_text(row, table.primary) for row in table.rows if row.metrics}
    return styles | {arm: verdicts[arm] if verdicts.get(arm) in _TOLD else "others" for arm in others}


def _means(records: Sequence[TrialRecord], metric: str) -> tuple[tuple[int, float, bool], ...]:
    values: dict[int, list[float]] = {}
    for record in records:
        for report in record.reports:
            if can_be_drawn(report.metrics.get(metric)):
                values.setdefault(report.step, []).append(report.metrics[metric])
    most = max(map(len, values.values()), default=0)
    return tuple((step, math.fsum(its) / len(its), len(its) == most) for step, its in sorted(values.items()))


def draw_curves(panels: Sequence[CurvePanel], *, width: float, em: float, letters: float = 1.0) -> Drawing:
    """Lay panels out side by side, as many as the width has room for, with the names of the curves below.

    Args:
        panels: What ``panels_of`` returned, with at least one.
        width: Of the drawing, in its unit.
        em: Size of its text.
        letters: How wide its letters are, as a share of those that ``text_width`` knows.
    """
    columns = max(1, min(len(panels), int(width / (20 * em))))
    gap, own_height = 1.6 * em, 17.5 * em
    own_width = (width - gap * (columns - 1)) / columns
    items: list[Item] = []
    for number, panel in enumerate(panels):
        x, y = (own_width + gap) * (number % columns), own_height * (number // columns)
        items += _panel(panel, x, y, x + own_width, y + own_height, em)
    bottom = own_height * -(-len(panels) // columns) + 0.6 * em
    legend, bottom = _legend(panels, bottom, width, em, letters * em)
    return Drawing(width, bottom, em, (*items, *legend), "Means over seeds at the rungs of the training")


def _panel(
    panel: CurvePanel, left: float, top: float, right: float, bottom: float, em: float
) -> Iterator[Item]:
    points = [point for curve in panel.curves for point in curve.points]
    steps = sorted({step for step, _, _ in points})
    xs = spanning(steps, left + 3.4 * em, right - 0.6 * em, margin=0.03)
    ys = spanning([mean for _, mean, _ in points], bottom - 3.6 * em, top + 2.2 * em, margin=0.06)
    yield Label(cut_text(column_title(panel.metric), right - left, em), (left, top + 1.1 * em), "strong")
    for tick in ys.ticks(5):
        yield Line(((xs.start, ys.place(tick)), (xs.end, ys.place(tick))), "grid")
        yield Label(tick_text(tick), (xs.start - 0.5 * em, ys.place(tick) + 0.32 * em), "note", "end")
    yield Line(((xs.start, ys.start), (xs.end, ys.start)), "axis")
    room = max(1, int((xs.end - xs.start) / (4 * em)))
    for step in steps[:: -(-len(steps) // room)]:
        yield Line(((xs.place(step), ys.start), (xs.place(step), ys.start + 0.3 * em)), "axis")
        yield Label(tick_text(step), (xs.place(step), ys.start + 1.4 * em), "note", "middle")
    yield Label("optimizer step", ((xs.start + xs.end) / 2, ys.start + 2.8 * em), "note", "middle")
    drawn: list[tuple[Curve, Axis]] = []
    for number, curve in enumerate(panel.curves):
        # Of a single rung there are no curves: arms stand side by side, in the order of their names below.
        aside = (xs.end - xs.start) * ((number + 0.5) / len(panel.curves) - 0.5) if len(steps) == 1 else 0.0
        drawn.append((curve, replace(xs, start=xs.start + aside, end=xs.end + aside)))
    for curve, at in sorted(drawn, key=lambda one: (one[0].style != "others", one[0].style == _BASELINE)):
        yield from _curve(curve, at, ys, em)


def _curve(curve: Curve, xs: Axis, ys: Axis, em: float) -> Iterator[Item]:
    """Yield a curve: solid as far as all seeds have come, thin and hollow beyond."""
    thin = _THIN.get(curve.style, f"{curve.style}-thin")
    whole = [(xs.place(step), ys.place(mean)) for step, mean, is_whole in curve.points if is_whole]
    partial = [(xs.place(step), ys.place(mean)) for step, mean, is_whole in curve.points if not is_whole]
    if len(whole) > 1:
        yield Line(tuple(whole), curve.style)
    if partial:
        yield Line((*whole[-1:], *partial), thin)
    # Of many arms those that do not stand out are lines alone, unless there is no line.
    has_marks = curve.style != "others" or len(curve.points) == 1
    for points, style in ((whole, curve.style), (partial, thin)):
        for point in points if has_marks else ():
            yield Mark("circle", point, 0.22 * em, style)


def _legend(
    panels: Sequence[CurvePanel], y: float, width: float, em: float, letter: float
) -> tuple[list[Item], float]:
    """Return the names of the curves, as many a line as fit, and where they end."""
    style_of = {curve.arm: curve.style for panel in panels for curve in panel.curves}
    uses = Counter(style_of.values())
    entries = {
        arm if uses[style] == 1 and style != "others" else _SHARED_STYLES[style]: style
        for arm, style in style_of.items()
    }
    items: list[Item] = []
    x, line = 0.0, y + 0.8 * em
    for full, style in entries.items():
        room = width - 3.4 * em
        name = full if text_width(full, letter) <= room else cut_text(factor(full), room, letter)
        length = 2.6 * em + text_width(name, letter)
        if x and x + length > width:
            x, line = 0.0, line + 1.6 * em
        items.append(Line(((x, line - 0.3 * em), (x + 2.0 * em, line - 0.3 * em)), style))
        items.append(Label(name, (x + 2.5 * em, line), "label", "start", full if name != full else ""))
        x += length + 1.4 * em
    return items, line + 0.6 * em
