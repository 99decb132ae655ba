"""Saying in plain words what pydantic found wrong with a part of a sweep file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.problems import FieldPath, Problem, value_text
from orchestrator.sweep.schema import DISCRIMINATORS, FORMS, INNER_KINDS, SECTIONS, SweepFile
from specvit.messages import did_you_mean

Details = Mapping[str, Any]

_RULES: Mapping[str, Callable[[Details], str]] = {
    "bool_type": lambda _: "must be true or false",
    "dataclass_type": lambda _: "must be a mapping (field: value)",
    "dict_type": lambda _: "must be a mapping (field: value)",
    "finite_number": lambda _: "must be a finite number",
    "float_type": lambda _: "must be a number",
    "greater_than": lambda d: f"must be greater than {d['gt']:g}",
    "greater_than_equal": lambda d: f"must be at least {d['ge']:g}",
    "int_from_float": lambda _: "must be a whole number",
    "int_type": lambda _: "must be a whole number",
    "less_than": lambda d: f"must be less than {d['lt']:g}",
    "less_than_equal": lambda d: f"must be at most {d['le']:g}",
    "list_type": lambda _: "must be a list",
    "mapping_type": lambda _: "must be a mapping (field: value)",
    "model_attributes_type": lambda _: "must be a mapping (field: value)",
    "string_type": lambda _: "must be text",
    "too_long": lambda d: f"must have at most {d['max_length']} items",
    "tuple_type": lambda _: "must be a list",
}


def describe(error: ValidationError, raw: object, *, prefix: FieldPath = ()) -> list[Problem]:
    """Return what is wrong, with the path of each field as it is written in the file.

    Args:
        error: What pydantic found.
        raw: The value that was validated, as it was read.
        prefix: Path of that value in the file.

    Returns:
        One problem per field; the alternatives of a field that takes several types are joined by "or".
    """
    found: dict[FieldPath, list[tuple[str, str]]] = {}
    for found_error in error.errors(include_url=False):
        details: Details = {**found_error, "loc": (*prefix, *found_error["loc"])}
        path = _written_path(details["loc"], raw, prefix)
        for place, rule, value in _problem(path, details):
            rules = found.setdefault(place, [])
            if (rule, value) not in rules:
                rules.append((rule, value))
    problems = []
    for path, rules in found.items():
        first, *others = (rule for rule, _ in rules)
        text = " or ".join([first, *(other.removeprefix("must be ") for other in others)])
        problems.append(Problem(path, text + rules[-1][1]))
    return problems


def _written_path(loc: FieldPath, raw: object, prefix: FieldPath) -> FieldPath:
    """Return a location without what pydantic adds: the kind of a union's member, and which type was tried."""
    path: FieldPath = ()
    value: Any = raw
    for index, part in enumerate(loc):
        if index == 1 and (loc[0] in DISCRIMINATORS or part in FORMS.get(str(loc[0]), ())):
            continue
        if part == "[key]" and index == len(loc) - 1:
            break  # it is the key that is wrong, not what stands behind it
        if index < len(prefix):
            path = (*path, part)
        elif isinstance(value, Mapping) and part not in value and part in (value.get(each) for each in INNER_KINDS):
            continue
        elif isinstance(value, Mapping) and part == "by_scale" and value.keys() & set(loc[index + 1 : index + 2]):
            continue  # the scale stands beside the other fields of ``resources``
        elif isinstance(value, Mapping):
            path, value = (*path, part), value.get(str(part))
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            path, value = (*path, part), value[part] if part < len(value) else None
        else:
            break
    return path


def _problem(path: FieldPath, details: Details) -> Iterator[tuple[FieldPath, str, str]]:
    """Yield path, rule and value (as the tail of the sentence) of one of pydantic's errors."""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    tail = f", not {value_text(value)}"
    if kind in ("missing", "union_tag_not_found"):
        yield _missing(path, kind, context, value)
    elif kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_fields(path[:-1], details["loc"])
        yield path, f"unknown field; known: {', '.join(known)}", did_you_mean(path[-1], known)
    elif kind == "union_tag_invalid":
        known = _listed(context["expected_tags"])
        tag = context["tag"]
        field = context["discriminator"].strip("'")
        rule = f"unknown {field}; known: {', '.join(known)}"
        yield (*path, field), rule, f", not {tag!r}" + did_you_mean(tag, known)
    elif kind == "literal_error":
        known = _listed(context["expected"])
        yield path, f"must be {_choice(known)}", tail + did_you_mean(value, known)
    elif kind == "string_pattern_mismatch":
        if path[0] == "vary":
            yield path, _PATH_RULE, did_you_mean(path[-1], _vary_paths())
        else:
            yield path, f"must match {context['pattern']}", tail
    elif kind == "value_error":
        subject, _, rule = str(context["error"]).partition(" ")
        if isinstance(value, Mapping) and subject in value:  # a rule between fields that begins with one of them
            yield (*path, subject), rule, ""
        else:
            yield path, str(context["error"]), ""
    elif kind == "too_short" and value:
        return  # items are there, but invalid, which is reported at each of them
    elif kind == "too_short":
        yield path, "must not be empty: an empty grid has no trials", ""
    else:
        make_rule = _RULES.get(kind)
        yield path, make_rule(context) if make_rule else details["msg"][:1].lower() + details["msg"][1:], tail


_PATH_RULE = (
    f"must be a field of {', '.join(SECTIONS)}, written section.field; arms are set under ablate, "
    "seeds under seeds"
)


def _missing(path: FieldPath, kind: str, context: Details, value: Any) -> tuple[FieldPath, str, str]:
    if kind == "union_tag_not_found":
        field = context["discriminator"].strip("'")
        return (*path, field), f"is required; known: {', '.join(_kinds(path))}", ""
    if isinstance(path[-1], int):
        return path[:-1], "must have more items", f", not {value_text(value)}"
    section = path[0]
    discriminator = DISCRIMINATORS.get(str(section)) if len(path) == 2 else None
    if discriminator is not None and isinstance(value, Mapping):
        return path, f"is required by {discriminator} {value.get(discriminator)!r}", ""
    return path, "is required", ""


@cache
def _schema() -> dict[str, Any]:
    return TypeAdapter(SweepFile).json_schema()


def _kinds(path: FieldPath) -> list[str]:
    """Return the kinds that the mapping at ``path`` may be of, looked up in the schema of the file."""
    at = _schema()
    for part in path:
        at = _resolved(at, ())["properties"][str(part)]
    at = next((member for member in at.get("anyOf", ()) if "discriminator" in member), at)
    return list(at["discriminator"]["mapping"])


def _known_fields(path: FieldPath, loc: FieldPath) -> list[str]:
    """Return the fields that the mapping at ``path`` may have, looked up in the schema of the file."""
    at = _schema()
    for part in path:
        inner = at["items"] if isinstance(part, int) else at.get("properties", {}).get(str(part))
        at = _resolved(at["additionalProperties"] if inner is None else inner, loc)
    return list(at.get("properties", {}))


def _resolved(at: dict[str, Any], kinds: FieldPath) -> dict[str, Any]:
    """Follow a reference, to the mapping of the first of the given kinds where there are several."""
    members = at.get("anyOf", () if "discriminator" in at else at.get("oneOf", ()))
    at = next((member for member in members if member.keys() & {"$ref", "discriminator", "items"}), at)
    if "discriminator" in at:
        mapping = at["discriminator"]["mapping"]
        at = {"$ref": mapping[next(kind for kind in kinds if kind in mapping)]}
    return _schema()["$defs"][at["$ref"].rpartition("/")[2]] if "$ref" in at else at


def _vary_paths() -> list[str]:
    paths = set()
    for section in SECTIONS:
        union = _schema()["properties"][section]
        for kind in union["discriminator"]["mapping"] if "discriminator" in union else ("",):
            paths |= {f"{section}.{field}" for field in _resolved(union, (kind,))["properties"]}
    return sorted(paths)


def _listed(expected: str) -> list[str]:
    """Split pydantic's list of texts in quotes: ``'a', 'b' or 'c'``."""
    return expected.split("'")[1::2]


def _choice(known: list[str]) -> str:
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} or {known[-1]}"
