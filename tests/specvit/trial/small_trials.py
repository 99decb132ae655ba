"""Trials on a few small scenes, and what an observer hears of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter

from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.probes import PROBES
from specvit.trial import TrialResult, run_trial

CPU = Device(torch.device("cpu"))
STEPS = 6
BATCH_SIZE = 8
DATA = Scenes(image_size=16, num_train=64, num_val=32)
CHEAP: Mapping[str, Any] = {"knn": {}, "segmentation": {}}
"""Those that run at rungs."""
ALL: Mapping[str, Any] = {name: {} for name in PROBES} | {
    "detection": {"steps": 2, "batch_size": 8, "width": 4},
    "attentive": {"lrs": [0.1, 0.01], "weight_decays": [1e-3], "epochs": 2},
    "linear": {"cs": [0.1, 1.0]},
}
LEARNT: Mapping[str, set[str]] = {
    "dinov2_cpu": {
        *("dino_loss", "dino_loss_trivial", "ibot_loss", "ibot_loss_trivial", "koleo_loss"),
        *("teacher_entropy", "teacher_spread", "teacher_agreement"),
    },
    "deit3_cpu": {"bce_loss", "bce_loss_trivial"},
    "mae_cpu": {"pixels_loss", "pixels_loss_trivial"},
}
"""What a recipe records of what was learnt."""
RECIPES = tuple(LEARNT)
ALL_METRICS = {metric.name for probe in PROBES.values() for metric in probe.metrics}


def make_config(
    recipe: str = "deit3_cpu", *, treatment: Mapping[str, Any] | None = None, **changes: Any
) -> TrialConfig:
    objective: dict[str, Any] = {"recipe": recipe, "steps": STEPS, "batch_size": BATCH_SIZE}
    if recipe == "dinov2_cpu":
        objective |= {"local_size": 8, "num_prototypes": 16, "head_hidden": 16, "head_bottleneck": 8}
    document = {
        "treatment": treatment or {},
        "model": {"scale": "nano", "patch_size": 4},
        "data": {"source": "scenes", "image_size": 16, "num_train": 64, "num_val": 32},
        "objective": objective,
        "probes": CHEAP,
        "rungs": {"count": 2, "num_images": 32},
        "seed": 0,
        **changes,
    }
    return TypeAdapter(TrialConfig).validate_python(document)


class Watching:
    """Record what an observer hears; order to stop after a step."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.steps: list[tuple[int, int]] = []
        self.rungs: dict[int, dict[str, float]] = {}
        self.num_asked = 0

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        assert images_per_s >= 0
        self.steps.append((step, steps))

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        self.rungs[step] = dict(metrics)

    def should_stop(self) -> bool:
        self.num_asked += 1
        return self.stop_after is not None and self.num_asked >= self.stop_after


def run_watched(config: TrialConfig, dataset: Dataset, **watching: Any) -> tuple[TrialResult, Watching]:
    observer = Watching(**watching)
    return run_trial(config, dataset, observer, device=CPU), observer
