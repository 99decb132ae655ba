"""The pretraining loop: the same for every recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from specvit.data import Split
from specvit.device import Device
from specvit.errors import DivergenceError
from specvit.features import to_unit
from specvit.learners.base import Batch, Learner
from specvit.objectives import Recipe
from specvit.optimizer import build_optimizer, set_schedules
from specvit.schedules import cosine, warmup_cosine
from specvit.seeding import derive_seed, numpy_stream


@dataclass(frozen=True)
class StepReport:
    """Hold what a finished step tells: its number from 1, its loss, the images per second so far."""

    step: int
    loss: float
    images_per_s: float


def batches(
    num_images: int, *, batch_size: int, seed: int, start: int = 0, copies: int = 1
) -> Iterator[NDArray[np.int64]]:
    """Yield the image indices of each step without end, from step ``start`` on.

    Epochs are shuffled one after the other and cut into batches; a batch may span two epochs, so that every
    batch is full and every image is seen equally often. With ``copies`` every image of the order comes that
    often in a row (repeated augmentation), so a batch has ``batch_size / copies`` different images; where that
    is no whole number, the copies of the image at its end go on in the next batch.
    """
    orders: dict[int, NDArray[np.int64]] = {}
    step = start
    while True:
        positions = np.arange(step * batch_size, (step + 1) * batch_size) // copies
        epochs, offsets = np.divmod(positions, num_images)
        wanted = set(epochs.tolist())
        orders = {epoch: order for epoch, order in orders.items() if epoch in wanted}
        for epoch in wanted - orders.keys():
            orders[epoch] = numpy_stream(seed, "order", epoch).permutation(num_images)
        yield np.fromiter((orders[e][o] for e, o in zip(epochs, offsets, strict=True)), np.int64, batch_size)
        step += 1


def pretrain(
    learner: Learner,
    recipe: Recipe,
    split: Split,
    *,
    seed: int,
    device: Device,
    after_step: Callable[[StepReport], bool],
) -> StepReport:
    """Train a learner, in place.

    Args:
        learner: What is trained.
        recipe: Its length, batch, optimizer and schedules.
        split: Images to train on, with the targets that the recipe needs.
        seed: Seed of the order of the images and of everything drawn on the way.
        device: Where to train.
        after_step: Called after each step; a true answer ends the run there.

    Returns:
        The report of the last step that was done.

    Raises:
        DivergenceError: If the loss is no longer a finite number.
    """
    learner.to(device.torch_device).train()
    depth = len(learner.probed.blocks)
    optimizer = build_optimizer(learner, recipe, depth=depth, device=device)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    order = batches(len(split), batch_size=recipe.batch_size, seed=seed, copies=recipe.copies())
    masks = split.masks if "masks" in recipe.required_targets() else None
    started = time.monotonic()
    report = StepReport(step=0, loss=math.nan, images_per_s=0.0)
    for step in range(recipe.steps):
        # Stochastic depth draws from the global generator: seeded per step, its draws depend on the step alone.
        torch.manual_seed(derive_seed(seed, "step", step))
        indices = next(order)
        batch = Batch(
            images=to_unit(split.images[indices], device),
            labels=None
            if split.labels is None
            else torch.from_numpy(split.labels[indices]).to(device.torch_device),
            step=step,
            steps=recipe.steps,
            seed=seed,
            masks=None if masks is None else torch.from_numpy(masks[indices]).to(device.torch_device),
        )
        loss = train_step(learner, recipe, batch, optimizer=optimizer, trainable=trainable, device=device)
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss is {loss} at step {step + 1} of {recipe.steps}")
        elapsed = time.monotonic() - started
        report = StepReport(step=step + 1, loss=loss, images_per_s=(step + 1) * recipe.batch_size / elapsed)
        if after_step(report):
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
    with device.autocast():
        loss = torch.stack(list(learner.losses(batch).values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    learner.before_update(progress)
    if recipe.clip_norm > 0:
        for group in learner.clip_groups(trainable):
            nn.utils.clip_grad_norm_(group, recipe.clip_norm)
    optimizer.step()
    learner.after_step((batch.step + 1) / batch.steps)
    return float(loss.detach())
