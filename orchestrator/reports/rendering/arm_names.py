"""Short names of arms, where there is no room for whole ones: what reads at once, and a legend for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby, product
from string import ascii_lowercase

from specvit.messages import one_line

_PLACES = {
    "first-third": ("⅓", "1/3"),
    "first-half": ("½", "1/2"),
    "last-third": ("last⅓", "last1/3"),
    "last-half": ("last½", "last1/2"),
}
"""Named ranges of blocks, short: as they are, and in ASCII."""

_TERM = re.compile(r"(?P<what>[a-z_0-9]+(?:\([^()]*\))?)@(?P<place>[a-z0-9:-]+)")
_REMARKS = re.compile(r"(?P<places>[^ ]+)(?P<remarks> \(.*\))?")


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


def factor(arm: str) -> str:
    """Return the text of an arm in which neighbours with the same place share it.

    ``norm@all+qkv@all+mlp@first-third`` is ``norm+qkv@all+mlp@first-third``. What is no list of places stays.
    """
    terms = _terms(arm)
    if terms is None:
        return arm
    shared = groupby(terms, key=lambda term: term[1])
    return "+".join("+".join(what for what, _ in its) + f"@{place}" for place, its in shared) + _remarks(arm)


def abbreviate(arm: str, *, is_ascii: bool = False) -> str:
    """Return the text of an arm as ``factor`` does, with fractions for thirds and halves: ``norm+qkv@⅓``."""
    text = factor(arm)
    if _terms(arm) is None:
        return text
    places, remarks = text[: len(text) - len(_remarks(arm))], _remarks(arm)
    for place, forms in _PLACES.items():
        places = re.sub(f"@{place}(?=$|\\+)", f"@{forms[is_ascii]}", places)
    return places + remarks


def _terms(arm: str) -> list[tuple[str, str]] | None:
    """Return what has own weights and where, term by term; None if the text is no list of them."""
    match = _REMARKS.fullmatch(arm)
    found = [_TERM.fullmatch(term) for term in match["places"].split("+")] if match else [None]
    return None if None in found else [(term["what"], term["place"]) for term in found if term is not None]


def _remarks(arm: str) -> str:
    match = _REMARKS.fullmatch(arm)
    return (match["remarks"] or "") if match else ""


def _rules(arms: Sequence[str], *, is_ascii: bool) -> list[str]:
    """Return by which rules names were shortened, in one line; none where they were not."""
    rules = []
    factored = next((arm for arm in arms if factor(arm) != arm), None)
    if factored is not None:
        rules.append(f"{one_line(factor(factored))} is {one_line(factored)}")
    for place, forms in _PLACES.items():
        if any((place in (where for _, where in _terms(arm) or ())) for arm in arms):
            rules.append(f"{forms[is_ascii]}: {place}")
    return ["; ".join(rules)] if rules else []


def _codes() -> Iterator[str]:
    """Yield a, b, .., z, aa, ab, .."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
