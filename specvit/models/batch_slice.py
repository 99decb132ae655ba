"""A part of a batch, and random draws that do not show how the batch was cut.

A batch is cut where memory does not hold it (micro-batches), and where several processes share it. Whatever draws image
by image draws for the whole batch then, and uses what falls to the part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchSlice:
    """The images of a batch that are computed together.

    Attributes:
        start: The first image.
        stop: The image after the last.
        batch_size: Images of the whole batch.
        seed: Of the global generator at the start of the step.
    """

    start: int
    stop: int
    batch_size: int
    seed: int

    @property
    def size(self) -> int:
        """Return the number of images."""
        return self.stop - self.start

    @property
    def fraction(self) -> float:
        """Return the share of the batch, in (0, 1]."""
        return self.size / self.batch_size

    @property
    def is_whole(self) -> bool:
        """Return whether this is the whole batch."""
        return self.size == self.batch_size

    def of(self, rows: Tensor) -> Tensor:
        """Return the part's rows out of V views of the batch, view by view: ``(V B, ...)`` -> ``(V b, ...)``."""
        if self.is_whole:
            return rows
        by_view = rows.reshape(-1, self.batch_size, *rows.shape[1:])
        return by_view[:, self.start : self.stop].flatten(0, 1)

    def count_rows(self, num_rows: int) -> int:
        """Return how many rows the whole batch has where the part has ``num_rows``: V b -> V B."""
        return num_rows // self.size * self.batch_size

    def places(self, rows: Tensor) -> Tensor:
        """Find rows of the batch among those of the part.

        Args:
            rows: ``(S,)`` int64 numbers of rows, out of V B.

        Returns:
            ``(s,)`` int64 numbers out of V b, of those rows that are the part's, in their order.
        """
        views, images = rows // self.batch_size, rows % self.batch_size
        own = (images >= self.start) & (images < self.stop)
        return (views * self.size + images - self.start)[own]


_SLICE: ContextVar[BatchSlice | None] = ContextVar("slice", default=None)


def current_slice() -> BatchSlice | None:
    """Return the part whose pass is under way, for layers that draw image by image; None = the whole batch."""
    return _SLICE.get()


@contextmanager
def sampling_as_whole_batch(part: BatchSlice) -> Iterator[None]:
    """Let a pass over a part draw as a pass over the whole batch does.

    The global generator starts as at the start of the step, and stochastic depth draws for every image of the batch and
    uses the part's. Nothing is changed for a part that is the whole batch.
    """
    if part.is_whole:
        yield
        return
    torch.manual_seed(part.seed)
    token = _SLICE.set(part)
    try:
        yield
    finally:
        _SLICE.reset(token)
