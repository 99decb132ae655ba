"""Forest plots: arms by rows, each difference with its simultaneous interval, what is too small to matter shaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.drawing.axes import Axis, can_be_drawn, cut_text, spanning, text_width, tick_text
from orchestrator.reports.drawing.shapes import Area, Drawing, Label, Line, Mark, Shape
from orchestrator.reports.factorial import FactorialReading
from orchestrator.reports.rendering.arm_names import factor
from orchestrator.reports.rendering.cell_text import difference_text, mean_text, role_text, verdict_text
from orchestrator.reports.rendering.factorial_text import effect_text, effect_verdict
from orchestrator.reports.rendering.formatting import describe
from orchestrator.trials.trial import Role
from specvit.messages import one_line
from specvit.probes import METRICS

Item = Area | Line | Mark | Label

SHAPES: dict[str, Shape] = {
    "better": "up", "worse": "down", "equivalent": "square", "undecided": "circle", "none": "diamond",
}
"""Verdict, or none, to the mark that stands for it, in black and white too."""

_PARTS = {Role.ARM: 0, Role.CONTROL: 1, Role.FLOOR: 2}
_GAP = "\N{NO-BREAK SPACE}" * 4
_BOLD = 1.12
"""How much wider bold letters are."""
_LEAST_WIDE_EM = 44.0
"""Width from which on labels and numbers stand beside the intervals, and not above them."""
_LABELS = 0.37
"""Share of such a width that labels may have."""


@dataclass(frozen=True)
class ForestRow:
    """A row.

    Attributes:
        label: Its name.
        mean: The difference; None if there is none.
        low: Lower end of its interval; None if there is none.
        high: Upper end, likewise.
        text: The numbers, or why there are none.
        verdict: Empty where no verdict is given.
        part: Place of its role: arms 0, below them and apart controls and floors. For floors no axis reaches.
    """

    label: str
    mean: float | None
    low: float | None
    high: float | None
    text: str
    verdict: str = ""
    part: int = 0


@dataclass(frozen=True)
class Forest:
    """What a forest plot shows.

    Attributes:
        metric: Name of the metric.
        rows: From above.
        smallest_effect: Smallest difference of interest; None if none is declared.
        against: What the differences are to, human-readable.
        what: What is drawn, for its axis.
    """

    metric: str
    rows: tuple[ForestRow, ...]
    smallest_effect: float | None
    against: str
    what: str = "difference"


def forest_of(table: AblationTable, metric: str) -> Forest | None:
    """Return the differences of a table in a metric; None if it has no arm, or no difference."""
    rows = [_row_of(row, metric) for row in table.rows if row.role in _PARTS]
    if not any(row.part == 0 for row in rows) or not any(row.mean is not None for row in rows):
        return None
    baseline = next((row for row in table.rows if row.role is Role.BASELINE), None)
    against = "" if baseline is None else f"{one_line(baseline.arm)} = {mean_text(baseline, metric)}"
    effect = table.smallest_effect if metric == table.primary else None
    return Forest(metric, tuple(sorted(rows, key=lambda row: row.part)), effect, against)


def effects_forest(table: AblationTable, reading: FactorialReading, metric: str) -> Forest | None:
    """Return the effects of a factorial in a metric; None if it has none."""
    rows = []
    for effect in reading.effects:
        if (found := effect.metrics.get(metric)) is not None:
            text, verdict = effect_text(effect, metric), effect_verdict(effect, metric)
            rows.append(ForestRow(effect.name, found.mean, found.low, found.high, text, verdict))
    if not rows:
        return None
    effect_size = table.smallest_effect if metric == table.primary else None
    return Forest(metric, tuple(rows), effect_size, "no effect", "effect")


def draw_forest(forest: Forest, *, width: float, em: float, letters: float = 1.0) -> Drawing:
    """Lay a forest plot out in a width, in which everything is as readable as in another one.

    Args:
        forest: What it shows.
        width: Of the drawing, in its unit.
        em: Size of its text.
        letters: How wide its letters are, as a share of those that ``text_width`` knows.
    """
    columns = _Columns(forest, width, em, letters * em)
    step = (1.9 if columns.is_wide else 3.15) * em
    axis = _axis(forest, columns.start, columns.end)
    top = 1.7 * em
    places, rules, y = [], [], top
    for number, row in enumerate(forest.rows):
        if number and row.part != forest.rows[number - 1].part:
            rules.append(y + 0.4 * em)
            y += 0.8 * em
        places.append(y + step * (0.5 if columns.is_wide else 0.7))
        y += step
    bottom = y + 0.2 * em
    items = [
        *_ground(forest, axis, columns, top, bottom, em),
        *(item for row, at in zip(forest.rows, places, strict=True) for item in _row(row, at, axis, columns, em)),
        *_axis_items(forest, axis, bottom, em, letters * em),
    ]
    items += [Line(((0, rule), (width, rule)), "grid") for rule in rules]
    title = f"Forest plot: {forest.what} in {describe(forest.metric).title}, with 95% intervals"
    bottom += 3.3 * em
    if not columns.has_words:
        items += _key(forest, bottom + em, em, letters * em)
        bottom += 1.6 * em * any(row.verdict for row in forest.rows)
    return Drawing(width, bottom, em, tuple(items), title)


def _key(forest: Forest, y: float, em: float, letter: float) -> Iterator[Item]:
    """Yield what the marks stand for."""
    x = 0.5 * em
    for verdict in SHAPES:
        if any(row.verdict == verdict for row in forest.rows):
            yield Mark(SHAPES[verdict], (x, y - 0.3 * em), 0.34 * em, verdict)
            yield Label(verdict, (x + 0.8 * em, y), "note")
            x += 2.2 * em + text_width(verdict, 0.9 * letter)


class _Columns:
    """Where labels, intervals, numbers and verdicts stand; in a narrow drawing verdicts are words where all fit."""

    def __init__(self, forest: Forest, width: float, em: float, letter: float) -> None:
        self.width, self.letter = width, letter
        self.is_wide = width >= _LEAST_WIDE_EM * em
        self.label_end, self.start, self.end, self.text_end = width, 0.7 * em, width - 0.7 * em, width
        lengths = [text_width(f"{row.label}{row.text}, {row.verdict}", letter) for row in forest.rows]
        self.has_words = self.is_wide or max(lengths, default=0.0) + 0.8 * em <= width
        # Names that do not fit are shortened, with all of their part, before any is cut: cut ones may read alike.
        long = {row.part for row in forest.rows if text_width(row.label, letter) > self.room(row, em)}
        self.labels = {row.label: factor(row.label) if row.part in long else row.label for row in forest.rows}
        if self.is_wide:
            longest = max((text_width(label, letter) for label in self.labels.values()), default=0.0)
            verdicts = max((text_width(row.verdict, _BOLD * letter) for row in forest.rows), default=0.0)
            self.label_end = min(longest, _LABELS * width)
            self.text_end = width - verdicts - 0.8 * em * bool(verdicts)
            numbers = max((text_width(row.text, _BOLD * letter) for row in forest.rows), default=0.0)
            self.start, self.end = self.label_end + 1.5 * em, self.text_end - numbers - 1.2 * em

    def room(self, row: ForestRow, em: float) -> float:
        """Return how wide the label of a row may be at most."""
        if self.is_wide:
            return _LABELS * self.width
        return self.width - text_width(self.text(row), _BOLD * self.letter) - 0.8 * em

    def text(self, row: ForestRow) -> str:
        """Return the numbers of a row, with its verdict where that stands behind them."""
        return f"{row.text}, {row.verdict}" if row.verdict and self.has_words and not self.is_wide else row.text


def _axis(forest: Forest, start: float, end: float) -> Axis:
    values = [0.0]
    for row in forest.rows:
        if row.part == 0 or row.low is not None:
            values += [value for value in (row.mean, row.low, row.high) if value is not None]
    if forest.smallest_effect is not None:
        values += [-1.15 * forest.smallest_effect, 1.15 * forest.smallest_effect]
    return spanning(values, start, end)


def _ground(
    forest: Forest, axis: Axis, columns: _Columns, top: float, bottom: float, em: float
) -> Iterator[Item]:
    """Yield what stands behind the rows: the smallest effect, a grid, the line of no difference."""
    if forest.smallest_effect is not None:
        left, right = (axis.place(sign * forest.smallest_effect) for sign in (-1, 1))
        yield Area(((left, top), (right, top), (right, bottom), (left, bottom)), "band")
        for edge in (left, right):
            yield Line(((edge, top), (edge, bottom)), "band-edge")
    for tick in _ticks(axis, em):
        yield Line(((axis.place(tick), top), (axis.place(tick), bottom)), "grid")
    zero = axis.place(0.0)
    yield Line(((zero, top - 0.3 * em), (zero, bottom)), "zero")
    if forest.against:
        yield _beside(forest.against, zero, top - 0.6 * em, columns)


def _beside(text: str, x: float, y: float, columns: _Columns) -> Label:
    """Return a note whose middle is at ``x``, as far as the drawing reaches."""
    shown = cut_text(text, 0.9 * columns.width, 0.9 * columns.letter)
    half = text_width(shown, 0.9 * columns.letter) / 2
    return Label(shown, (min(max(x, half), columns.width - half), y), "note", "middle", text if shown != text else "")


def _row(row: ForestRow, y: float, axis: Axis, columns: _Columns, em: float) -> Iterator[Item]:
    """Yield the interval of a row, its mark, its label and its numbers."""
    name = row.verdict or "none"
    if can_be_drawn(row.low) and can_be_drawn(row.high):
        low, high = axis.place(row.low), axis.place(row.high)
        yield Line(((low, y), (high, y)), name)
        for end in (low, high):
            yield Line(((end, y - 0.28 * em), (end, y + 0.28 * em)), name)
    if can_be_drawn(row.mean):
        x = axis.place(row.mean)
        shape = SHAPES[name] if axis.holds(row.mean) else ("left" if row.mean < axis.low else "right")
        yield Mark(shape, (x, y), 0.36 * em, name)
    base = y + 0.34 * em if columns.is_wide else y - 0.95 * em
    text, words = columns.text(row), row.verdict if columns.is_wide else ""
    label = cut_text(columns.labels[row.label], columns.room(row, em), columns.letter)
    yield Label(label, (0, base), "label", "start", row.label if label != row.label else "")
    if text:
        yield Label(text, (columns.text_end, base), _text_style(row.verdict), "end")
    if words:
        yield Label(words, (columns.text_end + 0.8 * em, base), f"t-{row.verdict}")


def _axis_items(forest: Forest, axis: Axis, bottom: float, em: float, letter: float) -> Iterator[Item]:
    """Yield the axis, its values, what it is of, and which way is better."""
    yield Line(((axis.start, bottom), (axis.end, bottom)), "axis")
    for tick in _ticks(axis, em):
        x = axis.place(tick)
        yield Line(((x, bottom), (x, bottom + 0.3 * em)), "axis")
        yield Label(tick_text(tick, signed=True), (x, bottom + 1.35 * em), "note", "middle")
    metric = describe(forest.metric)
    unit = "points" if metric.unit == "%" else metric.unit
    middle, short = (axis.start + axis.end) / 2, f"{metric.title}{f' ({unit})' if unit else ''}"
    titles = [f"{forest.what} in {short}", short]
    if forest.metric in METRICS:
        sides = ("worse", "better") if METRICS[forest.metric].higher_is_better else ("better", "worse")
        titles = [f"← {sides[0]}{_GAP}{title}{_GAP}{sides[1]} →" for title in titles]
    title = next((title for title in titles if text_width(title, 0.9 * letter) <= axis.end - axis.start), short)
    yield Label(cut_text(title, axis.end - axis.start, 0.9 * letter), (middle, bottom + 2.75 * em), "note", "middle")


def _ticks(axis: Axis, em: float) -> Sequence[float]:
    return axis.ticks(max(2, min(9, int((axis.end - axis.start) / (4.5 * em)))))


def _row_of(row: ArmRow, metric: str) -> ForestRow:
    difference = row.metrics[metric].difference
    mean = None if difference is None or row.is_no_op else difference.mean
    low, high = (None, None) if difference is None or row.is_no_op else (difference.low, difference.high)
    label = one_line(row.arm) + role_text(row)
    text = difference_text(row, metric) or _why_none(row)
    return ForestRow(label, mean, low, high, text, verdict_text(row, metric), _PARTS[row.role])


def _text_style(verdict: str) -> str:
    return f"t-{verdict}" if verdict in ("better", "worse", "equivalent") else "label"


def _why_none(row: ArmRow) -> str:
    """Return why an arm has no difference, in a word or two."""
    counts = ((row.unfinished, "to do"), (row.failed, "failed"), (row.left_out, "left out"), (row.pruned, "pruned"))
    return next((word for count, word in counts if count), "no value")
