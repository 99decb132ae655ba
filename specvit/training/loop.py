"""The pretraining loop: the same for every recipe."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from specvit.data import Split
from specvit.device import Device
from specvit.errors import DataError, DivergenceError
from specvit.seeding import numpy_stream
from specvit.training import collectives
from specvit.training.checkpoint import Checkpoint, SavedStep, load_state, read_state
from specvit.training.learner import Batch, Learner
from specvit.training.loading import batch_loader
from specvit.training.optimizer import AS_SHARED, OwnFactors, build_optimizer, cosine, set_schedules, warmup_cosine
from specvit.training.recipe import Recipe
from specvit.training.state_writer import state_writer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """A finished step: its number from 1, its loss and the weighted terms that make it, the images per second so far.

    ``seconds`` is what the step itself took, with the fetching of its images.
    The images per second are those since this process began; 0 where it has continued and done no step yet. The terms
    are scalars on the device; where several processes train, there are none.
    """

    step: int
    loss: float
    images_per_s: float
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def batches(
    num_images: int,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    copies: int = 1,
    among: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Yield the image indices of each step without end, from step ``start`` on.

    Epochs are shuffled one after the other and cut into batches; a batch may span two epochs, so that every
    batch is full and every image is seen equally often. With ``copies`` every image of the order comes that
    often in a row (repeated augmentation), so a batch has ``batch_size / copies`` different images; where that
    is no whole number, the copies of the image at its end continue in the next batch. With ``among``, ``(M,)`` of the
    indices, there are no others.
    """
    num_images = num_images if among is None else len(among)
    orders: dict[int, NDArray[np.int64]] = {}
    step = start
    while True:
        positions = np.arange(step * batch_size, (step + 1) * batch_size) // copies
        epochs, offsets = np.divmod(positions, num_images)
        wanted = set(epochs.tolist())
        orders = {epoch: order for epoch, order in orders.items() if epoch in wanted}
        for epoch in wanted - orders.keys():
            orders[epoch] = numpy_stream(seed, "order", epoch).permutation(num_images)
        drawn = np.fromiter((orders[e][o] for e, o in zip(epochs, offsets, strict=True)), np.int64, batch_size)
        yield drawn if among is None else among[drawn]
        step += 1


def pretrain(
    learner: Learner,
    recipe: Recipe,
    split: Split,
    *,
    seed: int,
    device: Device,
    after_step: Callable[[StepReport], bool],
    images: NDArray[np.int64] | None = None,
    own: OwnFactors = AS_SHARED,
    checkpoint: Checkpoint | None = None,
    continued: Callable[[StepReport], None] = lambda _: None,
) -> StepReport:
    """Train a learner, in place.

    With a checkpoint, the run resumes from the state that is found there: it ends with the numbers of a run that was
    never stopped, bit for bit on one machine. A state that cannot be used is reported in the log, and the run starts
    over. The state is copied after ``after_step``, so a step that was reported is reported again only by a run that
    resumes from before it. A thread writes it (``state_writer``); however the run ends, by then it is written.

    Args:
        learner: What is trained.
        recipe: Its length, batch, optimizer and schedules.
        split: Images to train on, with the targets that the recipe needs.
        seed: Seed of the order of the images and of everything drawn on the way.
        device: Where to train.
        after_step: Called after each step, in the main process; a true answer ends the run there.
        images: ``(M,)`` which images of the split to train on; None = all.
        own: Factors on the rates of own weights.
        checkpoint: Where to save the state now and then, and to continue from; None = nowhere.
        continued: Called once, before any step, if the run resumes from a saved state, in the main process.

    Returns:
        The report of the last step that was done.

    Raises:
        DivergenceError: If the loss is no longer a finite number.
        DataError: If a class of a target is out of range.
        ConfigError: If the batch cannot be shared out among the processes, or cut as the recipe says.
    """
    learner.to(device.torch_device).train()
    depth = len(learner.eval_backbone.blocks)
    optimizer = build_optimizer(learner, recipe, depth=depth, device=device, own=own)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    collectives.copy_from_main([*learner.parameters(), *learner.buffers()])
    learner.micro_batch = recipe.micro_batch
    report = StepReport(step=0, loss=math.nan, images_per_s=0.0)
    saved_step = None if checkpoint is None else _load(checkpoint, learner, optimizer)
    if saved_step is not None:
        report = StepReport(step=saved_step.step, loss=saved_step.loss, images_per_s=0.0)
        learner.micro_batch = min(recipe.micro_batch or recipe.batch_size, saved_step.micro_batch)
        if collectives.is_main():
            continued(report)
    start = report.step
    order = batches(
        len(split), batch_size=recipe.batch_size, seed=seed, start=start, copies=recipe.copies(), among=images
    )
    started = time.monotonic()
    with (
        state_writer(checkpoint, learner, optimizer, device=device) as states,
        batch_loader(learner, split, recipe, seed=seed, device=device) as loader,
    ):
        following = next(order)
        for step in range(start, recipe.steps):
            began = time.monotonic()
            rows, following = following, next(order)
            batch = loader.load(step, rows)
            if step + 1 < recipe.steps:
                loader.prepare(step + 1, following)
            loss = train_step(learner, recipe, batch, optimizer=optimizer, trainable=trainable, device=device)
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss is {loss} at step {step + 1} of {recipe.steps}")
            now = time.monotonic()
            images_per_s = (step + 1 - start) * recipe.batch_size / (now - started)
            report = StepReport(step + 1, loss, images_per_s, learner.last_terms, seconds=now - began)
            stopped = collectives.agree(collectives.is_main() and after_step(report))
            if states is not None and (
                states.checkpoint.at_stop()
                if stopped
                # At the end too: whatever fails after the training, that need not be done again.
                else states.is_due(step + 1) or step + 1 == recipe.steps
            ):
                states.save(SavedStep(step + 1, loss, learner.micro_batch or recipe.batch_size))
            if stopped:
                break
    return report


def train_step(
    learner: Learner,
    recipe: Recipe,
    batch: Batch,
    *,
    optimizer: torch.optim.Optimizer,
    trainable: list[nn.Parameter],
    device: Device,
) -> float:
    """Do one optimizer step and return its loss."""
    progress = batch.progress
    # The first step already learns: the warm-up counts the step that is being done.
    lr = warmup_cosine(
        (batch.step + 1) / batch.steps, peak=recipe.peak_lr, end=recipe.min_lr, warmup=recipe.warmup
    )
    weight_decay = cosine(progress, recipe.weight_decay, recipe.weight_decay_end)
    set_schedules(optimizer, lr=lr, weight_decay=weight_decay)
    loss = learner.compute_gradients(batch, parameters=trainable, device=device)
    learner.before_update(progress)
    if recipe.clip_norm > 0:
        for group in learner.clip_groups(trainable):
            nn.utils.clip_grad_norm_(group, recipe.clip_norm)
    optimizer.step()
    learner.after_step((batch.step + 1) / batch.steps)
    return loss


def _load(checkpoint: Checkpoint, learner: Learner, optimizer: torch.optim.Optimizer) -> SavedStep | None:
    """Load the state that the main process finds, in all processes or in none; return where it stands, or None."""
    try:
        data = collectives.bytes_from_main(_read(checkpoint) if collectives.is_main() else b"")
        return load_state(data, checkpoint, learner, optimizer) if data else None
    except DataError as error:
        _LOG.warning("%s; training begins anew", error)
        return None


def _read(checkpoint: Checkpoint) -> bytes:
    try:
        return read_state(checkpoint.path)
    except DataError as error:
        # Not for the caller to catch: the other processes wait for what this one found.
        _LOG.warning("%s; training begins anew", error)
        return b""
