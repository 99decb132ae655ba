"""Which tokens of a sequence get weights of their own.

A sequence is [CLS], then registers, then patches row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from specvit.errors import ConfigError


@dataclass(frozen=True)
class PrefixRows:
    """The first ``count`` tokens, if they get the own weights: [CLS], perhaps with the registers."""

    count: int = 1

    def of(self, num_tokens: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the first row, and the row after the last, in a sequence of ``num_tokens``."""
        return 0, self.count


@dataclass(frozen=True)
class PatchRow:
    """One fixed patch, if it gets the own weights: the placebo.

    Attributes:
        num_prefix: Number of tokens before the patches.
        grid: Rows and columns of patches at the model's image size.
        position: Row and column of the patch in that grid. In crops of other sizes it is the patch at the
            same relative place.
    """

    num_prefix: int
    grid: tuple[int, int]
    position: tuple[int, int]

    def __post_init__(self) -> None:
        inside = (0 <= at < size for at, size in zip(self.position, self.grid, strict=False))
        if len(self.position) != 2 or not all(inside):
            raise ConfigError(
                f"placebo position {list(self.position)} must be [row, column] within the grid of patches, "
                f"0 <= row < {self.grid[0]} and 0 <= column < {self.grid[1]}"
            )

    def of(self, num_tokens: int) -> tuple[int, int]:
        """Return the row, and the row after it, in a sequence of ``num_tokens``.

        Raises:
            ConfigError: If the patches do not make a grid of the model's proportions.
        """
        height, width = self.grid
        num_patches = num_tokens - self.num_prefix
        rows = math.isqrt(num_patches * height // width)
        if rows < 1 or num_patches % rows or rows * width != num_patches // rows * height:
            raise ConfigError(
                f"the placebo needs images of the model's proportions, {height} x {width} patches, "
                f"but got {num_patches} patches"
            )
        columns = num_patches // rows
        row, column = ((2 * at + 1) * size // (2 * full) for at, size, full in zip(
            self.position, (rows, columns), self.grid, strict=True
        ))
        index = self.num_prefix + row * columns + column
        return index, index + 1


SpecializedRows = PrefixRows | PatchRow
