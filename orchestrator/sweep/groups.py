"""The groups of a sweep: what ``vary`` gives each of them, its sections checked, problems at what brings them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.problems import FieldPath, Problem, value_text
from orchestrator.sweep.resolved import Group
from orchestrator.sweep.schema import DISCRIMINATORS, SECTIONS
from orchestrator.sweep.validation_errors import describe
from orchestrator.sweep.varying import Setting, comparable

_ADAPTERS = {section: TypeAdapter(annotation) for section, annotation in SECTIONS.items()}
_DEFAULTS: Mapping[str, dict[str, object]] = {"model": {}, "data": {"source": "scenes"}}
"""What a section says that the file leaves out."""


def _section(raw: Mapping[str, object], section: str) -> object:
    return raw.get(section, _DEFAULTS.get(section, {}))


def with_setting(raw: Mapping[str, object], setting: Setting) -> dict[str, object]:
    """Return the file as a group has it."""
    result = dict(raw)
    for section in SECTIONS:
        fields, own = result.get(section, _DEFAULTS.get(section)), setting.of_section(section)
        if isinstance(fields, dict) and own:
            result[section] = {**fields, **own}
    return result


def is_absent(section: object, raw: Mapping[str, object]) -> bool:
    """Return whether a section is needed, and the file does not have it."""
    return section not in raw and section not in _DEFAULTS


def neutral_fields(section: str, part: Any) -> frozenset[str]:
    """Return the fields of a resolved section that make no groups: where data lies, and how to compute.

    Where a checkpoint lies does: its content is looked at before a run.
    """
    name = {"data": "path_fields", "objective": "resource_fields"}.get(section)
    fields: frozenset[str] = frozenset() if name is None else getattr(part, name)
    return fields


def resolve_groups(
    raw: Mapping[str, object], settings: Sequence[Setting], paths: Sequence[str]
) -> tuple[tuple[Group, ...], list[Problem]]:
    """Resolve what each group is given.

    Args:
        raw: The file.
        settings: What each group is given.
        paths: The fields that are varied, in the order in which groups name them. A group also names those that it is
            not given itself, if it has them: they tell it from the others.

    Returns:
        The groups in the order of the settings, and the problems; no groups where there are any.
    """
    resolved: dict[str, list[Any]] = {}
    problems: list[Problem] = []
    for section in SECTIONS:
        if is_absent(section, raw):
            continue  # reported by the check of the file
        resolved[section], found = _resolve_section(section, _section(raw, section), settings)
        problems += found
    if problems or len(resolved) < len(SECTIONS):
        return (), problems
    groups = []
    for found_parts in zip(*(resolved[section] for section in SECTIONS), strict=True):
        parts = dict(zip(SECTIONS, found_parts, strict=True))
        groups.append(Group(varied=tuple(_varied(parts, paths)), **parts))
    return tuple(groups), list(_check_distinct(groups, settings))


def _varied(parts: Mapping[str, Any], paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a group is named by, and their values in it."""
    for path in paths:
        section, _, field = path.partition(".")
        part = parts[section]
        if hasattr(part, field) and field not in neutral_fields(section, part):
            yield path, getattr(part, field)


def _check_distinct(groups: Sequence[Group], settings: Sequence[Setting]) -> Iterator[Problem]:
    """Check that no two mappings of ``vary`` make the same group; values of one mapping differ anyway."""
    if len({setting.entry for setting in settings}) == 1:
        return
    seen: dict[object, FieldPath] = {}
    for group, setting in zip(groups, settings, strict=True):
        first = seen.setdefault(_content(group), setting.entry)
        if first != setting.entry:
            rule = f"makes a group that {first[0]}[{first[1]}] makes already: groups must differ in what is trained"
            yield Problem(setting.entry, rule)


def _content(group: Group) -> object:
    """Return something hashable that is equal for groups of the same trials."""
    return tuple(_without_neutral(section, getattr(group, section)) for section in SECTIONS)


def _without_neutral(section: str, part: Any) -> object:
    neutral = neutral_fields(section, part)
    names = (field.name for field in dataclasses.fields(part) if field.name not in neutral)
    return type(part), *(getattr(part, name) for name in names)


def _resolve_section(section: str, fields: object, settings: Sequence[Setting]) -> tuple[list[Any], list[Problem]]:
    """Resolve a section for every group; groups that are given the same values in the same place share theirs.

    A problem of a varied value stands at that value. One that all groups have stands at its own field, one that only
    some have at the varied value that brings it.
    """
    start = f"{section}."
    keys = [tuple(place for path, place in each.places.items() if path.startswith(start)) for each in settings]
    distinct = dict(zip(reversed(keys), reversed(settings), strict=True))  # the first of each
    distinct = {key: distinct[key] for key in dict.fromkeys(keys)}
    resolved: dict[object, Any] = {}
    problems: list[Problem] = []
    # Rules between fields: which of them is at fault shows only once all groups were tried.
    misfits: dict[Problem, list[Setting]] = {}
    for key, setting in distinct.items():
        own = setting.of_section(section)
        value = {**fields, **own} if isinstance(fields, dict) else fields
        try:
            resolved[key] = _ADAPTERS[section].validate_python(value)
        except ValidationError as error:
            for problem in describe(error, value, prefix=(section,)):
                field = problem.path[1] if len(problem.path) > 1 else None
                # An unknown field may be known to another recipe or source: whether it is at fault depends on the rest.
                if field in own and not problem.text.startswith("unknown field"):
                    at = (*setting.places[f"{start}{field}"], *problem.path[2:])
                    problems.append(Problem(at, problem.text))
                else:
                    misfits.setdefault(problem, []).append(setting)
    for problem, where in misfits.items():
        problems += dict.fromkeys(_misfit(section, problem, where, list(distinct.values()), fields))
    return [] if problems else [resolved[key] for key in keys], problems


def _misfit(
    section: str, problem: Problem, where: Sequence[Setting], settings: Sequence[Setting], fields: object
) -> Iterator[Problem]:
    """Yield a problem that some groups have, at its own field or at the varied values that bring it, each once."""
    path = ".".join(map(str, problem.path))
    is_given = isinstance(fields, dict) and problem.path[1:2] and problem.path[1] in fields
    if not is_given and any(path in each.values for each in where):
        settings = [each for each in settings if path in each.values]
    if len(where) == len(settings):
        for each in where:
            yield Problem((*each.entry, path) if path in each.values else problem.path, problem.text)
        return
    culprit = _culprit(section, where, settings)
    for each in where:
        if culprit in each.values:
            given = value_text(each.values[culprit])
            yield Problem(each.places[culprit], f"{given} does not go with {path}: {problem.text}")
        else:
            yield Problem(each.entry, f"{path}: {problem.text}")


def _culprit(section: str, where: Sequence[Setting], settings: Sequence[Setting]) -> str:
    """Return the first field whose values tell the groups with a problem from those without.

    The one that tells the kind of the section comes before all others.
    """
    kind = f"{section}.{DISCRIMINATORS.get(section)}"
    paths = dict.fromkeys(path for each in where for path in each.values if path.startswith(f"{section}."))
    ordered = sorted(paths, key=lambda path: path != kind)
    for path in ordered:
        bad = {_value_of(each, path) for each in where}
        if sum(_value_of(each, path) in bad for each in settings) == len(where):
            return path
    return ordered[0] if ordered else ""


def _value_of(setting: Setting, path: str) -> object:
    return comparable(setting.values[path]) if path in setting.values else None
