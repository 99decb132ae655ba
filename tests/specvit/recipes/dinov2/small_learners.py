"""DINOv2's learner of a small backbone, and a batch for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from specvit.data import Dataset, Split
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.training.learner import Batch

SCALE = Scale(width=16, depth=2, num_heads=2)
B, P = 6, 16
BLANK = Split(images=np.zeros((1, 3, 16, 16), dtype=np.uint8))
DATASET = Dataset(train=BLANK, val=BLANK, class_names=(), mask_names=(), fingerprint="")


def make_learner(text: str = "none", **changes: Any) -> DinoV2Learner:
    small = {"num_locals": 2, "local_size": 8, "head_hidden": 12, "head_bottleneck": 6, "num_prototypes": 10}
    published = {
        "global_size": None,
        "student_temp": 0.1,
        "teacher_temp": 0.07,
        "teacher_temp_start": 0.04,
        "centering": "sinkhorn",
    }
    recipe = DinoV2Cpu(**{**small, **published, **changes})
    backbone = build_vit(
        VitConfig(
            SCALE,
            image_size=16,
            patch_size=4,
            specialization=text,
            drop_path=recipe.drop_path,
            drop_path_uniform=recipe.drop_path_uniform,
            drop_path_subset=recipe.drops_subsets(),
        )
    )
    learner = build_learner(recipe, backbone, DATASET, seed=0)
    assert isinstance(learner, DinoV2Learner)
    return learner


def make_batch(*, step: int = 3, num: int = B) -> Batch:
    images = torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(images=images, labels=None, step=step, steps=10, seed=0)


def values_of(module: torch.nn.Module) -> list[Tensor]:
    return list(module.parameters())
