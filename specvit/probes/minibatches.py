"""In what order probes that are trained step by step see images, and how their learning rate falls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def minibatches(num_images: int, *, batch_size: int, epochs: int, seed: int) -> Iterator[tuple[float, Tensor]]:
    """Yield batches of images, shuffled anew in every epoch; what remains of an epoch is dropped.

    Args:
        num_images: N, 1 or more.
        batch_size: Images of a batch; all of them if there are fewer.
        epochs: How often the images are gone through.
        seed: Decides the order, which is the same for every arm; the global generators are left alone.

    Yields:
        The share of all steps that are done before this one, in [0, 1), and ``(batch_size,)`` int64 indices.
    """
    import torch

    from specvit.seeding import torch_stream

    batch_size = min(batch_size, num_images)
    per_epoch = num_images // batch_size
    for epoch in range(epochs):
        order = torch.randperm(num_images, generator=torch_stream(seed, "minibatches", epoch))
        for number in range(per_epoch):
            yield (
                (epoch * per_epoch + number) / (epochs * per_epoch),
                order[number * batch_size : (number + 1) * batch_size],
            )


def cosine(done: float, *, warmup: float = 0.0) -> float:
    """Return the share of the peak learning rate: a linear rise from 0, then a cosine down to 0.

    Args:
        done: Share of all steps that are done, in [0, 1).
        warmup: Share of all steps that the rise takes, in [0, 1).
    """
    if done < warmup:
        return done / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (1 - warmup))
