"""Reading YAML strictly, and knowing the line of everything in it.

The subset is the one that surprises nobody: scalars are those of YAML 1.2's core schema (``1e-4`` is a
number, ``no`` is text, ``0:3`` is text), keys are text and unique, numbers are finite; tags, aliases, merge
keys and several documents are refused. PyYAML scans and parses; values are made here.

Source: YAML 1.2.2, section 10.3.2 (core schema).
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.sweep.problems import FieldPath, Problem, SourceMap, SweepFileError, value_text

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_INT = 2**63 - 1
_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./@+-]*")
"""Text that is never taken for anything else."""

_PLAINER = {
    "mapping values are not allowed here": "a second ': ' in one line; text that holds ': ' needs quotes",
    "found character '\\t' that cannot start any token": "a tab where YAML wants spaces",
    "expected a single document in the stream": "one file holds one document, so no second '---'",
}


class _Dumper(yaml.SafeDumper):
    """Writes what the reader takes: no aliases, and quotes around all text that could be something else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        is_plain = _PLAIN_TEXT.fullmatch(text) and text not in _NULL and text not in _BOOL
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


@dataclass(frozen=True)
class Document:
    """A YAML mapping and where its parts stand.

    Attributes:
        value: The mapping, made of dict, list, str, int, float, bool and None.
        lines: Line (from 1) of every key and list item, by its path.
        text: The source.
        files: The file of each part that another one gives, which this one extends.
        extended: Those files as they are named, the nearest first.
    """

    value: dict[str, object]
    lines: Mapping[FieldPath, int]
    text: str
    files: Mapping[FieldPath, str] = field(default_factory=dict)
    extended: tuple[str, ...] = ()


def read_document(path: Path) -> Document:
    """Read a file of YAML.

    Args:
        path: The file; UTF-8, with or without a byte order mark, of at most 1 MiB.

    Returns:
        Its mapping.

    Raises:
        SweepFileError: If the file cannot be read or breaks a rule; every problem has its line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SweepFileError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise SweepFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise SweepFileError(f"{path}: must be at most {MAX_BYTES} bytes (1 MiB) long")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SweepFileError(f"{path}:1: must be saved as UTF-8, not UTF-16")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SweepFileError(f"{path}:{line}: must be UTF-8; byte {data[error.start]:#04x} is not") from None
    return parse_document(text, name=str(path))


def parse_document(text: str, *, name: str) -> Document:
    """Parse YAML whose top level is a mapping.

    Args:
        text: The source.
        name: What messages call it.

    Returns:
        Its mapping.

    Raises:
        SweepFileError: If it breaks a rule; every problem has its line, a syntax error its column too.
    """
    try:
        node = _compose(text)
    except _ParseError as problem:
        raise SweepFileError(f"{name}:{problem}") from None
    if node is None:
        raise SweepFileError(f"{name}:1: the file is empty; a sweep needs at least an objective and probes")
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise SweepFileError(f"{name}:{line}: the top level must be a mapping (field: value)")
    builder = _Builder()
    value = builder.mapping(node, ())
    if builder.problems:
        raise SourceMap(name, builder.lines, {}).error(builder.problems)
    return Document(value=value, lines=builder.lines, text=text)


def write_document(value: Mapping[str, object]) -> str:
    """Return YAML that ``parse_document`` reads as the same mapping."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse_value(text: str) -> object:
    """Parse a value as it may stand behind a key, for overrides.

    Args:
        text: YAML, e.g. ``1e-3``, ``[0, 1]``, ``{source: scenes}``; nothing is null.

    Returns:
        The value.

    Raises:
        SweepFileError: If it breaks a rule; the text says which, without a place.
    """
    try:
        node = _compose(text)
    except _ParseError as problem:
        raise SweepFileError(problem.text) from None
    builder = _Builder()
    value = None if node is None else builder.build(node, ())
    if builder.problems:
        raise SweepFileError("; ".join(problem.text for problem in builder.problems))
    return value


class _ParseError(Exception):
    """Text that is no YAML, or YAML that is refused while it is parsed."""

    def __init__(self, text: str, mark: Any, *, line: int = 1) -> None:
        self.text = text
        place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else f"{line}"
        super().__init__(f"{place}: {text}")


class _Loader(yaml.SafeLoader):
    """Compose nodes; refuse what could expand, run code or nest without end."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _ParseError(f"aliases (*{event.anchor}) are not supported: write it out", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _ParseError(f"tags ({tag}) are not supported", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _ParseError(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = text[error.position]
        raise _ParseError(f"character U+{ord(character):04X} is not allowed", None, line=line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        wording = _PLAINER.get(error.problem or "") or _PLAINER.get(error.context or "")
        if wording is None:
            wording = ", ".join(part for part in (error.context, error.problem) if part)
        raise _ParseError(f"not valid YAML: {wording}", mark) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML passes on what chr() and int() raise for absurd escapes and directives.
        raise _ParseError(f"not valid YAML: {error}", None) from None


class _Builder:
    """Build values of nodes, noting lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {}
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, path: FieldPath) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self.lines[*path, position] = item.start_mark.line + 1
            return [self.build(item, (*path, position)) for position, item in enumerate(node.value)]
        value, problem = _scalar(node)
        if problem is not None:
            self.problems.append(Problem(path, problem))
        return value

    def mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key, problem = _key(key_node)
            here = (*path, key)
            if problem is None and key in mapping:
                problem = f"duplicate key, given in line {self.lines[here]} already"
            if problem is not None:
                self.problems.append(Problem(here, problem, line))
                continue
            self.lines[here] = line
            mapping[key] = self.build(value_node, here)
        return mapping


def _key(node: yaml.Node) -> tuple[str, str | None]:
    if not isinstance(node, yaml.ScalarNode):
        return "?", "a key must be text, not a list or a mapping"
    key, problem = _scalar(node)
    if problem is None and node.style is None and key == "<<":
        return "<<", "merge keys are not supported: write the fields out"
    if problem is None and not isinstance(key, str):
        return str(node.value), f"a key must be text, not {value_text(key)}: put it in quotes"
    return str(node.value), problem


def _text_problem(text: str) -> str | None:
    """Return what is wrong with text: escapes in quotes can name what YAML would not let stand in the file."""
    for character in text:
        match unicodedata.category(character):
            case "Cs":
                return "must not hold half of a surrogate pair"
            case "Cc" if character not in "\t\n\r":
                return f"must not hold the control character U+{ord(character):04X}"
    return None


def _scalar(node: yaml.Node) -> tuple[object, str | None]:
    """Return the value of a scalar, and what is wrong with it."""
    text: str = node.value
    if getattr(node, "style", None) is not None:
        return text, _text_problem(text)
    if text in _NULL:
        return None, None
    if text in _BOOL:
        return _BOOL[text], None
    if _NOT_FINITE.fullmatch(text):
        return 0.0, f"must be a finite number, not {text}"
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            digits = text if base == 10 else text[2:]
            number = int(digits, base) if len(digits) <= 64 else _MAX_INT + 1
            return number, None if abs(number) <= _MAX_INT else "must be a whole number of at most 64 bits"
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value, None if math.isfinite(value) else f"must be a finite number, not {text}"
    return text, None
