"""The groups of a sweep: every combination of the varied values, its sections checked, problems at what brings them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.problems import FieldPath, Problem, value_text
from orchestrator.sweep.resolved import Group
from orchestrator.sweep.schema import SECTIONS, VARY_PATH
from orchestrator.sweep.validation_errors import describe

_ADAPTERS = {section: TypeAdapter(annotation) for section, annotation in SECTIONS.items()}
_DEFAULTS: Mapping[str, dict[str, object]] = {"model": {}, "data": {"source": "scenes"}}
"""What a section says that the file leaves out."""


def varied_axes(raw: Mapping[str, object]) -> dict[str, list[object]]:
    """Return the axes of ``vary`` that are usable; the others are reported by the check of the file."""
    vary = raw.get("vary")
    if not isinstance(vary, dict):
        return {}
    return {
        path: values
        for path, values in vary.items()
        if VARY_PATH.fullmatch(path) and isinstance(values, list) and values
    }


def check_axes(axes: Mapping[str, Sequence[object]]) -> Iterator[Problem]:
    """Check that no axis has a value twice."""
    for path, values in axes.items():
        seen: set[object] = set()
        for index, value in enumerate(values):
            key = _comparable(value)
            if key in seen:
                text = f"must differ from the other values, not {value_text(value)} again"
                yield Problem(("vary", path, index), text)
            seen.add(key)


def _section(raw: Mapping[str, object], section: str) -> object:
    return raw.get(section, _DEFAULTS.get(section, {}))


def first_combination(raw: Mapping[str, object], axes: Mapping[str, Sequence[object]]) -> dict[str, object]:
    """Return the file as the first group has it."""
    result = dict(raw)
    for path, values in axes.items():
        section, _, field = path.partition(".")
        fields = result.get(section, _DEFAULTS.get(section))
        if isinstance(fields, dict):
            result[section] = {**fields, field: values[0]}
    return result


def is_absent(section: object, raw: Mapping[str, object]) -> bool:
    """Return whether a section is needed, and the file does not have it."""
    return section not in raw and section not in _DEFAULTS


def _comparable(value: object) -> object:
    """Return something hashable that is equal for equal values; 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, list):
        return tuple(_comparable(item) for item in value)
    if isinstance(value, dict):
        return frozenset((key, _comparable(item)) for key, item in value.items())
    return (value, isinstance(value, bool))


def resolve_groups(
    raw: Mapping[str, object], axes: Mapping[str, Sequence[object]]
) -> tuple[tuple[Group, ...], list[Problem]]:
    """Resolve every combination of the varied values, in the order of the file."""
    resolved: dict[str, dict[tuple[int, ...], Any]] = {}
    problems: list[Problem] = []
    for section in SECTIONS:
        own = {path: values for path, values in axes.items() if path.partition(".")[0] == section}
        if is_absent(section, raw):
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
    # Rules between fields: which of them is at fault shows only once all combinations were tried.
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
                # An unknown field may be known to another recipe or source: whether it is at fault depends on the rest.
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
        # Told once for each value that brings it, not once for each combination that holds the value.
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
