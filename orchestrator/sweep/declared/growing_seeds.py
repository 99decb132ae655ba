"""Seeds that grow: a sweep begins with a few, and arms that are not decided get more at declared looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from pydantic import TypeAdapter, model_validator

from specvit.settings import NonNegativeInt, PositiveInt, settings

LEAST_START = 4
"""With fewer seeds there is no verdict, so no look either."""
MAX_SEEDS, MAX_LOOKS = 1_000, 20
"""More of either would show nothing more, and take long to design."""
MAX_SEED = 2**63 - 1
"""The largest number that a sweep file holds, so that of a seed too."""


@settings
class GrowingSeeds:
    """How many seeds each arm has, and when it is decided whether it gets more.

    The looks are declared before the first trial, and their boundaries are those of all of them together: to look more
    than once costs no false verdict. A sweep that is stopped and begun again decides alike.
    """

    start: PositiveInt = 4
    """Seeds that every arm has, the baseline, controls and floors too; at least 4."""
    most: PositiveInt = 16
    """Seeds that an arm has at most."""
    looks: tuple[PositiveInt, ...] = ()
    """Seeds at which it is looked, rising from ``start`` to ``most``. By default each look has a quarter more than the
    one before it, from four times ``start`` on half more: 4, 5, 6, 7, 8, 10, 12, 16. Each waits for all of its trials;
    where many run at once, fewer looks (``[4, 8, 16]``) are over sooner, with more trials."""
    method: Literal["sequential", "confirm"] = "sequential"
    """``sequential``: at each look arms are decided, stopped as futile, or get more seeds, by boundaries that keep the
    error of all looks. ``confirm``: the first seeds choose the arms, and fresh seeds alone judge them."""
    first: NonNegativeInt = 0
    """The first seed; the others follow it."""
    seek: Literal["both", "better"] | None = None
    """Which arms get more seeds by ``sequential``: those that may turn out better or worse, or those that may turn out
    better alone, which takes fewer trials. Default: ``better`` where pruning is on, which gives up what is worse
    anyway, else ``both``. With a smallest effect also those that may turn out equivalent."""

    @model_validator(mode="after")
    def _check_looks(self) -> GrowingSeeds:
        if self.start < LEAST_START:
            rule = f"start must be at least {LEAST_START}, since fewer seeds give no verdict"
            raise ValueError(f"{rule}, not {self.start}")
        if self.most <= self.start:
            raise ValueError(f"most must be more than start, {self.start}, not {self.most}")
        if self.most > MAX_SEEDS:
            raise ValueError(f"most must be at most {MAX_SEEDS}, not {self.most}")
        if self.first + self.most - 1 > MAX_SEED:
            raise ValueError(f"first must leave room for most, {self.most}, seeds up to {MAX_SEED}, not {self.first}")
        looks = self.all_looks
        if looks[0] != self.start or looks[-1] != self.most or any(b <= a for a, b in pairwise(looks)):
            shown = ", ".join(map(str, looks))
            raise ValueError(f"looks must rise from start, {self.start}, to most, {self.most}, not [{shown}]")
        if len(looks) > MAX_LOOKS:
            raise ValueError(f"looks must be at most {MAX_LOOKS}, not {len(looks)}")
        if self.method == "confirm" and len(looks) != 2:
            raise ValueError("looks must be start and most alone where method is 'confirm'")
        if self.method == "confirm" and self.seek is not None:
            raise ValueError("seek must be left out, for it is for method 'sequential' alone")
        return self

    @property
    def all_looks(self) -> tuple[int, ...]:
        """Return the looks, those of the default too."""
        if self.looks:
            return self.looks
        if self.method == "confirm":
            return self.start, self.most
        looks = [self.start]
        while (look := _following(looks[-1], self.start)) < self.most:
            looks.append(look)
        # A last look that comes too soon after the one before it takes its place.
        if len(looks) > 1 and 2 * (self.most - looks[-1]) < look - looks[-1]:
            looks.pop()
        return (*looks, self.most)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return all seeds that there may be."""
        return tuple(range(self.first, self.first + self.most))

    def resolved(self, *, prunes: bool) -> GrowingSeeds:
        """Return the same with its defaults written out, as a ledger keeps it.

        Args:
            prunes: Whether pruning is on.
        """
        seek = self.seek or ("better" if prunes else "both")
        return replace(self, looks=self.all_looks, seek=seek if self.method == "sequential" else None)


def _following(look: int, start: int) -> int:
    """Return the seeds of the look after one, by default."""
    return look + (max(1, look // 4) if look < 4 * start else look // 2)


def read_growth(values: Mapping[str, Any]) -> GrowingSeeds | None:
    """Return the declaration that a ledger holds as JSON values; None of an empty one."""
    return TypeAdapter(GrowingSeeds).validate_python(dict(values)) if values else None
