"""Short names of arms, where there is no room for whole ones: what reads at once, and a legend for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from string import ascii_lowercase

from specvit.messages import one_line

_PLACES = {
    "first-third": ("⅓", "1/3"),
    "first-half": ("½", "1/2"),
    "last-third": ("last⅓", "last1/3"),
    "last-half": ("last½", "last1/2"),
}
"""Named ranges of blocks, short: as they are, and in ASCII."""

_PLACE = re.compile(rf"@({'|'.join(_PLACES)})(?![a-z0-9:-])")
_SHARED = re.compile(r"@([a-z0-9:-]+)(?=(?:\+| x )[a-z_0-9]+(?:\([^()]*\))?@\1(?![a-z0-9:-]))")
"""A place that the next term has too."""


@dataclass(frozen=True)
class ArmNames:
    """What the arms of a table are called in it.

    Attributes:
        short: Text of an arm to its name, in one line.
        legend: What the names mean; empty where they are the arms' own.
    """

    short: Mapping[str, str]
    legend: tuple[str, ...] = ()


def whole_names(arms: Sequence[str]) -> ArmNames:
    """Return the arms' own names."""
    return ArmNames({arm: one_line(arm) for arm in arms})


def short_names(arms: Sequence[str], width: int, *, is_ascii: bool = False) -> ArmNames:
    """Return names of at most so many characters, all by the same rules, each of one arm.

    Args:
        arms: The texts of the arms.
        width: Characters that a name may have, at least 10.
        is_ascii: Whether the names are in ASCII.

    Returns:
        The arms' own names where these fit. Else ``abbreviate``d ones; of one that still does not fit the beginning
        with a letter, which the legend explains.
    """
    whole = whole_names(arms)
    if all(len(name) <= width for name in whole.short.values()):
        return whole
    short = {arm: one_line(abbreviate(arm, is_ascii=is_ascii)) for arm in arms}
    if len(set(short.values())) < len(short):
        short = dict(whole.short)
    legend, codes = _rules(arms, is_ascii=is_ascii), _codes()
    cut = ".." if is_ascii else "…"
    for arm, name in short.items():
        if len(name) > width:
            end = f"{cut}[{next(codes)}]"
            short[arm] = name[: width - len(end)] + end
            legend.append(f"{short[arm]}: {one_line(arm)}")
    return ArmNames(short, tuple(legend))


def factor(text: str) -> str:
    """Return a text that names arms or effects, in which neighbours with the same place share it.

    ``norm@all+qkv@all+mlp@first-third`` is ``norm+qkv@all+mlp@first-third``; so it is within ``placebo of ..``, and
    ``norm@all x qkv@all`` is ``norm x qkv@all``.
    """
    return _SHARED.sub("", text)


def abbreviate(arm: str, *, is_ascii: bool = False) -> str:
    """Return the text of an arm as ``factor`` does, with fractions for thirds and halves: ``norm+qkv@⅓``."""
    return _PLACE.sub(lambda match: f"@{_PLACES[match[1]][is_ascii]}", factor(arm))


def _rules(arms: Sequence[str], *, is_ascii: bool) -> list[str]:
    """Return by which rules names were shortened, in one line; none where they were not."""
    rules = []
    factored = next((arm for arm in arms if factor(arm) != arm), None)
    if factored is not None:
        rules.append(f"{one_line(factor(factored))} is {one_line(factored)}")
    places = {match[1] for arm in arms for match in _PLACE.finditer(arm)}
    rules += [f"{forms[is_ascii]}: {place}" for place, forms in _PLACES.items() if place in places]
    return ["; ".join(rules)] if rules else []


def _codes() -> Iterator[str]:
    """Yield a, b, .., z, aa, ab, .."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
