"""A whole trial: pretrain a backbone, probe it on the way and at the end. Pure torch; no cluster needed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from timm.models.vision_transformer import VisionTransformer

from specvit.checkpoints import save_model
from specvit.config import TrialConfig
from specvit.data import Dataset, DataSource
from specvit.data.encoded import EncodedImages
from specvit.device import Device, select_device
from specvit.diagnostics.measurement import Measurement
from specvit.errors import SpecsweepError
from specvit.evaluation import measure, num_skipped, skipping_images
from specvit.external import build_external
from specvit.files.checksum import sha256_of
from specvit.kept_weights import WeightsFile
from specvit.models.config import VitConfig
from specvit.models.perturbation import perturb
from specvit.models.vit import build_vit
from specvit.probing import Probing, pretrained_on
from specvit.recipes.build import build_learner
from specvit.training import collectives
from specvit.training.checkpoint import Checkpoint
from specvit.training.cost import CostMeter, TrainingCost
from specvit.training.learner import Learner
from specvit.training.loop import StepReport, pretrain
from specvit.training.measuring import LossMeasurement
from specvit.training.optimizer import OwnFactors
from specvit.training.step_log import StepLog

_LOG = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.5
"""Least time between two signs of progress."""

_SKIPPED = "skipped"
"""Name under which a state's notes hold which bad images were left out up to then."""


class Observer(Protocol):
    """What a running trial reports to, and asks whether to stop. No call may block the trial for long."""

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Called with how far the trial is."""

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Called with the metrics of a rung."""

    def should_stop(self) -> bool:
        """Return whether the trial is to end before its next step."""


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a trial that did not fail.

    Attributes:
        metrics: Value by name of each metric of the probes, ``loss``, the last step's, and what says whether the recipe
            was learnt, its terms for example (``specvit.training.learnt``); empty if stopped.
        stopped_at: The step after which the observer ended the trial, or None.
        diagnostics: What was read off the backbone in the end; empty unless the configuration asks for it.
        cost: What the training took; None if there was none, or it was stopped. Two results that differ in it alone
            are equal.
        weights: The files of trained weights that were written, with paths below their folder.
    """

    metrics: Mapping[str, float]
    stopped_at: int | None = None
    diagnostics: tuple[Measurement, ...] = ()
    cost: TrainingCost | None = field(default=None, compare=False)
    weights: tuple[WeightsFile, ...] = ()


def run_trial(
    config: TrialConfig,
    dataset: Dataset,
    observer: Observer,
    *,
    probe_datasets: Mapping[DataSource, Dataset] = MappingProxyType({}),
    device: Device | None = None,
    checkpoint: Checkpoint | None = None,
    weights: Path | None = None,
) -> TrialResult:
    """Pretrain and probe as the configuration says.

    With a checkpoint, a trial that was interrupted resumes where its state was saved last, and ends with the
    numbers of one that was not, bit for bit on one machine. Its observer hears first of the rungs of before, as they
    were, so that the record of this attempt is as complete as that of a trial which ran through: every rung once.

    Processes that are joined (``specvit.training.collectives``) call it alike, and train the one trial together. The
    observer of the main one alone is called, and it alone probes; the metrics of the others hold the loss only.

    Args:
        config: Everything that decides the result.
        dataset: What ``config.data`` loads.
        observer: Who hears of the trial and may stop it.
        probe_datasets: What the sources that probes have of their own load.
        device: Where to compute; None = the GPU if this process may use one, else the CPU.
        checkpoint: Where the state of the pretraining is kept, and how often it is saved; None = nowhere. Its notes
            hold the rungs under ``rungs``. The file stays when the trial has ended: whoever gave it deletes it.
        weights: Folder to write the trained backbones to, one safetensors file each (DINOv2's student and teacher);
            None = nowhere. It is made if it is not there, and holds them before the final probes begin.

    Returns:
        The metrics, or the step at which the observer stopped the trial.

    Raises:
        DivergenceError: If the loss or a feature is no longer a finite number.
        DataError: If a class of a training target is out of range.
    """
    device = device or select_device()
    probed = [probe_datasets[probe.data] for probe in config.probes if probe.data is not None]
    encoded = skipping_images((dataset, *probed))
    train, trained_on = pretrained_on(config, dataset.train)
    num_images = len(train) if trained_on is None else len(trained_on)
    config = replace(config, objective=config.objective.for_images(num_images))
    steps = config.objective.steps if config.treatment.is_trained else 0
    probing = Probing(
        config,
        dataset,
        probe_datasets,
        moved_on=lambda: observer.progress(step=steps, steps=steps, images_per_s=0.0),
    )
    if config.treatment.kind == "raw_pixels":
        observer.progress(step=0, steps=0, images_per_s=0.0)
        _LOG.info("raw pixels: no backbone; probing")
        return TrialResult({**probing.pixels(), **num_skipped(encoded)})
    backbone = _build_backbone(config, dataset)
    if not config.treatment.is_trained:
        backbone.to(device.torch_device)
        _LOG.info("%s: nothing to train; probing on %s", config.treatment.kind.replace("_", " "), device.name)
        observer.progress(step=0, steps=0, images_per_s=0.0)
        metrics = probing.backbone(backbone, device=device)
        diagnostics = measure(backbone, config, dataset, device=device)
        return TrialResult({**metrics, **num_skipped(encoded)}, diagnostics=diagnostics)

    learner = build_learner(config.objective, backbone, dataset, seed=config.seed)
    comparator = config.treatment.comparator
    if comparator is not None:
        comparator.check_recipe(config.objective)
        # After the learner is built, so that no copy of the backbone (a teacher) is watched too.
        learner.regulariser = comparator.build_regulariser(
            backbone, num_classes=len(dataset.class_names), seed=config.seed
        )
    notes = {} if checkpoint is None else checkpoint.notes
    terms = LossMeasurement(learner, config.objective, train, seed=config.seed, device=device, images=trained_on)
    watch = _Watch(
        config, probing, observer, terms, device=device, backbone=learner.eval_backbone, notes=notes, encoded=encoded
    )
    recipe = config.objective
    _LOG.info(
        "training on %s: %s, %d steps of %d images, %s parameters in the backbone, rungs at %s%s",
        device.name,
        recipe.name,
        recipe.steps,
        recipe.batch_size,
        f"{sum(parameter.numel() for parameter in backbone.parameters()):,}",
        ", ".join(map(str, watch.rungs)) or "no step",
        f", which score {len(train) - num_images} images that are not trained on" if trained_on is not None else "",
    )
    last = pretrain(
        learner,
        config.objective,
        train,
        seed=config.seed,
        device=device,
        after_step=watch.after_step,
        images=trained_on,
        own=OwnFactors(lr=config.treatment.own_lr, weight_decay=config.treatment.own_weight_decay),
        checkpoint=checkpoint,
        continued=watch.continued,
    )
    if last.step < config.objective.steps:
        return TrialResult({}, stopped_at=last.step)
    if not collectives.is_main():
        return TrialResult({"loss": last.loss})
    cost = watch.meter.cost(num_images=recipe.steps * recipe.batch_size)
    kept = () if weights is None else _save_weights(learner, weights)
    _LOG.info("the training is done; probing")
    learnt = terms.measure(step=last.step)
    metrics = probing.backbone(learner.eval_backbone, device=device)
    diagnostics = measure(learner.eval_backbone, config, dataset, device=device)
    metrics = {**metrics, "loss": last.loss, **learnt, **num_skipped(encoded)}
    return TrialResult(metrics, diagnostics=diagnostics, cost=cost, weights=kept)


def _save_weights(learner: Learner, folder: Path) -> tuple[WeightsFile, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{folder}: cannot be made for the weights ({error.strerror})") from error
    kept = []
    for name, backbone in learner.backbones().items():
        path = folder / f"{name}.safetensors"
        save_model(backbone, path)
        kept.append(WeightsFile(path.name, sha256_of(path), is_probed=backbone is learner.eval_backbone))
    return tuple(kept)


def rung_steps(steps: int, count: int) -> tuple[int, ...]:
    """Return the steps after which rungs are probed: ``count`` of them, evenly spread, before the end."""
    return tuple(sorted({round(steps * (number + 1) / (count + 1)) for number in range(count)} - {0, steps}))


class _Watch:
    """What a trial does after each step: report its progress, probe its rungs, pass on the order to stop."""

    def __init__(
        self,
        config: TrialConfig,
        probing: Probing,
        observer: Observer,
        terms: LossMeasurement,
        *,
        device: Device,
        backbone: VisionTransformer,
        notes: dict[str, Any],
        encoded: Sequence[EncodedImages],
    ) -> None:
        self.probing = probing
        self.observer = observer
        self.terms = terms
        self.device = device
        self.backbone = backbone
        self.steps = config.objective.steps
        self.rungs = rung_steps(self.steps, config.rungs.count)
        self.notes = notes
        self.notes["rungs"] = []
        self.encoded = encoded
        self.meter = CostMeter(device, notes=notes)
        self._log = StepLog(steps=self.steps)
        self._told_at = -math.inf

    def continued(self, report: StepReport) -> None:
        """Report the rungs that the notes of a saved state hold, and where the run resumes."""
        for step, metrics in self.notes.setdefault("rungs", []):
            self.observer.rung(step=step, metrics=metrics)
        for images, skipped in zip(self.encoded, self.notes.get(_SKIPPED, ()), strict=False):
            images.skipped.update(skipped)
        self.observer.progress(step=report.step, steps=self.steps, images_per_s=report.images_per_s)
        self.meter.resume()
        _LOG.info("going on from the state that was saved at step %d", report.step)

    def after_step(self, report: StepReport) -> bool:
        """Return whether to stop after this step."""
        self.meter.step(report.seconds)
        self._log.step(report)
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_INTERVAL_S or report.step == self.steps:
            self._told_at = now
            self.observer.progress(step=report.step, steps=self.steps, images_per_s=report.images_per_s)
        if report.step == self.steps:
            self.meter.pause()
        if report.step in self.rungs:
            self.meter.pause()
            eval_backbone = self.probing.rung(self.backbone, device=self.device)
            metrics = {**eval_backbone, "loss": report.loss, **self.terms.measure(step=report.step)}
            self.notes["rungs"].append([report.step, metrics])
            self.observer.rung(step=report.step, metrics=metrics)
            self.meter.resume()
        if self.encoded:
            self.notes[_SKIPPED] = [dict(images.skipped) for images in self.encoded]  # threads may go on adding to it
        return report.step < self.steps and self.observer.should_stop()


def _build_backbone(config: TrialConfig, dataset: Dataset) -> VisionTransformer:
    treatment, image_size = config.treatment, dataset.train.image_size
    if treatment.external is not None:
        return build_external(treatment.external)
    model = build_vit(
        VitConfig.from_settings(config.model, config.objective, image_size=image_size, treatment=treatment),
        init=treatment.init,
        seed=config.seed,
        pretrained=None if treatment.kind == "random_init" else config.model.checkpoint,
        pretrained_sha256=config.model.checkpoint_sha256,
    )
    if treatment.comparator is not None:
        model = treatment.comparator.build(model, seed=config.seed)
    if treatment.perturbation:
        perturb(model, treatment.perturbation, seed=config.seed)
    return model
