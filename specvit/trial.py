"""A whole trial: pretrain a backbone, probe it on the way and at the end. Pure torch; no cluster needed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from specvit.config import TrialConfig, default_rung_probes, selected_probes
from specvit.data import Dataset, Split
from specvit.device import Device, select_device
from specvit.diagnostics import diagnose
from specvit.features import backbone_features, normalised, pixel_features, subset
from specvit.high_norm import parse_high_norm
from specvit.pretrain import StepReport, pretrain
from specvit.probes import Probe, ProbeSplit
from specvit.readings import Reading
from specvit.scales import SCALES
from specvit.seeding import derive_seed, numpy_stream
from specvit.specialization import parse_specialization
from specvit.token_rows import own_rows
from specvit.vit import build_vit

PROGRESS_INTERVAL_S = 0.5
"""Least time between two signs of progress."""

RUNG_SCORED_SHARE = 0.25

DIAGNOSED_IMAGES = 256
"""Images of the reported split that a backbone is diagnosed on, the first ones."""


class Observer(Protocol):
    """Hear of a running trial, and say when to stop. No call may block the trial for long."""

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Hear how far the trial is."""

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Hear the metrics of a rung."""

    def should_stop(self) -> bool:
        """Say whether the trial is to end before its next step."""


@dataclass(frozen=True)
class TrialResult:
    """Hold the outcome of a trial that did not fail.

    Attributes:
        metrics: Value by name of each metric of the probes, and ``loss``, the last step's; empty if stopped.
        stopped_at: The step after which the observer ended the trial, or None.
        diagnostics: What was read off the backbone in the end; empty unless the configuration asks for it.
    """

    metrics: Mapping[str, float]
    stopped_at: int | None = None
    diagnostics: tuple[Reading, ...] = ()


def run_trial(
    config: TrialConfig, dataset: Dataset, observer: Observer, *, device: Device | None = None
) -> TrialResult:
    """Pretrain and probe as the configuration says.

    Args:
        config: Everything that decides the result.
        dataset: What ``config.data`` loads.
        observer: Who hears of the trial and may stop it.
        device: Where to compute; None = the GPU if this process may use one, else the CPU.

    Returns:
        The metrics, or the step at which the observer stopped the trial.

    Raises:
        DivergenceError: If the loss or a feature is no longer a finite number.
    """
    device = device or select_device()
    config = replace(config, objective=config.objective.for_images(len(dataset.train)))
    if config.treatment.kind == "raw_pixels":
        return _raw_pixels(config, dataset, observer)
    backbone = _build_backbone(config, dataset)
    if config.treatment.kind == "random_init":
        backbone.to(device.torch_device)
        observer.progress(step=0, steps=0, images_per_s=0.0)
        metrics = _probe_backbone(backbone, config, dataset, device=device)
        return TrialResult(metrics, diagnostics=_diagnose(backbone, config, dataset, device=device))

    learner = config.objective.build(backbone, dataset, seed=config.seed)
    comparator = config.treatment.comparator
    if comparator is not None:
        comparator.check_recipe(config.objective)
        # After the learner is built, so that no copy of the backbone (a teacher) is watched too.
        learner.regulariser = comparator.build_regulariser(
            backbone, num_classes=len(dataset.class_names), seed=config.seed
        )
    watch = _Watch(config, dataset, observer, device=device, backbone=learner.probed)
    last = pretrain(
        learner, config.objective, dataset.train, seed=config.seed, device=device, after_step=watch.after_step
    )
    if watch.stopped:
        return TrialResult({}, stopped_at=last.step)
    metrics = _probe_backbone(learner.probed, config, dataset, device=device)
    diagnostics = _diagnose(learner.probed, config, dataset, device=device)
    return TrialResult({**metrics, "loss": last.loss}, diagnostics=diagnostics)


def rung_steps(steps: int, count: int) -> tuple[int, ...]:
    """Return the steps after which rungs are probed: ``count`` of them, evenly spread, before the end."""
    return tuple(sorted({round(steps * (number + 1) / (count + 1)) for number in range(count)} - {0, steps}))


def rung_probes(config: TrialConfig) -> dict[str, Probe]:
    """Return the probes of the rungs, by name: those asked for, or else those that are cheap."""
    chosen = selected_probes(config.probes)
    names = config.rungs.probes or default_rung_probes(config.probes)
    return {name: chosen[name] for name in names}


class _Watch:
    """Look after a running trial: tell of its progress, probe its rungs, pass on the order to stop."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        observer: Observer,
        *,
        device: Device,
        backbone: VisionTransformer,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.observer = observer
        self.device = device
        self.backbone = backbone
        self.steps = config.objective.steps
        self.rungs = rung_steps(self.steps, config.rungs.count)
        self.fitted, self.scored = _rung_splits(config, dataset.train)
        self.stopped = False
        self._told_at = -math.inf

    def after_step(self, report: StepReport) -> bool:
        """Return whether to stop after this step."""
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_INTERVAL_S or report.step == self.steps:
            self._told_at = now
            self.observer.progress(step=report.step, steps=self.steps, images_per_s=report.images_per_s)
        if report.step in self.rungs:
            self.observer.rung(step=report.step, metrics={**self._probe_rung(), "loss": report.loss})
        self.stopped = report.step < self.steps and self.observer.should_stop()
        return self.stopped

    def _probe_rung(self) -> dict[str, float]:
        return _evaluate(
            rung_probes(self.config),
            backbone_features(self.backbone, self.fitted, device=self.device),
            backbone_features(self.backbone, self.scored, device=self.device),
            config=self.config,
            dataset=self.dataset,
        )


def _rung_splits(config: TrialConfig, train: Split) -> tuple[Split, Split]:
    """Take the images of the rungs from the training split: some to fit on, others to score."""
    rng = numpy_stream(config.seed, "rung images")
    indices = rng.permutation(len(train))[: config.rungs.num_images].astype(np.int64)
    num_scored = max(1, int(len(indices) * RUNG_SCORED_SHARE))
    return subset(train, indices[num_scored:]), subset(train, indices[:num_scored])


def _build_backbone(config: TrialConfig, dataset: Dataset) -> VisionTransformer:
    scale = SCALES[config.model.scale]
    treatment = config.treatment
    height, width = (size // config.model.patch_size for size in dataset.train.images.shape[-2:])
    high_norm = parse_high_norm(config.model.high_norm)
    model = build_vit(
        scale,
        image_size=dataset.train.images.shape[-1],
        patch_size=config.model.patch_size,
        specialization=parse_specialization(treatment.specialize, scale.depth),
        rows=own_rows(
            tokens=treatment.tokens,
            registers_with=treatment.registers_with,
            num_registers=high_norm.num_registers,
            grid=(height, width),
            placebo_position=treatment.placebo_position,
        ),
        init=treatment.init,
        high_norm=high_norm,
        seed=config.seed,
        drop_path=config.objective.drop_path,
        layer_scale=config.objective.layer_scale,
        cls_position=config.objective.cls_position,
        checkpoint=None if treatment.kind == "random_init" else config.model.checkpoint,
        checkpoint_sha256=config.model.checkpoint_sha256,
    )
    return model if treatment.comparator is None else treatment.comparator.build(model, seed=config.seed)


def _raw_pixels(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
    observer.progress(step=0, steps=0, images_per_s=0.0)
    train, val = (
        pixel_features(split, patch_size=config.model.patch_size) for split in (dataset.train, dataset.val)
    )
    return TrialResult(_evaluate(selected_probes(config.probes), train, val, config=config, dataset=dataset))


def _probe_backbone(
    backbone: VisionTransformer, config: TrialConfig, dataset: Dataset, *, device: Device
) -> dict[str, float]:
    train, val = (backbone_features(backbone, split, device=device) for split in (dataset.train, dataset.val))
    return _evaluate(selected_probes(config.probes), train, val, config=config, dataset=dataset)


def _diagnose(
    backbone: VisionTransformer, config: TrialConfig, dataset: Dataset, *, device: Device
) -> tuple[Reading, ...]:
    if not config.diagnostics:
        return ()
    with device.autocast():
        return diagnose(backbone, normalised(dataset.val.images[:DIAGNOSED_IMAGES].copy(), device))


def _evaluate(
    probes: Mapping[str, Probe],
    train: ProbeSplit,
    val: ProbeSplit,
    *,
    config: TrialConfig,
    dataset: Dataset,
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    num_classes = {"labels": len(dataset.class_names), "masks": len(dataset.mask_names)}
    for name, probe in probes.items():
        seed = derive_seed(config.seed, "probe", name)
        metrics |= probe.evaluate(train, val, num_classes=num_classes[probe.needs], seed=seed)
    return metrics
