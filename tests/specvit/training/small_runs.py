"""Runs of the training loop on a few small images, and learners that keep what they are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode
from specvit.recipes import Recipe
from specvit.recipes.build import build_learner
from specvit.recipes.deit3 import learner as deit3
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2 import learner as dinov2
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.training.augment import normalise
from specvit.training.learner import Batch, Learner
from specvit.training.loop import StepReport, pretrain

SCALE = Scale(width=16, depth=2, num_heads=2)
CPU = Device(torch.device("cpu"))
STEPS = 4
SHORT = {"steps": STEPS, "batch_size": 8, "lr": 5e-3}
DINO = DinoV2Cpu(local_size=8, head_hidden=12, head_bottleneck=6, num_prototypes=10, **SHORT)
DEIT = DeiT3Cpu(**SHORT)
RECIPES = pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
TREATED = "norm+qkv"


def make_split(num_images: int = 20) -> Split:
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (num_images, 3, 16, 16), dtype=np.uint8),
        labels=rng.integers(0, 4, num_images),
    )


DATASET = Dataset(train=make_split(), val=make_split(), class_names=tuple("abcd"), mask_names=(), fingerprint="")


def make_learner(recipe: Recipe, text: str = "none", *, seed: int = 0) -> Learner:
    backbone = build_vit(
        VitConfig(
            SCALE,
            image_size=16,
            patch_size=4,
            specialization=text,
            drop_path=recipe.drop_path,
            layer_scale=recipe.layer_scale,
            cls_position=recipe.cls_position,
        ),
        seed=seed,
    )
    return build_learner(recipe, backbone, DATASET, seed=seed)


def run_loop(recipe: Recipe, text: str = "none", *, seed: int = 0) -> tuple[list[float], dict[str, Tensor]]:
    """Return the loss of every step and the final weights."""
    learner = make_learner(recipe, text, seed=seed)
    losses: list[float] = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return False

    pretrain(learner, recipe, DATASET.train, seed=seed, device=CPU, after_step=note)
    return losses, learner.state_dict()


def take(order: Iterator[Any], num_steps: int) -> list[list[int]]:
    return [indices.tolist() for indices in itertools.islice(order, num_steps)]


class Spied:
    """Record every view that is turned into network input, and every mask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[Tensor] = []

        def spy_normalise(images: Tensor) -> Tensor:
            self.inputs.append(images)
            return normalise(images)

        def spy_encode(model: VisionTransformer, images: Tensor, **masking: Any) -> Tensor:
            if masking:
                self.inputs.append(masking["masked"])
            return encode(model, images, **masking)

        monkeypatch.setattr(deit3, "normalise", spy_normalise)
        monkeypatch.setattr(dinov2, "normalise", spy_normalise)
        monkeypatch.setattr(dinov2, "encode", spy_encode)


class Scripted(Learner):
    """A learner of one number whose losses are given."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
        self.number = nn.Parameter(torch.zeros(()))
        self.values = values
        self.batches: list[Batch] = []
        self.calls: list[tuple[str, float]] = []

    @property
    def eval_backbone(self) -> VisionTransformer:
        return self.backbone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.batches.append(batch)
        return {"a": self.number + self.values[batch.step], "b": 0 * self.number}

    def before_update(self, progress: float) -> None:
        self.calls.append(("before_update", progress))

    def after_step(self, progress: float) -> None:
        self.calls.append(("after_step", progress))


def never(_: StepReport) -> bool:
    return False
