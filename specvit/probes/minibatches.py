"""In what order probes that are trained step by step see images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def num_steps(num_images: int, *, batch_size: int, epochs: int) -> int:
    """Return how many full batches there are in so many epochs, end to end."""
    return epochs * num_images // min(batch_size, num_images)


def minibatches(num_images: int, *, steps: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of images, epoch by epoch in a new order; a batch may span two epochs.

    Args:
        num_images: N, 1 or more.
        steps: Number of batches.
        batch_size: Images of a batch; all of them if there are fewer.
        seed: Decides the order, which is the same for every arm; the global generators are left alone.

    Yields:
        ``(min(batch_size, N),)`` int64 indices in [0, N).
    """
    import torch

    from specvit.seeding import torch_stream

    batch_size = min(batch_size, num_images)
    order, epoch = torch.empty(0, dtype=torch.int64), 0
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(num_images, generator=torch_stream(seed, "batches", epoch))])
            epoch += 1
        yield order[:batch_size]
        order = order[batch_size:]
