"""What diagnostics return: plain numbers with their places, to travel and be stored without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One number that was read off a model.

    Attributes:
        block: Index of the block, from 0; the number of blocks stands for the final norm, behind all of them.
        site: Where in the block, e.g. ``norm1.in``; see ``specvit.diagnostics.diagnose``.
        quantity: What was measured, e.g. ``patch_patch_cosine``.
        value: The number.
    """

    block: int
    site: str
    quantity: str
    value: float
