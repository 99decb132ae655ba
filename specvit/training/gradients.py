"""The gradients of a step: of a whole batch at once, in micro-batches, or shared among processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specvit.device import Device
from specvit.errors import ConfigError
from specvit.models.batch_slice import sampling_as_whole_batch
from specvit.training import collectives
from specvit.training.learner import Batch, Learner, SlicedLearner

_LOG = logging.getLogger(__name__)

_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What torch says in a plain ``RuntimeError`` where memory runs out, on GPUs and CPUs."""


class MicroBatch:
    """How many images of a batch are computed at once; less from a step on that ran out of memory."""

    def __init__(self, size: int) -> None:
        """Start with ``size`` images, at least 1; a process that has fewer of a batch computes these."""
        self.size = size

    def halve(self) -> None:
        """Go on with half as many images, at least 1."""
        self.size = max(1, self.size // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def compute_gradients(
    learner: Learner,
    batch: Batch,
    *,
    parameters: Sequence[nn.Parameter],
    micro_batch: MicroBatch,
    device: Device,
) -> float:
    """Write a batch's gradients into the parameters, in place of what was there.

    Where memory runs out, the micro-batch is halved, for good, and the step repeated, with the batch as it is. That is
    not done among several processes: the others would wait for the one that starts over.

    Args:
        learner: What is trained; its buffers may change (centres).
        batch: The whole batch, the same in all processes.
        parameters: What is optimized.
        micro_batch: How many images to compute at once.
        device: Where to compute.

    Returns:
        The loss of the whole batch.

    Raises:
        ConfigError: If the batch has to be cut, and the learner's recipe or the number of processes forbids it.
    """
    repeatable = isinstance(learner, SlicedLearner) and collectives.num_processes() == 1
    buffers = [buffer.clone() for buffer in learner.buffers()] if repeatable else []
    while True:
        for parameter in parameters:
            parameter.grad = None
        # Stochastic depth draws from the global generator: seeded per step, its draws depend on the step alone.
        torch.manual_seed(batch.step_seed)
        try:
            return float(_accumulate(learner, batch, parameters=parameters, size=micro_batch.size, device=device))
        except (MemoryError, RuntimeError) as error:
            if min(micro_batch.size, len(batch.images)) == 1 or not (repeatable and is_out_of_memory(error)):
                raise
            micro_batch.size = min(micro_batch.size, len(batch.images))
            micro_batch.halve()
            _LOG.warning("out of memory at step %d: going on with micro_batch %d", batch.step + 1, micro_batch.size)
        # Out of the handler, where the exception no longer holds the failed step's tensors.
        with torch.no_grad():
            for buffer, before in zip(learner.buffers(), buffers, strict=True):
                buffer.copy_(before)
        learner.release_graph()
        for parameter in parameters:
            parameter.grad = None
        if device.is_cuda:
            torch.cuda.empty_cache()


def _accumulate(
    learner: Learner, batch: Batch, *, parameters: Sequence[nn.Parameter], size: int, device: Device
) -> Tensor:
    """Do the forward and backward passes of a batch, in parts of at most ``size`` images; return its loss."""
    num_images = len(batch.images)
    own = collectives.own_slice(num_images)
    if size >= num_images == own.stop - own.start:
        with device.autocast():
            loss = torch.stack(list(learner.losses(batch).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    if not isinstance(learner, SlicedLearner):
        raise ConfigError(
            f"micro_batch must be none, and the process one, with {type(learner).__name__}: its batch cannot be cut"
        )
    parts = batch.slices(own, size=size)
    with device.autocast(), torch.no_grad():
        views = learner.draw(batch)
        targets = learner.targets(views, parts)
    total = torch.zeros((), device=batch.images.device, dtype=torch.float64)
    for part, of_part in zip(parts, targets, strict=True):
        with device.autocast(), sampling_as_whole_batch(part):
            terms = learner.slice_losses(views, part, of_part)
            loss = part.fraction * torch.stack(list(terms.values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    collectives.add_gradients(parameters)
    return collectives.total(total)
