"""What arms gain against what they cost: the difference in the primary metric over the extra parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.comparisons import Difference
from orchestrator.reports.drawing.axes import Axis, can_be_drawn, cut_text, spanning, text_width, tick_text
from orchestrator.reports.drawing.shapes import Anchor, Area, Drawing, Label, Line, Mark
from orchestrator.reports.figures.forest import SHAPES
from orchestrator.reports.rendering.arm_names import factor
from orchestrator.reports.rendering.cell_text import verdict_text
from orchestrator.reports.rendering.formatting import describe
from orchestrator.trials.trial import Role
from specvit.messages import one_line

Item = Area | Line | Mark | Label
_MOST_LABELS = 16
"""Points with a name beside them; of more arms only those that are decided."""
_BENDS_FROM = 10.0
"""Extra parameters in % from which on the axis bends: arms of a norm alone have under one, those of an MLP many."""


@dataclass(frozen=True)
class Point:
    """An arm: its extra parameters in %, its difference with its interval, its verdict."""

    arm: str
    extra: float
    mean: float
    low: float | None
    high: float | None
    verdict: str


def points_of(table: AblationTable) -> list[Point]:
    """Return the arms of a table that have a difference; none where all have as many parameters as the baseline."""
    points = []
    for row in table.rows:
        cell = row.metrics.get(table.primary)
        difference = None if cell is None else cell.difference
        if row.role is not Role.ARM or difference is None or difference.mean is None or row.is_no_op:
            continue
        if not (can_be_drawn(difference.mean) and can_be_drawn(row.extra_parameters_percent)):
            continue
        ends = (difference.low, difference.high) if _has_interval(difference) else (None, None)
        points.append(
            Point(
                one_line(row.arm), row.extra_parameters_percent, difference.mean, *ends,
                verdict_text(row, table.primary) or "none",
            )
        )
    return points if len({point.extra for point in points}) > 1 else []


def _has_interval(difference: Difference) -> bool:
    return can_be_drawn(difference.low) and can_be_drawn(difference.high)


def draw_parameters(
    table: AblationTable, points: Sequence[Point], *, width: float, em: float, letters: float = 1.0
) -> Drawing:
    """Lay out the points of a table.

    Args:
        table: The table.
        points: What ``points_of`` returned, with at least one.
        width: Of the drawing, in its unit.
        em: Size of its text.
        letters: How wide its letters are, as a share of those that ``text_width`` knows.
    """
    height = min(0.72 * width, 27 * em)
    left, right, top, bottom = 4.2 * em, width - 0.8 * em, 1.8 * em, height - 3.4 * em
    extras = [point.extra for point in points]
    xs = spanning([0.0, *extras], left, right, margin=0.05, bends=max(map(abs, extras)) > _BENDS_FROM)
    values = [0.0]
    for point in points:
        values += [value for value in (point.mean, point.low, point.high) if value is not None]
    effect = table.smallest_effect
    if effect is not None:
        values += [-effect, effect]
    ys = spanning(values, bottom, top, margin=0.06)
    items: list[Item] = []
    if effect is not None:
        low, high = ys.place(-effect), ys.place(effect)
        items.append(Area(((left, low), (right, low), (right, high), (left, high)), "band"))
        items += [Line(((left, y), (right, y)), "band-edge") for y in (low, high)]
    items += _axes(table, xs, ys, em)
    # Whiskers first, so that none crosses a mark.
    drawn = [item for point in points for item in _point(point, xs, ys, em)]
    items += sorted(drawn, key=lambda item: isinstance(item, Mark))
    items += _names(points, xs, ys, em, 0.9 * letters * em)
    title = f"Difference in {describe(table.primary).title} over extra parameters"
    return Drawing(width, height, em, tuple(items), title)


def _axes(table: AblationTable, xs: Axis, ys: Axis, em: float) -> Iterator[Item]:
    bottom, left = ys.start, xs.start
    for tick in ys.ticks(6):
        y = ys.place(tick)
        yield Line(((left, y), (xs.end, y)), "zero" if abs(tick) < 1e-12 else "grid")
        yield Label(tick_text(tick, signed=True), (left - 0.6 * em, y + 0.32 * em), "note", "end")
    yield Line(((left, bottom), (xs.end, bottom)), "axis")
    for tick in xs.ticks(max(2, int((xs.end - xs.start) / (6 * em)))):
        x = xs.place(tick)
        yield Line(((x, bottom), (x, bottom + 0.3 * em)), "axis")
        yield Label(f"{tick_text(tick)}%", (x, bottom + 1.4 * em), "note", "middle")
    yield Label("extra parameters", ((left + xs.end) / 2, bottom + 2.9 * em), "note", "middle")
    metric = describe(table.primary)
    yield Label(f"difference in {metric.title}", (0, 0.75 * em), "note")


def _point(point: Point, xs: Axis, ys: Axis, em: float) -> Iterator[Item]:
    x, y = xs.place(point.extra), ys.place(point.mean)
    if point.low is not None and point.high is not None:
        low, high = ys.place(point.low), ys.place(point.high)
        style = point.verdict if point.verdict in ("better", "worse", "equivalent") else "others"
        yield Line(((x, low), (x, high)), style)
        for end in (low, high):
            yield Line(((x - 0.25 * em, end), (x + 0.25 * em, end)), style)
    yield Mark(SHAPES[point.verdict], (x, y), 0.38 * em, point.verdict)


def _names(points: Sequence[Point], xs: Axis, ys: Axis, em: float, letter: float) -> Iterator[Item]:
    """Yield the names of points, each beside its own where no other name is; there are too many for some."""
    shown = list(points)
    if len(points) > _MOST_LABELS:
        shown = [point for point in points if point.verdict in ("better", "worse")][:_MOST_LABELS]
    right, room = xs.end, 0.45 * (xs.end - xs.start)
    fit = all(text_width(point.arm, letter) <= room for point in shown)
    taken = [(xs.place(p.extra) - 0.5 * em, ys.place(p.mean), xs.place(p.extra) + 0.5 * em) for p in points]
    for point in sorted(shown, key=lambda point: (point.verdict not in ("better", "worse"), point.extra)):
        x, y = xs.place(point.extra), ys.place(point.mean)
        name = cut_text(point.arm if fit else factor(point.arm), room, letter)
        length = text_width(name, letter)
        sides: tuple[tuple[float, Anchor], ...] = ((x + 0.7 * em, "start"), (x - 0.7 * em - length, "end"))
        for shift, (start, anchor) in product((0.0, -1.1, 1.1, -2.2, 2.2), sides):
            at = y + shift * em
            own = (start, at, start + length)
            inside = ys.end + 0.2 * em < at < ys.start - 0.3 * em and xs.start <= start <= right - length
            on_line = abs(at - ys.place(0.0)) < 0.6 * em
            if inside and not on_line and not any(_overlap(own, other, em) for other in taken):
                taken.append(own)
                full = point.arm if name != point.arm else ""
                yield Label(name, (start + length * (anchor == "end"), at + 0.32 * em), "name", anchor, full)
                break


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float], em: float) -> bool:
    return abs(one[1] - other[1]) < 1.0 * em and one[0] < other[2] and other[0] < one[2]
