"""What of a metric's noise the probes make: one trained backbone, other images and other seeds of the probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specvit.config import TrialConfig
from specvit.data import Split
from specvit.data.sources.scenes import Scenes
from specvit.probes import Probe, ProbeSplit
from specvit.probes.features import backbone_features, subset
from specvit.seeding import derive_seed, numpy_stream

from .records import PROBE_NOISE, append
from .settings import Setting
from .training import CPU, load, train

NUM_DRAWS = 4
"""Disjoint draws of as many training images as the setting has."""
NUM_BLOCKS = 4
"""Disjoint blocks of as many reported images as the setting has."""
NUM_PROBE_SEEDS = 5
"""Seeds of the probe, which decide the held-out tenth and what a protocol draws."""


@dataclass(frozen=True)
class ProbeTask:
    """The probe noise of a setting, from the baseline of its first seed."""

    setting: Setting


def is_measurable(setting: Setting) -> bool:
    """Return whether there are more images of the same kind: scenes, whose image i is the same in any number."""
    return isinstance(setting.baseline.data, Scenes) and all(probe.data is None for probe in setting.baseline.probes)


def run_probe_task(task: ProbeTask, folder: Path, commit: str) -> dict[str, Any]:
    """Train one backbone, probe it on every draw and block and with every seed, and append the numbers to the file."""
    config = task.setting.baseline
    source = config.data
    learner = train(config, load(source))
    larger = replace(source, num_train=NUM_DRAWS * source.num_train, num_val=NUM_BLOCKS * source.num_val).load()
    num_classes = larger.num_classes

    def features(split: Split) -> ProbeSplit:
        num_blocks = max(probe.num_blocks for probe in config.probes)
        return backbone_features(learner.eval_backbone, split, device=CPU, num_blocks=num_blocks)

    def score(train_part: ProbeSplit, val_part: ProbeSplit, seed: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for probe in config.probes:
            rows = _drawn(config, probe, train_part)
            metrics |= probe.evaluate(
                rows, val_part, num_classes=num_classes[probe.needs], seed=derive_seed(seed, "probe", probe.name)
            )
        return metrics

    blocks = [features(part) for part in _parts(larger.val, source.num_val)]
    tables: dict[str, list[list[float]]] = {}
    by_seed: dict[str, list[float]] = {}
    for number, part in enumerate(_parts(larger.train, source.num_train)):
        drawn = features(part)
        for block in blocks:
            for metric, value in score(drawn, block, config.seed).items():
                rows = tables.setdefault(metric, [])
                if len(rows) == number:
                    rows.append([])
                rows[number].append(value)
        if number == 0:
            for seed in range(config.seed, config.seed + NUM_PROBE_SEEDS):
                for metric, value in score(drawn, blocks[0], seed).items():
                    by_seed.setdefault(metric, []).append(value)
    record = {
        "setting": task.setting.name,
        "digest": task.setting.digest,
        "seed": config.seed,
        "tables": tables,
        "by_probe_seed": by_seed,
        "commit": commit,
    }
    append(folder / PROBE_NOISE, record)
    return record


def _parts(split: Split, size: int) -> list[Split]:
    return [subset(split, np.arange(start, start + size)) for start in range(0, len(split), size)]


def _drawn(config: TrialConfig, probe: Probe, part: ProbeSplit) -> ProbeSplit:
    """Return the images that a probe with a limit is fitted on."""
    if probe.num_train is None or probe.num_train >= len(part):
        return part
    order = numpy_stream(config.seed, "probe images").permutation(len(part))
    return part.subset(torch.from_numpy(order[: probe.num_train]))
