"""Ways to deal with tokens of very high norm. Their torch side is in ``attention`` and ``vit``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from specvit.errors import ConfigError


@dataclass(frozen=True)
class HighNorm:
    """Describe how a model deals with high norms.

    Attributes:
        num_registers: Learned tokens after [CLS].
        attention_bias: Whether every head attends to a learned key and value besides the tokens'.
    """

    num_registers: int = 0
    attention_bias: bool = False


_REGISTERS = re.compile(r"registers:([1-9][0-9]{0,2})")


def parse_high_norm(text: str) -> HighNorm:
    """Parse ``vanilla``, ``registers:N`` or ``attention_bias``.

    Raises:
        ConfigError: If the text is none of them, or N is 0.
    """
    if text == "vanilla":
        return HighNorm()
    if text == "attention_bias":
        return HighNorm(attention_bias=True)
    match = _REGISTERS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"must be vanilla, attention_bias, or registers:N with a number N from 1 to 999, not {text!r}"
        )
    return HighNorm(num_registers=int(match[1]))


def check_high_norm(text: str) -> str:
    """Return a text that ``parse_high_norm`` takes.

    Raises:
        ConfigError: If it does not.
    """
    parse_high_norm(text)
    return text
