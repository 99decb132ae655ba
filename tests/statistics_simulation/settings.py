"""What is simulated: how many arms and seeds, and how values vary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUM_ARMS = (1, 5, 10, 20)
NUM_SEEDS = (3, 4, 6, 10)
KINDS = {
    "equal": "independent normal values of one variance",
    "seeds .6": "a correlation by seed of .6",
    "missing": "the same, and a tenth of the cells missing",
    "unequal": "standard deviations of the arms from 0.7 to 1.4 times the baseline's, evenly in their logarithm",
    "t5": "Student's t with 5 degrees of freedom, scaled to one variance",
    "one x3": "beyond what the bands ask: one arm has three times the standard deviation",
    "baseline x2": "beyond what the bands ask: the baseline has twice the standard deviation",
}
BANDS = {
    "equal": (0.94, 0.96),
    "seeds .6": (0.94, 0.96),
    "missing": (0.94, 0.96),
    "unequal": (0.92, 1.0),
    "t5": (0.92, 1.0),
}
"""Simultaneous coverage of 95% intervals that is asked for."""
MOST_WRONG = 0.055
"""Family-wise error that is asked for at most."""
MOST_WRONG_EQUIVALENT = 0.05


@dataclass(frozen=True)
class Setting:
    """A kind of sweep.

    Attributes:
        num_arms: Arms beside the baseline.
        num_seeds: Seeds of each.
        kind: One of ``KINDS``.
    """

    num_arms: int
    num_seeds: int
    kind: str

    @property
    def sds(self) -> Array:
        """Return ``(A,)`` standard deviations, the baseline's first."""
        sds = np.ones(self.num_arms + 1)
        if self.kind == "unequal":
            sds[1:] = np.geomspace(math.sqrt(0.5), math.sqrt(2), self.num_arms) if self.num_arms > 1 else math.sqrt(2)
        elif self.kind == "one x3":
            sds[-1] = 3
        elif self.kind == "baseline x2":
            sds[0] = 2
        return sds

    def draw(self, num_sweeps: int, rng: np.random.Generator) -> Array:
        """Return ``(B, A, n)`` values of sweeps in which no arm differs, the baseline first."""
        shape = (num_sweeps, self.num_arms + 1, self.num_seeds)
        if self.kind == "t5":
            return rng.standard_t(5, shape) / math.sqrt(5 / 3)
        values = rng.standard_normal(shape) * self.sds[:, None]
        if self.kind in ("seeds .6", "missing"):
            shared = rng.standard_normal((num_sweeps, 1, self.num_seeds))
            values = math.sqrt(0.4) * values + math.sqrt(0.6) * shared
        return values

    def draw_cells(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return ``(A, n)`` which cells are there; each arm shares two seeds with the baseline."""
        shape = (self.num_arms + 1, self.num_seeds)
        if self.kind != "missing":
            return np.ones(shape, dtype=bool)
        while True:
            cells = rng.random(shape) >= 0.1
            if (cells & cells[:1]).sum(axis=1).min() >= 2 and not cells.all():
                return cells


def all_settings() -> Iterator[Setting]:
    """Yield them, kind by kind."""
    for kind in KINDS:
        for num_arms in NUM_ARMS:
            for num_seeds in NUM_SEEDS:
                yield Setting(num_arms, num_seeds, kind)
