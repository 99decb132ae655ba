"""Specialization: where [CLS] has weights of its own. Parsing, canonical text, resolution against a depth.

A specialization is a set of component@range, written ``norm@all+qkv@first-third``. Two texts that name the
same places at a given depth are the same treatment, and have the same canonical text there.

Source: "Revisiting [CLS] and Patch Token Interaction in Vision Transformers" (arXiv 2602.08626).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from specvit.errors import ConfigError


@dataclass(frozen=True)
class Component:
    """Name a part that can be specialized, and where timm keeps it.

    Attributes:
        name: What sweep files call it.
        modules: Attribute paths of its modules, relative to a block, or to the model if ``per_block`` is off.
        per_block: Whether every block has one, so that it takes a block range.
    """

    name: str
    modules: tuple[str, ...]
    per_block: bool = True


COMPONENTS: Mapping[str, Component] = MappingProxyType(
    {
        component.name: component
        for component in (
            Component("norm1", ("norm1",)),
            Component("norm2", ("norm2",)),
            Component("qkv", ("attn.qkv",)),
            Component("mlp", ("mlp.fc1", "mlp.fc2")),
            Component("final_norm", ("norm",), per_block=False),
        )
    }
)
"""Every component, in the order of canonical text. A new one is a new row (and its test)."""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType({"norm": ("norm1", "norm2")})
"""Names for several components at once, in the order of canonical text."""

NAMED_RANGES: Mapping[str, tuple[int, int, bool]] = MappingProxyType(
    {
        "first-third": (1, 3, False),
        "first-half": (1, 2, False),
        "last-half": (1, 2, True),
        "last-third": (1, 3, True),
    }
)
"""Numerator and denominator of the share of the blocks, and whether it is counted from the end."""

NO_SPECIALIZATION = "none"
"""Canonical text of the empty specialization, the baseline."""

_SLICE = re.compile(r"(\d+):(\d+)")


def resolve_range(text: str, depth: int) -> range:
    """Resolve a block range against a depth.

    Args:
        text: ``all``, ``first-third``, ``first-half``, ``last-half``, ``last-third``, or ``i:j`` (half open).
            A share of the depth is rounded down, to one block at least.
        depth: Number of blocks, at least 1.

    Returns:
        The block indices.

    Raises:
        ConfigError: If the text is no range, or names blocks that a model of this depth does not have.
    """
    if text == "all":
        return range(depth)
    if text in NAMED_RANGES:
        numerator, denominator, from_end = NAMED_RANGES[text]
        num_blocks = max(1, depth * numerator // denominator)
        return range(depth - num_blocks, depth) if from_end else range(num_blocks)
    match = _SLICE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"unknown block range {text!r}: use all, {', '.join(NAMED_RANGES)}, or i:j"
            + _nearest(text, ["all", *NAMED_RANGES])
        )
    start, stop = int(match[1]), int(match[2])
    if not start < stop <= depth:
        raise ConfigError(
            f"block range {text!r} must satisfy 0 <= i < j <= {depth}, the depth of the model (half open, "
            "as Python slices)"
        )
    return range(start, stop)


@dataclass(frozen=True)
class Specialization:
    """Hold the places of one model where [CLS] has its own weights.

    Attributes:
        depth: Number of blocks of the model.
        blocks: Component name to the sorted indices of its specialized blocks; components without any are
            absent; ``final_norm`` has no blocks, so its entry is empty.
    """

    depth: int
    blocks: Mapping[str, tuple[int, ...]]

    def __bool__(self) -> bool:
        return bool(self.blocks)

    @property
    def text(self) -> str:
        """Return the canonical text, e.g. ``norm@all+qkv@first-third``; ``none`` if nothing is specialized."""
        ranges = {
            name: _range_text(indices, self.depth) if COMPONENTS[name].per_block else ("",)
            for name, indices in self.blocks.items()
        }
        terms: list[str] = []
        for name in COMPONENTS:
            if name not in ranges:
                continue
            alias = next((a for a, members in ALIASES.items() if name in members), None)
            if alias is not None and all(ranges.get(m) == ranges[name] for m in ALIASES[alias]):
                if name != ALIASES[alias][0]:
                    continue
                name_or_alias = alias
            else:
                name_or_alias = name
            terms += [f"{name_or_alias}@{part}" if part else name_or_alias for part in ranges[name]]
        return "+".join(terms) or NO_SPECIALIZATION


def parse_specialization(text: str, depth: int, *, default_range: str = "all") -> Specialization:
    """Parse a specialization and resolve it against a depth.

    Args:
        text: Terms joined by ``+``, each ``component`` or ``component@range``; a component may come with
            several ranges. ``none`` (or nothing) is the baseline.
        depth: Number of blocks of the model.
        default_range: Range of the terms that name none.

    Returns:
        The specialization.

    Raises:
        ConfigError: If a component or a range is unknown, or a range reaches beyond the depth.
    """
    stripped = text.strip()
    if stripped in ("", NO_SPECIALIZATION):
        return Specialization(depth=depth, blocks=MappingProxyType({}))
    blocks: dict[str, set[int]] = {}
    for term in stripped.split("+"):
        name, at, range_text = (part.strip() for part in term.partition("@"))
        if at and not range_text:
            raise ConfigError(f"specialization {text!r}: a block range must follow '@'")
        for component in _components_named(name, text):
            if not component.per_block:
                if range_text not in ("", "all"):
                    raise ConfigError(
                        f"specialization {text!r}: {component.name} is not part of a block and takes no range"
                    )
                blocks.setdefault(component.name, set())
                continue
            indices = resolve_range(range_text or default_range, depth)
            blocks.setdefault(component.name, set()).update(indices)
    ordered = {name: tuple(sorted(blocks[name])) for name in COMPONENTS if name in blocks}
    return Specialization(depth=depth, blocks=MappingProxyType(ordered))


def _components_named(name: str, text: str) -> tuple[Component, ...]:
    known = [NO_SPECIALIZATION, *ALIASES, *COMPONENTS]
    if name in ALIASES:
        return tuple(COMPONENTS[member] for member in ALIASES[name])
    if name in COMPONENTS:
        return (COMPONENTS[name],)
    if name == NO_SPECIALIZATION:
        raise ConfigError(f"specialization {text!r}: 'none' stands alone")
    raise ConfigError(
        f"specialization {text!r}: unknown component {name!r}; known: {', '.join(known)}" + _nearest(name, known)
    )


def _range_text(indices: tuple[int, ...], depth: int) -> tuple[str, ...]:
    """Write indices as ranges, by a name where one fits."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    names = {}
    for name in reversed(("all", *NAMED_RANGES)):
        blocks = resolve_range(name, depth)
        names[blocks.start, blocks.stop] = name
    return tuple(names.get(run, f"{run[0]}:{run[1]}") for run in runs)


def _nearest(value: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(value, known, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
