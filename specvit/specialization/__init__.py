"""Where [CLS] has weights of its own: the language of sweep files, ``norm@all+qkv(lora:8)@first-third``.

``parse_specialization`` resolves a text against a depth to a ``Specialization``; ``COMPONENTS`` is the table of what
can be specialized, ``Mode`` how much of a weight is owned, ``PrefixRows`` and ``PatchRow`` which tokens own it.

Two texts that name the same places have one canonical text, by which arms are told apart; a named arm, ``paper``, has
that of the places which it names in the model. Torch is not needed here.
"""

from specvit.specialization.components import ALIASES, COMPONENTS, NAMED_ARMS, Component
from specvit.specialization.language import (
    NO_SPECIALIZATION,
    Specialization,
    Term,
    check_specialization,
    parse_specialization,
    places_text,
    read_terms,
)
from specvit.specialization.modes import FULL, Mode
from specvit.specialization.token_rows import PatchRow, PrefixRows, SpecializedRows

__all__ = [
    "ALIASES",
    "COMPONENTS",
    "FULL",
    "NAMED_ARMS",
    "NO_SPECIALIZATION",
    "Component",
    "Mode",
    "PatchRow",
    "PrefixRows",
    "Specialization",
    "SpecializedRows",
    "Term",
    "check_specialization",
    "parse_specialization",
    "places_text",
    "read_terms",
]
