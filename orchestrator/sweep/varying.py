"""What ``vary`` says: which fields have which values in which group, and where each of these was written.

A mapping of fields to lists of values makes a group of every combination. A list of mappings makes the groups of one
after the other: fields with a single value belong together, and those with a list are crossed, as in a mapping.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.sweep.problems import FieldPath, Problem, value_text
from orchestrator.sweep.schema import VARY_PATH

_VARY = "vary"


@dataclass(frozen=True)
class _Entry:
    """A mapping of ``vary``: it makes a group of every combination of its values.

    Attributes:
        place: Where it stands.
        axes: Field to its values.
        single: Fields that have a value, not a list of values.
    """

    place: FieldPath
    axes: Mapping[str, Sequence[object]]
    single: frozenset[str] = frozenset()

    def place_of(self, path: str, index: int) -> FieldPath:
        """Return where a value stands."""
        return (*self.place, path) if path in self.single else (*self.place, path, index)


@dataclass(frozen=True)
class Setting:
    """What ``vary`` gives to a group.

    Attributes:
        values: Field to its value as it was written, in the order of the file.
        places: Field to where that value stands.
        entry: Where the mapping stands that holds them.
    """

    values: Mapping[str, object]
    places: Mapping[str, FieldPath]
    entry: FieldPath = (_VARY,)

    def of_section(self, section: str) -> dict[str, object]:
        """Return the fields of a section, without its name, and their values."""
        start = f"{section}."
        return {path.removeprefix(start): value for path, value in self.values.items() if path.startswith(start)}


@dataclass(frozen=True)
class Varied:
    """What ``vary`` says, as far as it is usable; the rest is reported by the check of the file."""

    entries: tuple[_Entry, ...]

    @classmethod
    def of(cls, raw: Mapping[str, object]) -> Varied:
        """Return what a file says."""
        vary = raw.get(_VARY)
        if isinstance(vary, list):
            places = [(_VARY, index) for index in range(len(vary))]
            entries = [_entry(place, each) for place, each in zip(places, vary, strict=True) if isinstance(each, dict)]
            return cls(tuple(entry for entry in entries if entry.axes) or (_Entry((_VARY,), {}),))
        axes = vary if isinstance(vary, dict) else {}
        axes = {path: values for path, values in axes.items() if isinstance(values, list)}
        return cls((_entry((_VARY,), axes),))

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the fields that are varied, each once, in the order of the file."""
        return tuple(dict.fromkeys(path for entry in self.entries for path in entry.axes))

    @property
    def num_groups(self) -> int:
        """Return how many groups there are, without making them."""
        return sum(math.prod(len(values) for values in entry.axes.values()) for entry in self.entries)

    def settings(self) -> Iterator[Setting]:
        """Yield what each group is given, in the order of the file."""
        for entry in self.entries:
            for indices in itertools.product(*(range(len(values)) for values in entry.axes.values())):
                chosen = dict(zip(entry.axes, indices, strict=True))
                yield Setting(
                    values={path: entry.axes[path][index] for path, index in chosen.items()},
                    places={path: entry.place_of(path, index) for path, index in chosen.items()},
                    entry=entry.place,
                )

    def check(self) -> Iterator[Problem]:
        """Check that no field has a value twice where it has a list of them."""
        for entry in self.entries:
            for path, values in entry.axes.items():
                seen: set[object] = set()
                for index, value in enumerate(values):
                    key = comparable(value)
                    if key in seen:
                        text = f"must differ from the other values, not {value_text(value)} again"
                        yield Problem(entry.place_of(path, index), text)
                    seen.add(key)


def _entry(place: FieldPath, fields: Mapping[str, object]) -> _Entry:
    usable = {path: value for path, value in fields.items() if VARY_PATH.fullmatch(path) and value != []}
    return _Entry(
        place=place,
        axes={path: value if isinstance(value, list) else [value] for path, value in usable.items()},
        single=frozenset(path for path, value in usable.items() if not isinstance(value, list)),
    )


def comparable(value: object) -> object:
    """Return something hashable that is equal for equal values; 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, list):
        return tuple(comparable(item) for item in value)
    if isinstance(value, dict):
        return frozenset((key, comparable(item)) for key, item in value.items())
    return (value, isinstance(value, bool))
