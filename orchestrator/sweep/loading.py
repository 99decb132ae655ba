"""Reading a sweep file: YAML and overrides in, a checked ``Sweep`` out, or every problem with its line."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.checks import check_sweep
from orchestrator.sweep.problems import FieldPath, Problem, SourceMap, SweepFileError, value_text
from orchestrator.sweep.resource_settings import Resources
from orchestrator.sweep.schema import (
    MAX_TRIALS,
    SECTIONS,
    VARY_PATH,
    Ablation,
    Group,
    Sweep,
    SweepFile,
    sweep_json_schema,
)
from orchestrator.sweep.validation_errors import describe
from orchestrator.sweep.yaml_reader import MAX_DEPTH, Document, parse_value, read_document
from specvit.config import default_rung_probes

__all__ = [
    "Ablation",
    "Group",
    "Resources",
    "Sweep",
    "SweepFile",
    "SweepFileError",
    "load_sweep",
    "sweep_json_schema",
]

_ADAPTERS = {section: TypeAdapter(annotation) for section, annotation in SECTIONS.items()}
_FILE_ADAPTER = TypeAdapter(SweepFile)
_DEFAULTS: Mapping[str, dict[str, object]] = {"model": {}, "data": {"source": "scenes"}}
"""What a section says that the file leaves out."""


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and check everything that can be known before a trial runs.

    Args:
        path: The YAML file.
        overrides: ``path=value`` texts, set in order before anything is checked; the value is YAML.

    Returns:
        The sweep, its groups resolved.

    Raises:
        SweepFileError: If the file or an override breaks a rule; the text lists every problem found, one a
            line, each with its place.
    """
    path = Path(path)
    document = read_document(path)
    raw, places = _override(document, overrides, name=str(path))
    axes = _axes(raw)
    problems = _check_file(raw, axes)
    groups: tuple[Group, ...] = ()
    if math.prod(len(values) for values in axes.values()) > MAX_TRIALS:
        problems.append(Problem(("vary",), f"must make at most {MAX_TRIALS} groups"))
    else:
        groups, section_problems = _resolve_groups(raw, axes)
        problems += section_problems
    if problems:
        raise places.error(problems)
    file = _FILE_ADAPTER.validate_python(_substituted(raw, axes))
    file = replace(
        file,
        rungs=replace(file.rungs, probes=file.rungs.probes or default_rung_probes(file.probes)),
        floors=tuple(dict.fromkeys(file.floors)),
    )
    sweep = Sweep(file=file, groups=groups, path=path, text=document.text, overrides=tuple(overrides))
    problems = check_sweep(sweep, raw=raw, axes=axes)
    if problems:
        raise places.error(problems)
    return sweep


def _override(document: Document, overrides: Sequence[str], *, name: str) -> tuple[dict[str, object], SourceMap]:
    """Set the overrides in the file's mapping, and keep record of where each field now comes from."""
    raw, lines = copy.deepcopy(document.value), dict(document.lines)
    places: dict[FieldPath, str] = {}
    for text in overrides:
        if any(0xD800 <= ord(character) < 0xE000 for character in text):  # how Python passes bytes that are no UTF-8
            raise SweepFileError(f"--set {text}: must be UTF-8")
        dotted, equals, value_source = text.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise SweepFileError(f"--set {text}: must be path=value, e.g. objective.steps=100")
        if len(keys) > MAX_DEPTH:
            raise SweepFileError(f"--set {text}: must be at most {MAX_DEPTH} levels deep, not {len(keys)}")
        if keys[0] == "vary" and len(keys) > 2:
            keys = ["vary", ".".join(keys[1:])]  # the keys of vary hold dots themselves
        try:
            value = parse_value(value_source)
        except SweepFileError as error:
            raise SweepFileError(f"--set {text}: {error}") from None
        path: FieldPath = tuple(keys)
        target = raw
        for depth, key in enumerate(keys[:-1], start=1):
            inner = target.get(key)
            if inner is None:
                inner = target[key] = {}
            if not isinstance(inner, dict):
                where = f"{'.'.join(keys[:depth])} is {value_text(inner)}"
                raise SweepFileError(f"--set {text}: {where}, which has no fields to set")
            target = inner
        target[keys[-1]] = value
        for old in [old for old in lines if old[: len(path)] == path]:
            del lines[old]
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]
        places[path] = text
    return raw, SourceMap(name=name, lines=lines, overrides=places)


def _axes(raw: Mapping[str, object]) -> dict[str, list[object]]:
    """Return the axes of ``vary`` that are usable; the others are reported by the check of the file."""
    vary = raw.get("vary")
    if not isinstance(vary, dict):
        return {}
    return {
        path: values
        for path, values in vary.items()
        if VARY_PATH.fullmatch(path) and isinstance(values, list) and values
    }


def _section(raw: Mapping[str, object], section: str) -> object:
    return raw.get(section, _DEFAULTS.get(section, {}))


def _substituted(raw: Mapping[str, object], axes: Mapping[str, Sequence[object]]) -> dict[str, object]:
    """Return the file as the first group has it."""
    result = dict(raw)
    for path, values in axes.items():
        section, _, field = path.partition(".")
        fields = result.get(section, _DEFAULTS.get(section))
        if isinstance(fields, dict):
            result[section] = {**fields, field: values[0]}
    return result


def _check_file(raw: Mapping[str, object], axes: Mapping[str, Sequence[object]]) -> list[Problem]:
    """Check the shape of all but the sections that can vary; those are checked group by group."""
    problems = []
    try:
        _FILE_ADAPTER.validate_python(_substituted(raw, axes))
    except ValidationError as error:
        found = describe(error, raw)
        problems = [p for p in found if p.path[0] not in SECTIONS or _is_absent(p.path[0], raw)]
    for path, values in axes.items():
        seen: set[object] = set()
        for index, value in enumerate(values):
            key = _comparable(value)
            if key in seen:
                text = f"must differ from the other values, not {value_text(value)} again"
                problems.append(Problem(("vary", path, index), text))
            seen.add(key)
    return problems


def _is_absent(section: object, raw: Mapping[str, object]) -> bool:
    return section not in raw and section not in _DEFAULTS


def _comparable(value: object) -> object:
    """Return something hashable that is equal for equal values; 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, list):
        return tuple(_comparable(item) for item in value)
    if isinstance(value, dict):
        return frozenset((key, _comparable(item)) for key, item in value.items())
    return (value, isinstance(value, bool))


def _resolve_groups(
    raw: Mapping[str, object], axes: Mapping[str, Sequence[object]]
) -> tuple[tuple[Group, ...], list[Problem]]:
    """Resolve every combination of the varied values, in the order of the file."""
    resolved: dict[str, dict[tuple[int, ...], Any]] = {}
    problems: list[Problem] = []
    for section in SECTIONS:
        own = {path: values for path, values in axes.items() if path.partition(".")[0] == section}
        if _is_absent(section, raw):
            continue  # reported by the check of the file
        resolved[section], found = _resolve_section(section, _section(raw, section), own)
        problems += found
    if problems or len(resolved) < len(SECTIONS):
        return (), problems
    groups = []
    for indices in itertools.product(*(range(len(values)) for values in axes.values())):
        parts = {
            section: resolved[section][
                tuple(i for path, i in zip(axes, indices, strict=True) if path.startswith(f"{section}."))
            ]
            for section in SECTIONS
        }
        varied = []
        for path in axes:
            section, _, field = path.partition(".")
            varied.append((path, getattr(parts[section], field)))
        groups.append(Group(varied=tuple(varied), **parts))
    return tuple(groups), []


def _resolve_section(
    section: str, fields: object, axes: Mapping[str, Sequence[object]]
) -> tuple[dict[tuple[int, ...], Any], list[Problem]]:
    """Resolve a section for every combination of its own varied fields.

    A problem of a varied value stands at that value. One that all combinations have stands at its own
    field, one that only some have at the varied value that brings it.
    """
    resolved: dict[tuple[int, ...], Any] = {}
    problems: list[Problem] = []
    at: FieldPath
    misfits: dict[Problem, list[tuple[int, ...]]] = {}
    names = [path.partition(".")[2] for path in axes]
    combinations = list(itertools.product(*(range(len(values)) for values in axes.values())))
    for indices in combinations:
        value = fields
        if isinstance(fields, dict):
            values = (axis[i] for axis, i in zip(axes.values(), indices, strict=True))
            value = {**fields, **dict(zip(names, values, strict=True))}
        try:
            resolved[indices] = _ADAPTERS[section].validate_python(value)
        except ValidationError as error:
            for problem in describe(error, value, prefix=(section,)):
                field = problem.path[1] if len(problem.path) > 1 else None
                if field in names and not problem.text.startswith("unknown field"):
                    axis = names.index(str(field))
                    at = ("vary", f"{section}.{field}", indices[axis], *problem.path[2:])
                    problems.append(Problem(at, problem.text))
                else:
                    misfits.setdefault(problem, []).append(indices)
    for problem, where in misfits.items():
        if len(where) == len(combinations):
            axis_path = ".".join(map(str, problem.path))
            at = ("vary", axis_path) if axis_path in axes else problem.path
            problems.append(Problem(at, problem.text))
            continue
        axis = _culprit(where, combinations)
        for index in sorted({indices[axis] for indices in where}):
            path = f"{section}.{names[axis]}"
            at = ("vary", path, index)
            inner = ".".join(str(part) for part in problem.path)
            given = value_text(axes[path][index])
            problems.append(Problem(at, f"{given} does not go with {inner}: {problem.text}"))
    return resolved, problems


def _culprit(where: Sequence[tuple[int, ...]], combinations: Sequence[tuple[int, ...]]) -> int:
    """Return the first axis whose values tell the combinations with a problem from those without."""
    for axis in range(len(combinations[0])):
        bad = {indices[axis] for indices in where}
        if sum(indices[axis] in bad for indices in combinations) == len(where):
            return axis
    return 0
