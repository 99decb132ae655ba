"""What the training loop asks of a recipe's torch side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from specvit.models.batch_slice import BatchSlice
from specvit.seeding import derive_seed, torch_stream
from specvit.training.mixing import PatchLabels

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
    """

    images: Tensor
    labels: Tensor | None
    step: int
    steps: int
    seed: int
    masks: Tensor | None = None

    @property
    def progress(self) -> float:
        """Return how far the run is, in [0, 1)."""
        return self.step / self.steps

    def stream(self, name: str) -> Generator:
        """Return this step's random stream of that name, the same for all arms of a pair."""
        return torch_stream(self.seed, name, self.step)

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

    def __init__(self) -> None:
        super().__init__()
        self.regulariser = None
        self.target_classes = {}

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
    (Sinkhorn-Knopp, a centre, nearest neighbours) is settled between two passes, by ``targets``. Views of the whole
    batch are held in memory, activations of a part only.
    """

    @abstractmethod
    def draw(self, batch: Batch) -> Views:
        """Draw what the networks see of the whole batch, everything random included, the same in all processes."""

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
        (part,) = batch.slices(slice(0, len(batch.images)), size=len(batch.images))
        (targets,) = self.targets(views, [part])
        return self.slice_losses(views, part, targets)
