"""Jumbo: a wide [CLS] with an MLP of its own. ``trunk`` holds the blocks."""

from specvit.comparators.jumbo.settings import Jumbo

__all__ = ["Jumbo"]
