"""CSV that reads back as the same values, and reading it as what a stranger may have written.

Numbers are written by ``repr``, so that reading them gives the same double; ``nan``, ``inf`` and ``-inf`` are what
their names say, and an empty cell is a value that is not there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, TypeVar

from specvit.errors import SpecsweepError
from specvit.messages import one_line

MAX_BYTES = 1 << 28
"""Of a file; twice what the largest sweep takes, of 100,000 trials."""

MAX_COLUMNS = 2_000
_SHOWN = 60
_NEEDS_QUOTES = re.compile(r'[",\r\n]')
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,4})?")
_NOT_FINITE = ("nan", "inf", "-inf")
_MAX_INTEGER = 2**63 - 1

E = TypeVar("E", bound=StrEnum)


def render_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a CSV; None is an empty cell."""
    return "".join(f"{','.join(map(_cell, row))}\n" for row in (header, *rows))


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = repr(float(value)) if isinstance(value, float) else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if _NEEDS_QUOTES.search(text) else text


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, whose cells are read by what they must be.

    Attributes:
        place: File and line, for messages.
        cells: Text by column.
    """

    place: str
    cells: Mapping[str, str]

    def refuse(self, column: str, rule: str) -> NoReturn:
        """Raise an error that names the place, the rule and the value."""
        text = self.cells[column]
        shown = repr(one_line(text[:_SHOWN])) + (" .." if len(text) > _SHOWN else "")
        raise SpecsweepError(f"{self.place}: {one_line(column[:_SHOWN])}: must be {rule}, not {shown}")

    def text(self, column: str) -> str:
        """Return a text."""
        return self.cells[column]

    def text_or_none(self, column: str) -> str | None:
        """Return a text; None of an empty cell."""
        return self.cells[column] or None

    def integer(self, column: str, *, least: int = -_MAX_INTEGER - 1) -> int:
        """Return a whole number of 64 bits."""
        text = self.cells[column]
        if not _INTEGER.fullmatch(text) or not least <= int(text) <= _MAX_INTEGER:
            bound = "of 64 bits" if least < 0 else f"from {least} to {_MAX_INTEGER}"
            self.refuse(column, f"a whole number {bound}")
        return int(text)

    def any_number(self, column: str) -> float:
        """Return a number, which may be infinite or none."""
        text = self.cells[column]
        if text not in _NOT_FINITE and not _NUMBER.fullmatch(text):
            self.refuse(column, "a number, 'nan', 'inf' or '-inf'")
        return float(text)

    def number(self, column: str, *, least: float | None = None) -> float:
        """Return a finite number."""
        text = self.cells[column]
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
        if not abs(value) < float("inf") or (least is not None and value < least):
            self.refuse(column, "a finite number" + ("" if least is None else f" of at least {least:g}"))
        return value

    def number_or_none(self, column: str, *, least: float | None = None) -> float | None:
        """Return a finite number; None of an empty cell."""
        return self.number(column, least=least) if self.cells[column] else None

    def one_of(self, column: str, kind: type[E]) -> E:
        """Return a member of an enumeration."""
        try:
            return kind(self.cells[column])
        except ValueError:
            self.refuse(column, f"one of {', '.join(map(repr, map(str, kind)))}")


def read_rows(
    content: bytes, name: str, *, required: Collection[str], most_rows: int
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Read a CSV with a header.

    Args:
        content: The file's bytes.
        name: What messages call the file.
        required: Columns that it must have, in any order; it may have others.
        most_rows: Rows that it may have.

    Returns:
        Its columns, and its rows, which are read as they are asked for.

    Raises:
        SpecsweepError: If it is no such file; the text names the line. So does reading the rows.
    """
    if len(content) > MAX_BYTES:
        raise SpecsweepError(f"{name}: must be at most {MAX_BYTES} bytes long, not {len(content)}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecsweepError(f"{name}:{line}: must be UTF-8; byte {content[error.start]:#04x} is not") from None
    lines = _lines(text, name)
    place, header = next(lines, (f"{name}:1", []))
    if len(header) > MAX_COLUMNS:
        raise SpecsweepError(f"{place}: must have at most {MAX_COLUMNS} columns, not {len(header)}")
    twice = next((column for i, column in enumerate(header) if column in header[:i]), None)
    if twice is not None:
        raise SpecsweepError(f"{place}: has the column {one_line(twice[:_SHOWN])!r} twice")
    missing = [column for column in required if column not in header]
    if missing:
        raise SpecsweepError(f"{place}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return tuple(header), _rows(lines, header, most_rows)


def _rows(lines: Iterator[tuple[str, list[str]]], header: Sequence[str], most_rows: int) -> Iterator[Row]:
    for number, (place, cells) in enumerate(lines, start=1):
        if number > most_rows:
            raise SpecsweepError(f"{place}: must have at most {most_rows} rows")
        if len(cells) != len(header):
            raise SpecsweepError(f"{place}: must have {len(header)} cells, as the header has, not {len(cells)}")
        yield Row(place, dict(zip(header, cells, strict=True)))


def _lines(text: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each record with its place: the file and the line that it begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        place = f"{name}:{reader.line_num + 1}"
        before = csv.field_size_limit(MAX_BYTES)  # the file is no longer than that
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise SpecsweepError(f"{place}: cannot be read as CSV ({error})") from None
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        yield place, cells
