"""Text for messages: what comes from files and failures, so that it cannot steer a terminal; spelling suggestions."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control, format, surrogate, and line and paragraph separating characters."""


def escape_control_chars(text: str) -> str:
    r"""Write every character that a terminal would obey instead of showing as Python would: ``\x1b``, ``\u202e``.

    Args:
        text: Anything. Line ends and tabs stay as they are.

    Returns:
        Text without escape sequences, changes of direction and the like. It may still hold the markup of rich:
        wrap it in ``rich.text.Text``, which does not look for any.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def one_line(text: str) -> str:
    """Return ``text`` with every run of white space as one space, and ``escape_control_chars``."""
    return escape_control_chars(" ".join(text.split()))


def did_you_mean(value: object, known: Sequence[str]) -> str:
    """Return ` (did you mean 'x'?)` if one of ``known`` is spelt like ``value``, else nothing."""
    matches = difflib.get_close_matches(str(value), known, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
