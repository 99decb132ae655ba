"""Specialization: where [CLS] has weights of its own. Parsing, canonical text, resolution against a depth.

A specialization is a set of component(mode)@range, written ``norm@all+qkv(lora:8)@first-third``; the mode
``full`` is not written. Two texts that name the same places at a given depth are the same treatment, and have
the same canonical text there. A named arm, ``paper``, is a text for places too; it also depends on whether the
model has layer scales.

Source: "Revisiting [CLS] and Patch Token Interaction in Vision Transformers" (arXiv 2602.08626).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from specvit.errors import ConfigError
from specvit.messages import did_you_mean
from specvit.specialization.components import ALIASES, COMPONENTS, NAMED_ARMS, Component
from specvit.specialization.modes import FULL, Mode, parse_mode

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

_SLICE = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
_TERM = re.compile(r"(?P<name>[^(@]*)(?:\((?P<mode>[^()]*)\))?\s*(?P<range>@.*)?")


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
            + did_you_mean(text, ["all", *NAMED_RANGES])
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
    """The places of one model where [CLS] has its own weights.

    Attributes:
        depth: Number of blocks of the model.
        modes: Component name to block index to mode, both in ascending order; components without any are
            absent. What follows the blocks (``final_norm``) stands at index ``depth``.
        name: The named arm that it was written as, e.g. ``paper`` or ``paper(gate)``; empty = it was written out.
    """

    depth: int
    modes: Mapping[str, Mapping[int, Mode]]
    name: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        return bool(self.modes)

    def places(self) -> Iterator[tuple[Component, int, Mode]]:
        """Yield every place: the component, the block, the mode."""
        for name, blocks in self.modes.items():
            for block, mode in blocks.items():
                yield COMPONENTS[name], block, mode

    @property
    def text(self) -> str:
        """Return the canonical text, e.g. ``norm@all+qkv@first-third``; ``none`` if nothing is specialized."""
        terms: list[str] = []
        written: set[str] = set()
        for name, blocks in self.modes.items():
            if name in written:
                continue
            short, members = next(
                (
                    (alias, members)
                    for alias, members in ALIASES.items()
                    if members[0] == name and all(self.modes.get(member) == blocks for member in members)
                ),
                (name, (name,)),
            )
            written.update(members)
            terms += _terms(short, blocks, self.depth)
        return "+".join(terms) or NO_SPECIALIZATION

    @property
    def label(self) -> str:
        """Return what its arm is called: its name, or else its canonical text."""
        return self.name or self.text


def parse_specialization(
    text: str, depth: int, *, layer_scale: bool = False, default_range: str = "all", default_mode: Mode = FULL
) -> Specialization:
    """Parse a specialization and resolve it against a depth.

    Args:
        text: Terms joined by ``+``, each a component, then perhaps a mode in brackets (``full``, ``gate``,
            ``gate:token``, ``lora:R``), then perhaps ``@`` and a block range; a component may come with several ranges.
            ``none`` (or nothing) is the baseline. A term can be a named arm, ``paper``, which takes a mode.
        depth: Number of blocks of the model.
        layer_scale: Whether the blocks have layer scales, which named arms then own too.
        default_range: Range of the terms that name none.
        default_mode: Mode of the terms that name none.

    Returns:
        The specialization.

    Raises:
        ConfigError: If a component, a mode or a range is unknown, a range reaches beyond the depth, a mode
            does not fit its component, or one place gets two modes.
    """
    stripped = text.strip()
    if stripped in ("", NO_SPECIALIZATION):
        return Specialization(depth=depth, modes=MappingProxyType({}))
    found: dict[str, dict[int, Mode]] = {}
    for term in stripped.split("+"):
        spelt = _spell_out(term, text, default_mode, layer_scale=layer_scale)
        resolved = (_resolve_term(one, text, depth, default_range, default_mode) for one in spelt)
        for component, blocks, mode in chain.from_iterable(resolved):
            modes = found.setdefault(component.name, {})
            for block in blocks:
                if modes.setdefault(block, mode) != mode:
                    raise ConfigError(
                        f"specialization {text!r}: {component.name} of block {block} has two modes, "
                        f"{modes[block].text} and {mode.text}"
                    )
    ordered = {name: MappingProxyType(dict(sorted(found[name].items()))) for name in COMPONENTS if name in found}
    return Specialization(depth=depth, modes=MappingProxyType(ordered), name=_arm_name(stripped, default_mode))


@dataclass(frozen=True)
class Term:
    """A term of a text, whatever the depth: a component or alias, its mode, its range; empty = none was given."""

    name: str
    mode: Mode
    blocks: str

    @property
    def text(self) -> str:
        """Return its text, as in canonical ones."""
        return self.name + _in_brackets(self.mode) + (f"@{self.blocks}" if self.blocks else "")


def read_terms(text: str, *, layer_scale: bool = False) -> tuple[Term, ...]:
    """Read the terms of a text without a depth; a named arm is written out.

    Args:
        text: As in ``parse_specialization``.
        layer_scale: Whether the blocks have layer scales, which named arms then own too.

    Raises:
        ConfigError: If a component or a mode is unknown, or a term is none; also of ``none``.
    """
    found = []
    for term in text.strip().split("+"):
        for spelt in _spell_out(term, text, FULL, layer_scale=layer_scale):
            match = _TERM.fullmatch(spelt.strip())
            if match is None:
                raise ConfigError(f"specialization {text!r}: {spelt.strip()!r} is not component(mode)@range")
            name = match["name"].strip()
            _components_named(name, text)
            mode = FULL if match["mode"] is None else parse_mode(match["mode"])
            found.append(Term(name, mode, (match["range"] or "")[1:].strip()))
    return tuple(found)


def places_text(blocks: Mapping[int, Mode], depth: int) -> str:
    """Return where one component has own weights, and how, without its name.

    Args:
        blocks: Block index to mode, in ascending order, as in ``Specialization.modes``; empty = nowhere.
        depth: Number of blocks of the model.

    Returns:
        E.g. ``first-third``, ``all(gate)``, ``0:1+3:5(lora:8)``; ``all`` of what follows the blocks; ``none``.
    """
    return "+".join((part or "all") + _in_brackets(mode) for part, mode in _parts(blocks, depth)) or NO_SPECIALIZATION


def check_specialization(specialization: Specialization, *, depth: int, width: int, layer_scale: bool) -> None:
    """Check that a specialization fits a model.

    Args:
        specialization: The places.
        depth: Number of blocks.
        width: Channels.
        layer_scale: Whether the blocks have layer scales.

    Raises:
        ConfigError: If it does not; the text names the field, the rule and the value.
    """
    if specialization.depth != depth:
        raise ConfigError(
            f"specialization {specialization.text!r} is for {specialization.depth} blocks, "
            f"but the model has {depth}"
        )
    for component, _, mode in specialization.places():
        if mode.rank > width:
            raise ConfigError(
                f"specialization {specialization.text!r}: the rank of {component.name} must be at most "
                f"{width}, the width of the model, not {mode.rank}"
            )
        if component.needs_layer_scale and not layer_scale:
            raise ConfigError(
                f"specialization {specialization.text!r}: {component.name} needs a model with layer scales "
                "(objective.layer_scale above 0)"
            )


def _arm_name(term: str, default_mode: Mode) -> str:
    """Return the name of a named arm, with its mode unless that is ``full``; empty for any other text."""
    match = _TERM.fullmatch(term)
    if match is None or match["name"].strip() not in NAMED_ARMS:
        return ""
    mode = default_mode if match["mode"] is None else parse_mode(match["mode"])
    return match["name"].strip() + _in_brackets(mode)


def _spell_out(term: str, text: str, default_mode: Mode, *, layer_scale: bool) -> tuple[str, ...]:
    """Return the terms that a named arm stands for; any other term by itself."""
    match = _TERM.fullmatch(term.strip())
    if match is None or match["name"].strip() not in NAMED_ARMS:
        return (term,)
    name = match["name"].strip()
    if match["range"]:
        raise ConfigError(f"specialization {text!r}: {name} has block ranges of its own and takes none")
    mode = default_mode.text if match["mode"] is None else match["mode"]
    return tuple(
        f"{part}({mode})@{blocks}"
        for part, blocks in NAMED_ARMS[name]
        if layer_scale or not any(component.needs_layer_scale for component in _components_named(part, text))
    )


def _resolve_term(
    term: str, text: str, depth: int, default_range: str, default_mode: Mode
) -> Iterator[tuple[Component, range, Mode]]:
    match = _TERM.fullmatch(term.strip())
    if match is None:
        raise ConfigError(f"specialization {text!r}: {term.strip()!r} is not component(mode)@range")
    name, range_text = match["name"].strip(), (match["range"] or "")[1:].strip()
    if match["range"] and not range_text:
        raise ConfigError(f"specialization {text!r}: a block range must follow '@'")
    components = _components_named(name, text)
    mode = default_mode if match["mode"] is None else parse_mode(match["mode"])
    for component in components:
        if mode.kind == "lora" and not component.has_matrix:
            raise ConfigError(
                f"specialization {text!r}: {component.name} has no matrix, so its mode is full or gate or "
                f"gate:token, not {mode.text}"
            )
        if component.per_block:
            yield component, resolve_range(range_text or default_range, depth), mode
        elif range_text in ("", "all"):
            yield component, range(depth, depth + 1), mode
        else:
            raise ConfigError(
                f"specialization {text!r}: {component.name} is not part of a block and takes no range"
            )


def _components_named(name: str, text: str) -> tuple[Component, ...]:
    known = [NO_SPECIALIZATION, *ALIASES, *COMPONENTS, *NAMED_ARMS]
    if name in ALIASES:
        return tuple(COMPONENTS[member] for member in ALIASES[name])
    if name in COMPONENTS:
        return (COMPONENTS[name],)
    if name == NO_SPECIALIZATION:
        raise ConfigError(f"specialization {text!r}: 'none' stands alone")
    raise ConfigError(
        f"specialization {text!r}: unknown component {name!r}; known: {', '.join(known)}" + did_you_mean(name, known)
    )


def _terms(name: str, blocks: Mapping[int, Mode], depth: int) -> Iterator[str]:
    """Write one component or alias: a term for each run of blocks with one mode, full ones first."""
    for part, mode in _parts(blocks, depth):
        yield name + _in_brackets(mode) + (f"@{part}" if part else "")


def _parts(blocks: Mapping[int, Mode], depth: int) -> Iterator[tuple[str, Mode]]:
    """Yield each run of blocks with one mode, as a range, and the mode, full ones first; after the blocks no range."""
    for mode in sorted(set(blocks.values()), key=lambda mode: (mode != FULL, mode)):
        if tuple(blocks) == (depth,):
            yield "", mode
        else:
            indices = tuple(block for block, its_mode in blocks.items() if its_mode == mode)
            yield from ((part, mode) for part in _range_texts(indices, depth))


def _in_brackets(mode: Mode) -> str:
    return "" if mode == FULL else f"({mode.text})"


def _range_texts(indices: tuple[int, ...], depth: int) -> tuple[str, ...]:
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
