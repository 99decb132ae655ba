"""What the command line sets in a sweep file: ``--set path=value``."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from orchestrator.sweep.problems import FieldPath, SourceMap, SweepFileError, override_place, value_text
from orchestrator.sweep.yaml_reader import MAX_DEPTH, Document, parse_value


def apply_overrides(document: Document, overrides: Sequence[str], *, name: str) -> tuple[dict[str, object], SourceMap]:
    """Set the overrides in the file's mapping, and keep record of where each field now comes from."""
    raw, lines = copy.deepcopy(document.value), dict(document.lines)
    places: dict[FieldPath, str] = {}
    for text in overrides:
        if any(0xD800 <= ord(character) < 0xE000 for character in text):  # how Python passes bytes that are no UTF-8
            raise SweepFileError(f"{override_place(text)}: must be UTF-8")
        dotted, equals, value_source = text.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise SweepFileError(f"{override_place(text)}: must be path=value, e.g. objective.steps=100")
        if len(keys) > MAX_DEPTH:
            raise SweepFileError(f"{override_place(text)}: must be at most {MAX_DEPTH} levels deep, not {len(keys)}")
        if keys[0] == "vary" and len(keys) > 2:
            keys = ["vary", ".".join(keys[1:])]  # the keys of vary hold dots themselves
        try:
            value = parse_value(value_source)
        except SweepFileError as error:
            raise SweepFileError(f"{override_place(text)}: {error}") from None
        path: FieldPath = tuple(keys)
        target = raw
        for depth, key in enumerate(keys[:-1], start=1):
            inner = target.get(key)
            if inner is None:
                inner = target[key] = {}
            if not isinstance(inner, dict):
                where = f"{'.'.join(keys[:depth])} is {value_text(inner)}"
                raise SweepFileError(f"{override_place(text)}: {where}, which has no fields to set")
            target = inner
        target[keys[-1]] = value
        for old in [old for old in lines if old[: len(path)] == path]:
            del lines[old]
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]
        places[path] = text
    return raw, SourceMap(name=name, lines=lines, overrides=places, files=document.files)
