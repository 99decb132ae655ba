"""Text in LaTeX: whatever it holds, it is set as it is, and nothing in it is a command.

What ``inputenc``'s UTF-8 of a plain LaTeX does not know is written as a command, or by its number.
"""

from __future__ import annotations

import re
import unicodedata

from specvit.messages import one_line

_COMMANDS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%", "&": r"\&", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}", "±": r"$\pm$",
    "×": r"$\times$", "·": r"$\cdot$", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$",  # noqa: RUF001
    "←": r"$\leftarrow$", "↔": r"$\leftrightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$",
    "≈": r"$\approx$", "∞": r"$\infty$", "√": r"$\surd$", "²": "$^2$", "³": "$^3$", "°": r"$^\circ$", "µ": r"$\mu$",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "…": r"\dots{}", "–": r"\textendash{}", "—": r"\textemdash{}",  # noqa: RUF001
    "‘": r"\textquoteleft{}", "’": r"\textquoteright{}", "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",  # noqa: RUF001
    "½": r"$\frac{1}{2}$", "⅓": r"$\frac{1}{3}$", "⅔": r"$\frac{2}{3}$", "¼": r"$\frac{1}{4}$", "¾": r"$\frac{3}{4}$",
    "\u00a0": "~",
}
"""Characters that LaTeX would obey, or does not know in text."""

_GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"

_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
"""Grave, acute, circumflex, tilde, macron, breve, dot, diaeresis, ring, double acute, caron, cedilla, combining."""


def escape_latex(text: str) -> str:
    r"""Return ``text`` in one line so that LaTeX sets it: ``a_b@50%`` is ``a\_b@50\%``.

    It is for arguments in braces: a bracket after the end of a line would be an argument.
    Latin letters with common accents stay as they are (UTF-8); other characters without a command are ``[U+4E2D]``.
    """
    escaped = "".join(map(_escaped, one_line(text)))
    return re.sub(r"(?<=-)-", "{}-", escaped)  # no dashes out of hyphens


def slug(text: str) -> str:
    """Return ``text`` as a part of a label: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "table"


def _escaped(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if character in _GREEK:
        case, _, name = unicodedata.name(character).removeprefix("GREEK ").partition(" LETTER ")
        name = {"LAMDA": "LAMBDA"}.get(name, name).lower()
        return f"$\\{name.capitalize() if case == 'CAPITAL' else name}$"
    if character.isascii() or character in "ßæÆœŒøØłŁ" or _is_accented(character):
        return character
    return f"[U+{ord(character):04X}]"


def _is_accented(character: str) -> bool:
    """Return whether a character is a Latin letter with an accent that every font encoding has."""
    parts = unicodedata.normalize("NFD", character)
    return len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS
