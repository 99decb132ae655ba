"""What a terminal can show: a table's lines, and text in ASCII where there is no UTF-8."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD, Box
from rich.table import Table

_ASCII = str.maketrans(
    {"±": "+-", "↑": "^", "↓": "v", "†": "*", "‡": "#", "…": "..", "▲": "^", "▼": "v", "·": ".", "⅓": "1/3", "½": "1/2"}
)
_ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def plain(text: str, *, is_ascii: bool) -> str:
    """Return ``text``, with the signs of our tables in ASCII where a terminal has no others."""
    return text.translate(_ASCII) if is_ascii else text


def headed_table(*, is_ascii: bool) -> Table:
    """Return a table with a line below its heading and no others; two spaces are between columns."""
    box = _ASCII_HEAD if is_ascii else SIMPLE_HEAD
    return Table(box=box, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)


def table_width(widths: list[int]) -> int:
    """Return how wide a ``headed_table`` is whose columns are so wide."""
    return sum(widths) + 2 * (len(widths) - 1)


def two_lines(text: str) -> str:
    """Put an interval below its estimate, so that it breaks nowhere else in a narrow terminal."""
    return text.replace(" [", "\n[", 1)
