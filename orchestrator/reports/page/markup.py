"""HTML as text: escaping, and the few elements that sections are made of."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from specvit.messages import escape_control_chars, one_line

MOST_CHARACTERS = 240
"""Of a label or a message; more is nobody's to read in a table."""
MOST_OF_FILE = 100_000
"""Of a sweep file."""

Cell = tuple[str, str]
"""Classes and HTML of a cell."""


def text(value: object, most: int = MOST_CHARACTERS) -> str:
    """Return a text as HTML that shows it in one line, cut where it is very long."""
    return html.escape(_cut(one_line(str(value)), most))


def prose(value: str) -> str:
    """Return a sentence of ours, which may quote labels, as HTML."""
    return text(value, 4 * MOST_CHARACTERS)


def block(value: str, most: int = MOST_OF_FILE) -> str:
    """Return a text of several lines as HTML."""
    return f"<pre>{html.escape(_cut(escape_control_chars(value), most))}</pre>"


def arm(value: str) -> str:
    """Return the text of an arm as code, which may break where it is joined; its direction of writing is its own."""
    breakable = re.sub(r"(?<=.)([+,])", r"<wbr>\1", text(value))
    return f'<bdi class="arm">{breakable}</bdi>'


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, classes: str = "", caption: str = "") -> str:
    """Return a table that scrolls by itself where it is too wide; the first cell of a row is its heading."""
    titles = "".join(f'<th scope="col"{_class(kind)}>{cell}</th>' for kind, cell in head)
    lines = []
    for row in rows:
        (kind, first), *others = row
        cells = "".join(f"<td{_class(each)}>{cell}</td>" for each, cell in others)
        lines.append(f'<tr><th scope="row"{_class(kind)}>{first}</th>{cells}</tr>')
    told = f"<caption>{caption}</caption>" if caption else ""
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table{_class(classes)}>{told}{body}</table></div>'


def details(summary: str, body: str, *, is_open: bool = False) -> str:
    """Return a part that opens when its summary is pressed."""
    return f"<details{' open' * is_open}><summary>{summary}</summary>{body}</details>"


def section(name: str, title: str, *body: str) -> str:
    """Return a section with its heading; nothing without a body."""
    inside = "".join(body)
    return f'<section id="{name}"><h2>{title}</h2>{inside}</section>' if inside else ""


def bullets(items: Iterable[str]) -> str:
    """Return a list; nothing without items."""
    inside = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""


def plural(count: int, noun: str) -> str:
    """Return ``1 trial``, ``2,000 trials``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _cut(value: str, most: int) -> str:
    return value if len(value) <= most else f"{value[:most].rstrip()}… ({len(value):,} characters)"
