"""Short runs of every recipe, with what couples the images of a batch switched on, for tests of the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from specvit.comparators import Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.models.config import VitConfig, parse_high_norm
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes import Recipe
from specvit.recipes.build import build_learner
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.recipes.mae.settings import MaeCpu
from specvit.training.learner import Batch, Learner
from specvit.training.loop import StepReport, pretrain
from specvit.training.measuring import LossMeasurement


class Bfloat16Cpu(Device):
    """A CPU that computes as a GPU does, in bfloat16 where autocast narrows: it finds errors of types without a GPU."""

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16)


CPU = Device(torch.device("cpu"))
BFLOAT16_CPU = Bfloat16Cpu(torch.device("cpu"))
LOSS_TOLERANCE = 2**-6
"""Relative, of a loss under autocast to that in float32: four roundings.

bfloat16 holds 8 bits, so that a number is rounded by up to 2^-8 of itself, the spacing at its lower end being 2^-7.
What a loss is made of is rounded in every layer, but independently, and a loss is a mean over many rows.
"""
SCALE = Scale(width=16, depth=2, num_heads=2)
NUM_IMAGES = 20
BATCH_SIZE = 8
STEPS = 5
SHORT: dict[str, Any] = {"steps": STEPS, "batch_size": BATCH_SIZE, "lr": 2e-3, "drop_path": 0.3}
DINO: dict[str, Any] = {"local_size": 8, "head_hidden": 12, "head_bottleneck": 6, "num_prototypes": 10, **SHORT}


@dataclasses.dataclass(frozen=True)
class Case:
    """Hold what a short run trains."""

    recipe: Recipe
    components: str = "none"
    comparator: Comparator | None = None
    high_norm: str = "vanilla"


CASES = {
    "dinov2 centre": Case(DinoV2Cpu(centering="softmax", freeze_prototypes=0.5, **DINO), "norm@all"),
    "dinov2 sinkhorn": Case(DinoV2Cpu(centering="sinkhorn", shared_head=False, **DINO), "qkv(lora:2)@all"),
    "dinov2 diversification": Case(DinoV2Cpu(num_locals=0, **DINO), comparator=PatchDiversification()),
    "dinov2 token pooling": Case(DinoV2Cpu(centering="softmax", **DINO), comparator=TokenPooling()),
    "deit3": Case(DeiT3Cpu(**SHORT), "norm@all"),
    "deit3 lamb dense": Case(DeiT3Cpu(optimizer="lamb", dense_weight=0.5, **SHORT)),
    "deit3 diversification": Case(DeiT3Cpu(repeats=3, **SHORT), comparator=PatchDiversification(mixing_weight=0.5)),
    "deit3 class attention": Case(DeiT3Cpu(**SHORT), comparator=ClassAttention()),
    "mae": Case(MaeCpu(**SHORT), "mlp@all"),
    "mae jumbo": Case(MaeCpu(**SHORT), comparator=Jumbo()),
}

SHARED_CASES = ("dinov2 centre", "dinov2 sinkhorn", "deit3 lamb dense", "deit3 diversification", "mae")
"""Those that several processes train together."""


def make_dataset() -> Dataset:
    """Draw images with labels and masks, of which some have many ignored pixels."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (NUM_IMAGES, 16, 16)).astype(np.uint8)
    masks[::3, :12] = 255
    split = Split(
        images=rng.integers(0, 256, (NUM_IMAGES, 3, 16, 16), dtype=np.uint8),
        labels=rng.integers(0, 4, NUM_IMAGES),
        masks=masks,
    )
    return Dataset(train=split, val=split, class_names=tuple("abcd"), mask_names=tuple("xyz"), fingerprint="")


DATASET = make_dataset()


def make_learner(case: Case) -> Learner:
    """Build what a case trains, as a trial does."""
    config = VitConfig(
        SCALE,
        image_size=16,
        patch_size=4,
        specialization=case.components,
        high_norm=parse_high_norm(case.high_norm),
        layer_scale=case.recipe.layer_scale,
        drop_path=case.recipe.drop_path,
        drop_path_uniform=case.recipe.drop_path_uniform,
        drop_path_subset=case.recipe.drops_subsets(),
    )
    plain = build_vit(config, seed=0)
    backbone = plain if case.comparator is None else case.comparator.build(plain, seed=0)
    learner = build_learner(case.recipe, backbone, DATASET, seed=0)
    if case.comparator is not None:
        learner.regulariser = case.comparator.build_regulariser(backbone, num_classes=4, seed=0)
    return learner


def make_batch(step: int = 0) -> Batch:
    """Make the batch of a step out of the first images."""
    split = DATASET.train
    assert split.labels is not None
    assert split.masks is not None
    return Batch(
        images=torch.from_numpy(split.images[:BATCH_SIZE]).float() / 255,
        labels=torch.from_numpy(split.labels[:BATCH_SIZE]),
        masks=torch.from_numpy(split.masks[:BATCH_SIZE]),
        step=step,
        steps=STEPS,
        seed=0,
    )


def learn(
    case: Case, *, stop_after: int | None = None, device: Device = CPU, **settings: Any
) -> tuple[list[float], dict[str, Tensor]]:
    """Train a case and return the loss of every step that was done, and all parameters and buffers.

    Args:
        case: What to train.
        stop_after: End the run after that step.
        device: Where to train.
        settings: Further arguments of ``pretrain``.
    """
    learner, losses = make_learner(case), []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return report.step == stop_after

    pretrain(learner, case.recipe, DATASET.train, seed=0, device=device, after_step=note, **settings)
    tensors = {**dict(learner.named_parameters()), **dict(learner.named_buffers())}
    return losses, {name: value.detach() for name, value in tensors.items()}


def measure(case: Case, *, step: int = 3, device: Device = CPU) -> dict[str, float]:
    """Measure a case's learner before its first step, as if so many were done."""
    return LossMeasurement(make_learner(case), case.recipe, DATASET.train, seed=0, device=device).measure(step=step)


def with_micro_batch(case: Case, size: int) -> Case:
    """Return a case that computes so many images at once."""
    return dataclasses.replace(case, recipe=dataclasses.replace(case.recipe, micro_batch=size))


def make_trial() -> tuple[TrialConfig, Dataset]:
    """Describe a short trial with two rungs, and load its data."""
    data = Scenes(image_size=16, num_train=64, num_val=32)
    document = {
        "treatment": {"specialize": "norm@all"},
        "model": {"scale": "nano", "patch_size": 4},
        "data": {"source": "scenes", "image_size": 16, "num_train": 64, "num_val": 32},
        "objective": {"recipe": "deit3_cpu", "steps": 6, "batch_size": 8},
        "probes": {"knn": {}},
        "rungs": {"count": 3, "num_images": 32},
        "seed": 0,
    }
    return TypeAdapter(TrialConfig).validate_python(document), data.load()


class Heard:
    """Note what an observer hears, and end the trial after so many rungs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.rungs: list[tuple[int, Mapping[str, float]]] = []
        self.steps: list[int] = []

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:  # noqa: ARG002
        self.steps.append(step)

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        self.rungs.append((step, dict(metrics)))

    def should_stop(self) -> bool:
        return self.stop_after is not None and len(self.rungs) >= self.stop_after
