"""Modes: how much of a weight [CLS] gets for itself. Their layers are in ``specvit.models.routed_layers``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from specvit.errors import ConfigError


@dataclass(frozen=True, order=True)
class Mode:
    """The own weights of one component.

    Attributes:
        kind: ``full``: weights of its own. ``lora``: the shared weights plus a matrix of low rank.
            ``gate``: own weights, blended with the shared ones channel by channel. ``gate:token``: own weights,
            blended with the shared ones by a share that depends on the token.
        rank: Rank of the matrix of ``lora``; 0 for the others.
    """

    kind: Literal["full", "lora", "gate", "gate:token"] = "full"
    rank: int = 0

    @property
    def text(self) -> str:
        """Return its text in sweep files."""
        return f"lora:{self.rank}" if self.kind == "lora" else self.kind

    @property
    def goes_by_channel(self) -> bool:
        """Return whether channels have nothing in common, so that neighbours in a layer make one part of it."""
        return self.kind in ("full", "gate")


FULL = Mode()

_LORA = re.compile(r"lora:([0-9]{1,6})")


def parse_mode(text: str) -> Mode:
    """Parse ``full``, ``gate``, ``gate:token`` or ``lora:RANK``.

    Raises:
        ConfigError: If the text is none of them, or the rank is 0.
    """
    stripped = text.strip()
    if stripped == "full":
        return FULL
    if stripped in ("gate", "gate:token"):
        return Mode("gate" if stripped == "gate" else "gate:token")
    match = _LORA.fullmatch(stripped)
    if match is None:
        raise ConfigError(f"unknown mode {text!r}: use full, gate, gate:token, or lora:R with a rank R of at least 1")
    if int(match[1]) < 1:
        raise ConfigError(f"mode {text!r}: the rank must be at least 1")
    return Mode("lora", int(match[1]))
