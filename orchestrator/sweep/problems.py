"""What is wrong with a sweep file, and where: one line per problem, in words that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.secrets import hide_argument
from specvit.errors import ConfigError

FieldPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to a value."""

_MAX_LISTED = 100
_MAX_VALUE_CHARS = 80
_MAX_LINE_CHARS = 1000
_MAX_END_CHARS = 300
_MAX_OVERRIDE_CHARS = 300


class SweepFileError(ConfigError):
    """A sweep file that cannot be used; the text lists every problem, one a line, with its place."""

    def __init__(self, *lines: str) -> None:
        """Join the problems.

        Args:
            lines: One problem each, with its place. What the user wrote can stand in them as it is: a line break or
                an escape sequence of it cannot break the line or reach the terminal.
        """
        super().__init__("\n".join(map(shortened, lines)))


@dataclass(frozen=True)
class Problem:
    """A broken rule.

    Attributes:
        path: Where it is broken.
        text: The rule and the value, without the place.
        line: Its line, where the path alone does not tell (the second of two equal keys).
    """

    path: FieldPath
    text: str
    line: int | None = None


@dataclass(frozen=True)
class SourceMap:
    """Where every field was given: in a line of the file, or in an override on the command line.

    Attributes:
        name: The file, as the user named it.
        lines: Line (from 1) of every key and list item of the file that no override has replaced.
        overrides: The overrides, ``path=value``, by the field they set.
        files: The file of those lines that are of another one, which this one extends.
    """

    name: str
    lines: Mapping[FieldPath, int]
    overrides: Mapping[FieldPath, str]
    files: Mapping[FieldPath, str] = field(default_factory=dict)

    def locate(self, path: FieldPath) -> str:
        """Return the place of a field, or of the nearest field above it that was given: ``x.yaml:12``."""
        for head in _heads(path):
            if head in self.overrides:
                return override_place(self.overrides[head])
            if head in self.lines:
                return f"{self.files.get(head, self.name)}:{self.lines[head]}"
        for given, text in self.overrides.items():
            if path and given[:1] == path[:1]:
                return override_place(text)
        return f"{self.name}:1"

    def error(self, problems: Iterable[Problem]) -> SweepFileError:
        """Return the error that lists ``problems``, each once, in the order of the file, then of those it extends."""

        def line_of(problem: Problem) -> tuple[str, int]:
            head = next((head for head in _heads(problem.path) if head in self.lines), ())
            return self.files.get(head, ""), self.lines.get(head, 0) if problem.line is None else problem.line

        lines = []
        for problem in sorted(dict.fromkeys(problems), key=line_of):
            place = self.locate(problem.path) if problem.line is None else f"{self.name}:{problem.line}"
            field = f"{field_text(problem.path)}: " if problem.path else ""
            lines.append(f"{place}: {field}{problem.text}")
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = [f"{self.name}: and {len(lines) - _MAX_LISTED} more problems"]
        return SweepFileError(*lines)


def override_place(text: str) -> str:
    """Return an override as the place of a problem; the middle of a long one is cut, so that the rule is not."""
    text = hide_argument(text, by="..")
    if len(text) > _MAX_OVERRIDE_CHARS:
        text = f"{text[: _MAX_OVERRIDE_CHARS - _MAX_VALUE_CHARS]} ... {text[-_MAX_VALUE_CHARS:]}"
    return f"--set {text}"


def _heads(path: FieldPath) -> Iterable[FieldPath]:
    return (path[:length] for length in range(len(path), 0, -1))


def field_text(path: FieldPath) -> str:
    """Write a path as users do: ``ablate.components[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shortened(text: str) -> str:
    """Write text so that it stays in its line and commands no terminal; leave out the middle if it is very long."""
    if not text.isprintable():  # a line end and a tab neither
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= _MAX_LINE_CHARS:
        return text
    return f"{text[:_MAX_LINE_CHARS - _MAX_END_CHARS]} ... {text[-_MAX_END_CHARS:]}"  # rules come at the end


def value_text(value: object) -> str:
    """Write a value for a message: text in quotes, the words of YAML for the rest, cut if it is long."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, Mapping) and len(value) > 2:
        text = "a mapping"
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 3] + "..."
