"""Model scales in one table.

``tiny`` to ``large`` are timm's ``vit_*_patch16_224`` (Touvron et al. 2021, Dosovitskiy et al. 2021); ``nano``
and ``micro`` are ours, sized so that a trial of a sweep fits into a minute of one CPU core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Scale:
    """The shape of a ViT: ``width`` channels, ``depth`` blocks, ``num_heads`` attention heads."""

    width: int
    depth: int
    num_heads: int


SCALES: dict[str, Scale] = {
    "nano": Scale(width=64, depth=6, num_heads=2),
    "micro": Scale(width=96, depth=6, num_heads=3),
    "mini": Scale(width=128, depth=9, num_heads=4),
    "tiny": Scale(width=192, depth=12, num_heads=3),
    "small": Scale(width=384, depth=12, num_heads=6),
    "base": Scale(width=768, depth=12, num_heads=12),
    "large": Scale(width=1024, depth=24, num_heads=16),
}

if TYPE_CHECKING:
    ScaleName = str
else:
    ScaleName = Literal[tuple(SCALES)]
