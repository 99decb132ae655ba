"""The terms of a loss, measured apart from the steps that train: at rungs, and at the end.

The batches are fixed: those that would follow the run's last, with their own streams. So they are the same at every
rung, and for all arms of a seed. Measuring leaves no trace, and training has the numbers that it has without. With
three rungs it takes 1.0 to 1.3% of the CPU time that the CPU presets train, and less of a trial's, which also probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvit.data import Split
from specvit.device import Device
from specvit.training import collectives
from specvit.training.learner import Learner
from specvit.training.loading import batch_loader
from specvit.training.loop import batches
from specvit.training.recipe import Recipe

NUM_BATCHES = 2
"""Batches that are measured. With three rungs and the end they make eight forward passes."""


class LossMeasurement:
    """What a learner records of itself on fixed batches."""

    def __init__(
        self,
        learner: Learner,
        recipe: Recipe,
        split: Split,
        *,
        seed: int,
        device: Device,
        images: NDArray[np.int64] | None = None,
    ) -> None:
        """Choose the images.

        Args:
            learner: What is trained, on ``device`` by the time it is measured.
            recipe: Its batch and length, in steps.
            split: The images that it is trained on.
            seed: The trial's seed.
            device: Where to compute.
            images: ``(M,)`` which of them; None = all.
        """
        self._learner = learner
        self._recipe = recipe
        self._split = split
        self._images = images
        self._seed = seed
        self._device = device

    def measure(self, *, step: int) -> dict[str, float]:
        """Compute the metrics that the learner records, in training mode, without gradients.

        Where several processes train the trial, the one that calls this computes alone, in parts that are no larger
        than its parts of a step.

        Args:
            step: Steps done, from 1; schedules, such as the teacher's temperature, stand where they stood in the last.

        Returns:
            Value by name: see ``Learner.summarise``.

        Raises:
            DataError: If a class of a target is out of range.
        """
        learner, recipe = self._learner, self._recipe
        size = max(1, recipe.batch_size // collectives.num_processes())
        size = min(size, learner.micro_batch or size)
        averages: dict[str, Tensor] = {}
        order = batches(
            len(self._split),
            batch_size=recipe.batch_size,
            seed=self._seed,
            start=recipe.steps,
            copies=recipe.copies(),
            among=self._images,
        )
        with (
            collectives.alone(),
            _leaving_no_trace(learner, self._device),
            batch_loader(learner, self._split, recipe, seed=self._seed, device=self._device) as loader,
        ):
            for number, images in enumerate(islice(order, NUM_BATCHES)):
                batch = loader.load(recipe.steps + number, images, measured_at=(step - 1) / recipe.steps)
                torch.manual_seed(batch.step_seed)  # as a step does
                with torch.no_grad(), self._device.autocast():
                    measured = learner.measure(batch, size=size)
                for name, value in measured.items():
                    averages[name] = averages.get(name, 0) + value.double() / NUM_BATCHES
        return learner.summarise(averages)


@contextmanager
def _leaving_no_trace(learner: Learner, device: Device) -> Iterator[None]:
    """Bring a learner into training mode; afterwards restore modes, buffers and the global generator."""
    modes = [(module, module.training) for module in learner.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.is_cuda else []):
        learner.train()
        try:
            yield
        finally:
            learner.release_graph()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            for module, was_training in modes:
                module.training = was_training
