"""What the training loop asks of a recipe's torch side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from specvit.seeding import torch_stream
from specvit.training.mixing import PatchLabels


@dataclass(frozen=True)
class Batch:
    """Hold what a step learns from. B images of H x W pixels.

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


class Learner(nn.Module, ABC):
    """Train a backbone. What requires gradients is optimized; the rest (a teacher) is the learner's own."""

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

    def forget(self) -> None:
        """Let go of what a pass that was broken off has left: its graph holds memory."""
        forget = getattr(self.regulariser, "forget", None)
        if callable(forget):
            forget()

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
