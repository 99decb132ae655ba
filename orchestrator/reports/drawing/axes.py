"""Axes: from values to places, round values to mark on them, and how wide a text is, about."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

_NARROW = frozenset("ijl.,:;|'!()[]ftr/- `")
_WIDE = frozenset("mwMW@%+=±<>~^…&ABCDEGHKNOQRSUVXYZ")
_TOO_LARGE = 1e100


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, drawn from ``start`` to ``end``.

    Attributes:
        low: Least value.
        high: Largest value, above ``low``.
        start: Place of ``low``.
        end: Place of ``high``.
        bends: Whether it is linear up to about 1 and logarithmic beyond, to either side of 0 (arsinh).
    """

    low: float
    high: float
    start: float
    end: float
    bends: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies; one outside at the end that is nearer."""
        bend = math.asinh if self.bends else float
        low, high = bend(self.low), bend(self.high)
        share = (bend(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Return whether a value lies within."""
        return self.low <= value <= self.high

    def ticks(self, most: int) -> list[float]:
        """Return up to about ``most`` round values to mark."""
        if not self.bends:
            return round_values(self.low, self.high, most)
        sizes = [size for size in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0) if size <= 1.0001 * self.high]
        sizes = sizes[:: max(1, -(-len(sizes) // max(1, most - 1)))]
        return [0.0, *sizes] if self.low <= 0 else sizes


def spanning(values: Iterable[float], start: float, end: float, *, margin: float = 0.04, bends: bool = False) -> Axis:
    """Return an axis that holds all values that can be drawn, with a margin of its length to either side."""
    finite = [value for value in values if can_be_drawn(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if bends:
        room = (math.asinh(high) - math.asinh(low)) * margin or 1.0
        return Axis(math.sinh(math.asinh(low) - room), math.sinh(math.asinh(high) + room), start, end, bends)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room, start, end)


def can_be_drawn(value: float | None) -> TypeGuard[float]:
    """Return whether a value is there, finite, and not so large that differences or means of such ones are not."""
    return value is not None and abs(value) < _TOO_LARGE


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten from ``low`` to ``high``, with up to ``most`` steps."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return []
    power = 10.0 ** math.floor(math.log10(span / max(most, 1)))
    step = next(power * factor for factor in (1, 2, 5, 10, 20, 50) if span / (power * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_text(value: float, *, signed: bool = False) -> str:
    """Return a round value in few digits, with a sign if that is what it is about."""
    text = f"{value:{'+' if signed else ''}.6g}"
    return "0" if float(text) == 0 else text


def text_width(text: str, em: float = 1.0) -> float:
    """Return about how wide a text is in a proportional font without serifs; rather too wide than too narrow."""
    return em * sum(map(_share, text))


def cut_text(text: str, width: float, em: float) -> str:
    """Return as much of a text as fits into a width: its beginning and its end, where names of arms differ."""
    if text_width(text, em) <= width:
        return text
    room = (width - em) / 2
    head, tail = _fitting(text, room, em), _fitting(text[::-1], room, em)
    return f"{text[:head].rstrip()}…{text[len(text) - tail :].lstrip()}"


def _fitting(text: str, room: float, em: float) -> int:
    """Return how many characters fit."""
    for number, character in enumerate(text):
        room -= em * _share(character)
        if room < 0:
            return number
    return len(text)


def _share(character: str) -> float:
    if character in _NARROW:
        return 0.39
    if character in _WIDE:
        return 0.76 if character not in "mMW@%" else 1.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.63
