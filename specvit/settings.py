"""How settings are declared: frozen, validated dataclasses that load without torch.

A settings class is what a sweep file can say and what a trial's identity is made of, so it is checked when
it is made, it cannot change, and reading it costs no import of torch. The text under a field is its
documentation, also in the JSON schema of the sweep file.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")

PositiveInt = Annotated[int, Field(strict=True, gt=0)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]


def _check_range(given: tuple[float, float]) -> tuple[float, float]:
    low, high = given
    if not 0 < low <= high:
        raise ValueError(f"must be [low, high] with 0 < low <= high <= 1, not [{low}, {high}]")
    return given


ShareRange = Annotated[tuple[Fraction, Fraction], AfterValidator(_check_range)]
"""Least and largest share of something, above 0 and at most 1."""


def _add_descriptions(schema: dict[str, Any], cls: type) -> None:
    """Add the text under each field of a settings class to its JSON schema."""
    for base in reversed(cls.__mro__):
        for name, text in _field_docs(base.__module__).get(base.__name__, {}).items():
            if name in schema["properties"]:
                schema["properties"][name]["description"] = text


@cache
def _field_docs(module: str) -> dict[str, dict[str, str]]:
    """Return the text under each field of each class of a module; nothing if its source is not there."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError):
        return {}
    docs: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            of_class = docs[node.name] = {}
            for statement in pairwise(node.body):
                match statement:
                    case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                        of_class[field] = inspect.cleandoc(text) if "\n" in text else text.strip()
    return docs


# pydantic would read the text under fields itself, but while a class is made: a fifth of the time that loading takes.
_CONFIG = ConfigDict(extra="forbid", json_schema_extra=_add_descriptions)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Turn an annotated class into frozen, keyword-only settings that reject unknown fields."""
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls))
