"""How settings are declared: frozen, validated dataclasses that load without torch.

A settings class is what a sweep file can say and what a trial's identity is made of, so it is checked when
it is made, it cannot change, and reading it costs no import of torch. The text under a field is its
documentation, also in the JSON schema of the sweep file.
"""

from __future__ import annotations

from typing import Annotated, TypeVar, cast, dataclass_transform

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

_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Turn an annotated class into frozen, keyword-only settings that reject unknown fields."""
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls))
