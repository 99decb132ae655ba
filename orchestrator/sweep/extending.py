"""A sweep file with the one that it extends: ``extends: other.yaml``, which may extend a third one.

What the file says goes over what the other one says: mappings are merged field by field, whatever else there is takes
the other's place. So does a mapping of another kind (another recipe, say), since the other's fields belong to its own
kind; null takes a field away. What comes of it is one mapping, as if it had been written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.sweep.problems import FieldPath, Problem, SourceMap, SweepFileError, value_text
from orchestrator.sweep.yaml_reader import Document, read_document

MAX_FILES = 8
"""Files over each other, at most."""

EXTENDS = "extends"

KIND_FIELDS = ("recipe", "source", "pruner", "protocol")
"""Fields that say of which kind a mapping is, and so which other fields it may have."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_sweep_file(path: Path) -> Document:
    """Read a sweep file, and whatever it extends.

    Args:
        path: The file.

    Returns:
        What they say together, without ``extends``. Every field has its line, and its file if that is another one;
        the text is that of the file itself.

    Raises:
        SweepFileError: If a file cannot be read or breaks a rule, or they do not end.
    """
    chain = [(path, read_document(path))]
    while EXTENDS in chain[-1][1].value:
        file, document = chain[-1]
        try:
            other = _other_file(file, document.value[EXTENDS])
            if other.resolve() in [each.resolve() for each, _ in chain]:
                names = " -> ".join(str(each) for each, _ in chain)
                raise SweepFileError(f"must not come back to a file: {names} -> {other}")
            if len(chain) == MAX_FILES:
                raise SweepFileError(f"must be at most {MAX_FILES} files over each other, but {other} is one more")
        except SweepFileError as error:
            places = SourceMap(str(file), document.lines, {})
            raise places.error([Problem((EXTENDS,), str(error))]) from None
        chain.append((other, read_document(other)))
    name, (_, below) = str(chain[-1][0]), chain[-1]
    for file, document in reversed(chain[:-1]):
        below, name = _laid_over(document, below, name), str(file)
    return below


def _other_file(file: Path, given: object) -> Path:
    """Return the file that another one extends; raise an error that says the rule if it is none."""
    if not isinstance(given, str) or not given:
        raise SweepFileError(f"must be the path of a sweep file, not {value_text(given)}")
    if _URL.match(given):
        raise SweepFileError(f"must be the path of a file, which a URL is not: {given!r}")
    other = file.parent / given  # the folder of the file that says it
    try:
        is_file = other.is_file()  # a pipe would be waited for
    except OSError as error:
        raise SweepFileError(f"{other} cannot be read: {error.strerror}") from None
    if not is_file:
        raise SweepFileError(f"must be the path of a sweep file, taken from {file.parent}: there is no file {other}")
    return other


def _laid_over(document: Document, below: Document, name: str) -> Document:
    """Return what a file and the one that it extends say together.

    Args:
        document: What the file says.
        below: What the other one says, and all that it extends.
        name: The other one's name.
    """
    replaced: set[FieldPath] = set()
    base = {key: value for key, value in below.value.items() if key != "name"}  # it names a folder of its own results
    own = {key: value for key, value in document.value.items() if key != EXTENDS}
    value = _merged(base, own, (), replaced)
    kept = [path for path in below.lines if not any(path[:length] in replaced for length in range(1, len(path) + 1))]
    files = {path: below.files.get(path, name) for path in kept if path not in document.lines}
    return Document(
        value=value,
        lines={path: below.lines[path] for path in kept} | dict(document.lines),
        text=document.text,
        files=files,
        extended=(str(document.value[EXTENDS]), *below.extended),
    )


def _merged(
    base: Mapping[str, object], own: Mapping[str, object], at: FieldPath, replaced: set[FieldPath]
) -> dict[str, object]:
    """Return a mapping with another one over it, and record which fields of it are gone."""
    result = dict(base)
    for key, value in own.items():
        here, old = (*at, key), base.get(key)
        if value is None and at == ("probes",):
            # Nothing behind a probe switches it on, as everywhere; with the settings that it has.
            result[key] = old if isinstance(old, dict) else None
        elif value is None and key in base:
            del result[key]
            replaced.add(here)
        elif isinstance(old, dict) and isinstance(value, dict) and not _is_of_another_kind(value, old):
            result[key] = _merged(old, value, here, replaced)
        else:
            result[key] = value
            replaced.add(here)
    return result


def _is_of_another_kind(other: Mapping[str, object], one: Mapping[str, object]) -> bool:
    return any(name in one and other.get(name) not in (None, one[name]) for name in KIND_FIELDS)
