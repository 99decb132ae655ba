"""Computing a step in parts: slices of the batch whose losses and gradients add up to those of the whole.

A batch is cut where memory does not hold it (micro-batches), and where several processes share it. What a part
computes must not show how the batch was cut. So everything random is drawn for the whole batch: views and masks by
``draw``, stochastic depth by ``sampling_as_whole_batch``; and what couples images (Sinkhorn-Knopp, a centre, nearest
neighbours) is settled between two passes, by ``targets``. Views of the whole batch are held in memory, activations of a
part only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from specvit.seeding import derive_seed
from specvit.training.learner import Batch, Learner

Views = TypeVar("Views")
Targets = TypeVar("Targets")


@dataclass(frozen=True)
class BatchSlice:
    """Hold which images of a batch are computed together.

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
        """Take the part's rows out of V views of the batch, view by view: ``(V B, ...)`` -> ``(V b, ...)``."""
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


class SlicedLearner(Learner, Generic[Views, Targets]):
    """Train a backbone by steps that can be computed in parts."""

    @abstractmethod
    def draw(self, batch: Batch) -> Views:
        """Make what the networks see of the whole batch, everything random included, the same in all processes."""

    @abstractmethod
    def targets(self, views: Views, parts: Sequence[BatchSlice]) -> Sequence[Targets]:
        """Compute, without gradients, what the parts' losses need to know of the whole batch.

        Args:
            views: What ``draw`` made.
            parts: This process's parts. What couples images is computed over those of all processes.

        Returns:
            One value a part.
        """

    @abstractmethod
    def slice_losses(self, views: Views, part: BatchSlice, targets: Targets) -> dict[str, Tensor]:
        """Return the weighted terms of a part, by name; averaged over parts by their sizes they are the batch's."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of a batch in one part."""
        views = self.draw(batch)
        (part,) = slice_batch(batch, slice(0, len(batch.images)), size=len(batch.images))
        (targets,) = self.targets(views, [part])
        return self.slice_losses(views, part, targets)


def slice_batch(batch: Batch, images: slice, *, size: int) -> list[BatchSlice]:
    """Cut some images of a batch into parts of ``size``, the last of which may be smaller."""
    seed, batch_size = step_seed(batch), len(batch.images)
    return [
        BatchSlice(start, min(start + size, images.stop), batch_size, seed)
        for start in range(images.start, images.stop, size)
    ]


def step_seed(batch: Batch) -> int:
    """Return the seed of the global generator at the start of a batch's step."""
    return derive_seed(batch.seed, "step", batch.step)


_PART: ContextVar[BatchSlice | None] = ContextVar("part", default=None)


def current_slice() -> BatchSlice | None:
    """Return the part whose pass is under way, for layers that draw image by image; None = the whole batch."""
    return _PART.get()


@contextmanager
def sampling_as_whole_batch(part: BatchSlice, module: nn.Module) -> Iterator[None]:
    """Let a pass over a part draw as a pass over the whole batch does.

    The global generator starts as at the start of the step, and the stochastic depth of ``module`` draws for every
    image of the batch and uses the part's. Nothing is changed for a part that is the whole batch.
    """
    if part.is_whole:
        yield
        return
    torch.manual_seed(part.seed)
    layers = [layer for layer in module.modules() if isinstance(layer, DropPath)]
    for layer in layers:
        vars(layer)["forward"] = partial(_drop_paths, layer)
    token = _PART.set(part)
    try:
        yield
    finally:
        _PART.reset(token)
        for layer in layers:
            del vars(layer)["forward"]


def _drop_paths(layer: DropPath, x: Tensor) -> Tensor:
    """Do timm's ``DropPath``, with the draws of all images: ``(V b, ...)`` -> the same shape."""
    part = current_slice()
    if part is None or layer.drop_prob == 0 or not layer.training:
        return x
    shape = (part.count_rows(len(x)), *(1,) * (x.ndim - 1))
    kept = part.of(x.new_empty(shape).bernoulli_(1 - layer.drop_prob))
    if layer.drop_prob < 1 and layer.scale_by_keep:
        kept = kept / (1 - layer.drop_prob)
    return x * kept
