"""What the training loop asks of a recipe's torch side; and gradients, of a whole batch at once or in parts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from specvit.device import Device, full_precision, is_out_of_memory
from specvit.errors import ConfigError
from specvit.models.batch_slice import BatchSlice, sampling_as_whole_batch
from specvit.seeding import derive_seed, torch_stream
from specvit.training import collectives
from specvit.training.crops import Crop, HeldRows
from specvit.training.learnt import LOSS_SUFFIX, TRIVIAL_SUFFIX
from specvit.training.mixing import PatchLabels

_LOG = logging.getLogger(__name__)

Views = TypeVar("Views")
Targets = TypeVar("Targets")


@dataclass(frozen=True)
class Batch:
    """What a step learns from: B images of H x W pixels.

    Attributes:
        images: ``(B, 3, H, W)`` float32 in [0, 1], on the device.
        labels: ``(B,)`` int64 on the device, or None.
        step: Number of the optimizer step, from 0.
        steps: Number of steps of the run.
        seed: The trial's seed, from which the step's random streams come.
        masks: ``(B, H, W)`` uint8 class indices, 255 = ignore, on the device; None where the recipe needs none.
        measured_at: How far the run is, in [0, 1), for a batch that is no step's, only measured; None for a step's.
        crops: ``(B, 3, S, S)`` uint8 on the device by name, what the learner's ``crops`` say, before flips and colours.
            Where there are any, ``images`` has no pixels, H = W = 0. Empty where crops are to be cut of ``images``.
        held: Which images ``crops`` has, where several processes share the batch; None = all.
    """

    images: Tensor
    labels: Tensor | None
    step: int
    steps: int
    seed: int
    masks: Tensor | None = None
    measured_at: float | None = None
    crops: Mapping[str, Tensor] = field(default_factory=dict)
    held: HeldRows | None = None

    @property
    def progress(self) -> float:
        """Return how far the run is, in [0, 1)."""
        return self.step / self.steps if self.measured_at is None else self.measured_at

    def stream(self, name: str) -> Generator:
        """Return this step's random stream of that name, the same for all arms of a pair."""
        return torch_stream(self.seed, name, self.step)

    def whole(self, x: Tensor) -> Tensor:
        """Return ``(B, ...)`` of the images that are held, the others 0: no part of this process looks at these."""
        return x if self.held is None else self.held.whole(x)

    @property
    def step_seed(self) -> int:
        """Return the seed of the global generator at the start of this step."""
        return derive_seed(self.seed, "step", self.step)

    def slices(self, images: slice, *, size: int) -> list[BatchSlice]:
        """Cut the batch, or a process's share of it.

        Args:
            images: Which images are cut.
            size: Images a part at most, at least 1.
        """
        return [
            BatchSlice(start, min(start + size, images.stop), batch_size=len(self.images), seed=self.step_seed)
            for start in range(images.start, images.stop, size)
        ]


class Learner(nn.Module, ABC):
    """What trains a backbone. What requires gradients is optimized; the rest (a teacher) is the learner's own."""

    regulariser: nn.Module | None
    """Makes further terms of the patches that the trained backbone has just computed; trained along. None = none."""
    target_classes: Mapping[str, int]
    """Number of classes of each target that the learner uses as an index, ``labels`` or ``masks``."""
    micro_batch: int | None
    """Images that are computed at once, at most; fewer from a step on that ran out of memory. None = all."""
    last_terms: Mapping[str, Tensor]
    """Weighted terms of the last step's loss, by name; empty before it, and where several processes share a batch."""
    crops: Sequence[Crop]
    """What ``random_crops`` cuts of every image: so encoded images are cut at their own resolution. Empty where squares
    of ``data.image_size`` are looked at, to which encoded images are decoded then."""
    mixes_mirror: bool
    """Whether an image is mixed with its mirror in the batch, so that who learns from it needs the mirror's pixels."""
    term_weights: Mapping[str, float]
    """Weights that ``losses`` has put on its terms, by name, where they are not 1; terms are recorded without them."""

    def __init__(self) -> None:
        super().__init__()
        self.regulariser = None
        self.target_classes = {}
        self.micro_batch = None
        self.last_terms = {}
        self.term_weights = {}
        self.crops = ()
        self.mixes_mirror = False

    def extra_losses(self, patches: Tensor, labels: PatchLabels | None = None) -> dict[str, Tensor]:
        """Return the regulariser's terms, to be asked for right after the backbone has computed ``patches``.

        Args:
            patches: ``(B, P, D)`` after the final norm.
            labels: The patches' classes, where the recipe knows them.
        """
        if self.regulariser is None:
            return {}
        terms: dict[str, Tensor] = self.regulariser(patches, labels)
        return terms

    def release_graph(self) -> None:
        """Release what a pass that was broken off has left: its graph holds memory."""
        release_graph = getattr(self.regulariser, "release_graph", None)
        if callable(release_graph):
            release_graph()

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, by name; the loss is their sum."""

    def measure(self, batch: Batch, *, size: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Compute what is recorded of a batch beside the loss, as ``specvit.training.measuring`` asks for it.

        Args:
            batch: A whole batch, that no step learns from.
            size: Images that may be computed at once; of no use here, where batches are not cut.

        Returns:
            Every term as ``NAME_loss``, without its weight, and what else is to be averaged over batches: scalars are
            recorded, but for those whose name begins with ``_``; they, and tensors, serve ``trivial_losses``.
        """
        return self.unweighted(self.losses(batch))

    def unweighted(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weighted terms as ``NAME_loss`` without their weights; those of weight 0 are left out."""
        weights = {**self.term_weights, **getattr(self.regulariser, "term_weights", {})}
        return {
            f"{name}{LOSS_SUFFIX}": term / weights.get(name, 1.0)
            for name, term in terms.items()
            if weights.get(name, 1.0) != 0
        }

    def trivial_losses(self, averages: Mapping[str, Tensor]) -> dict[str, float]:  # noqa: ARG002
        """Return what terms are where nothing was learnt of the images: for the recipes to define, here none.

        Args:
            averages: Averages over batches of what ``measure`` computed.

        Returns:
            By name of the term, its value, without its weight, for the best output that is the same for all images.
            A term without such a value, a regulariser for example, is left out, and never counts as not learnt.
        """
        return {}

    def summarise(self, averages: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the metrics that are recorded: the scalars of ``averages``, and each term's trivial value.

        Args:
            averages: Averages over batches of what ``measure`` computed.
        """
        metrics = {name: float(x) for name, x in averages.items() if x.ndim == 0 and not name.startswith("_")}
        for name, value in self.trivial_losses(averages).items():
            if f"{name}{LOSS_SUFFIX}" in metrics:
                metrics[f"{name}{TRIVIAL_SUFFIX}"] = value
        return metrics

    def compute_gradients(self, batch: Batch, *, parameters: Sequence[nn.Parameter], device: Device) -> float:
        """Write a batch's gradients into the parameters, in place of what was there.

        Args:
            batch: The whole batch, the same in all processes.
            parameters: What is optimized.
            device: Where to compute.

        Returns:
            The loss of the whole batch.

        Raises:
            ConfigError: If the batch has to be cut, and the learner or the number of processes forbids it.
        """
        for parameter in parameters:
            parameter.grad = None
        # Stochastic depth draws from the global generator: seeded per step, its draws depend on the step alone.
        torch.manual_seed(batch.step_seed)
        return float(self._accumulate(batch, parameters, device))

    def _accumulate(self, batch: Batch, parameters: Sequence[nn.Parameter], device: Device) -> Tensor:  # noqa: ARG002
        """Do the forward and backward pass of a whole batch and return its loss."""
        if collectives.num_processes() > 1 or (self.micro_batch or len(batch.images)) < len(batch.images):
            raise ConfigError(
                f"micro_batch must be none, and the process one, with {type(self).__name__}: its batch cannot be cut"
            )
        with device.autocast():
            terms = self.losses(batch)
            loss = torch.stack(list(terms.values())).sum()
        self.last_terms = {name: term.detach() for name, term in terms.items()}
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def clip_groups(self, trainable: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Part what is optimized into groups, each clipped by the norm of its own gradient; here one group."""
        return [trainable]

    def backbones(self) -> dict[str, VisionTransformer]:
        """Return the backbones that are worth keeping at the end, by name."""
        return {"backbone": self.eval_backbone}

    def after_step(self, progress: float) -> None:
        """Do what follows an optimizer step, e.g. move the teacher; ``progress`` in (0, 1]."""

    def before_update(self, progress: float) -> None:
        """Change the gradients before the optimizer uses them, e.g. freeze a layer; ``progress`` in [0, 1)."""

    @property
    @abstractmethod
    def eval_backbone(self) -> VisionTransformer:
        """Return the backbone whose features the probes look at."""


class SlicedLearner(Learner, Generic[Views, Targets]):
    """A learner whose steps can be computed in parts, whose losses and gradients add up to those of the whole.

    What a part computes must not show how the batch was cut. So everything random is drawn for the whole batch: views
    and masks by ``draw``, stochastic depth by the layers (``specvit.models.stochastic_depth``); and what couples images
    (Sinkhorn-Knopp, a centre, nearest neighbours) is settled by ``targets``. Views of the whole batch are held in
    memory, activations and targets of a part only.
    """

    @abstractmethod
    def draw(self, batch: Batch) -> Views:
        """Draw what the networks see of the whole batch, everything random included, the same in all processes.

        It is asked for outside of autocast: pixels that are cut, mixed or painted anew keep their precision.
        """

    @abstractmethod
    def targets(self, views: Views, parts: Sequence[BatchSlice]) -> Iterable[Targets]:
        """Compute, without gradients, what the parts' losses need to know of the whole batch.

        Args:
            views: What ``draw`` made.
            parts: This process's parts. What couples images is computed over those of all processes.

        Returns:
            One value a part, in their order. A generator, which computes a value when it is asked for it, is asked for
            the next one after the part before has been learnt from, so that memory need not hold them all.
        """

    @abstractmethod
    def slice_losses(self, views: Views, part: BatchSlice, targets: Targets) -> dict[str, Tensor]:
        """Return the weighted terms of a part, by name; averaged over parts by their sizes they are the batch's."""

    def measure_slice(self, views: Views, part: BatchSlice, targets: Targets) -> dict[str, Tensor]:
        """Compute what ``measure`` returns, of a part; averaged over parts by their sizes it is the batch's."""
        return self.unweighted(self.slice_losses(views, part, targets))

    def measure(self, batch: Batch, *, size: int) -> dict[str, Tensor]:
        """Compute what is recorded of a batch beside the loss, in parts of so many images at most."""
        views, parts = self._drawn(batch), batch.slices(slice(0, len(batch.images)), size=size)
        averages: dict[str, Tensor] = {}
        for part, of_part in zip(parts, self.targets(views, parts), strict=True):
            with sampling_as_whole_batch(part):
                measured = self.measure_slice(views, part, of_part)
            for name, value in measured.items():
                averages[name] = averages.get(name, 0) + part.fraction * value.double()
        return averages

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of a batch in one part."""
        views = self._drawn(batch)
        (part,) = batch.slices(slice(0, len(batch.images)), size=len(batch.images))
        (targets,) = self.targets(views, [part])
        return self.slice_losses(views, part, targets)

    def compute_gradients(self, batch: Batch, *, parameters: Sequence[nn.Parameter], device: Device) -> float:
        """Write a batch's gradients into the parameters, as every learner does, in parts where memory demands it.

        Where memory runs out, the micro-batch is halved, for good, and the step repeated, with the batch as it is. That
        is not done among several processes: the others would wait for the one that starts over.
        """
        repeatable = collectives.num_processes() == 1
        buffers = [buffer.clone() for buffer in self.buffers()] if repeatable else []
        while True:
            try:
                return super().compute_gradients(batch, parameters=parameters, device=device)
            except (MemoryError, RuntimeError) as error:
                size = min(self.micro_batch or len(batch.images), len(batch.images))
                if size == 1 or not (repeatable and is_out_of_memory(error)):
                    raise
                self.micro_batch = size // 2
                _LOG.warning("out of memory at step %d: going on with micro_batch %d", batch.step + 1, self.micro_batch)
            # Out of the handler, where the exception no longer holds the failed step's tensors.
            with torch.no_grad():
                for buffer, before in zip(self.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self.release_graph()
            for parameter in parameters:
                parameter.grad = None
            if device.is_cuda:
                torch.cuda.empty_cache()

    def _drawn(self, batch: Batch) -> Views:
        with full_precision(batch.images):
            return self.draw(batch)

    def _accumulate(self, batch: Batch, parameters: Sequence[nn.Parameter], device: Device) -> Tensor:
        """Do the forward and backward passes of this process's images, in micro-batches; return the batch's loss."""
        num_images = len(batch.images)
        own, size = collectives.own_slice(num_images), self.micro_batch or num_images
        if size >= num_images == own.stop - own.start:
            return super()._accumulate(batch, parameters, device)
        parts = batch.slices(own, size=size)
        with device.autocast(), torch.no_grad():
            views = self._drawn(batch)
            targets = iter(self.targets(views, parts))
        total = torch.zeros((), device=batch.images.device, dtype=torch.float64)
        sums: dict[str, Tensor] = {}
        for part in parts:
            # Not in the context of the student's pass: weights that autocast has cast without gradients are cached.
            with device.autocast(), torch.no_grad():
                of_part = next(targets)
            with device.autocast(), sampling_as_whole_batch(part):
                terms = self.slice_losses(views, part, of_part)
                loss = part.fraction * torch.stack(list(terms.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            sums = {name: sums.get(name, 0) + part.fraction * term.detach().double() for name, term in terms.items()}
        self.last_terms = sums if collectives.num_processes() == 1 else {}
        collectives.add_gradients(parameters)
        return collectives.total(total)
