"""What a worker does: train the runs of a task, measure how far twins drift apart, probe, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.config import PERTURBATION, TrialConfig
from specvit.data import Dataset, DataSource
from specvit.device import Device
from specvit.errors import SpecsweepError
from specvit.models.config import VitConfig
from specvit.models.perturbation import perturb
from specvit.models.vit import build_vit
from specvit.probing import Probing
from specvit.recipes.build import build_learner
from specvit.training.learner import Learner
from specvit.training.loop import StepReport, pretrain

from .arms import Task, arm_config
from .records import RUNS, Run, append

CPU = Device(torch.device("cpu"))

load = lru_cache(maxsize=4)(lambda source: source.load())
"""Load a data source; a worker keeps the last few."""


def snapshot_steps(steps: int) -> tuple[int, ...]:
    """Return the steps after which twins are compared: a few early ones, every fiftieth, the last."""
    return tuple(sorted({step for step in (5, 20, 60, *range(100, steps, 50)) if step < steps} | {steps}))


def flat_weights(model: VisionTransformer) -> Tensor:
    """Return a copy of all weights, ``(W,)`` float32."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train(
    config: TrialConfig,
    dataset: Dataset,
    *,
    perturbed: bool = False,
    after: Callable[[int, Tensor], None] | None = None,
) -> Learner:
    """Pretrain as a trial does, in the same order of calls.

    Args:
        config: The trial.
        dataset: Its images.
        perturbed: Whether the backbone starts a millionth beside its place; heads start where they do, and a teacher
            is a copy of the backbone as it starts.
        after: Called with the step and the backbone's weights after each of ``snapshot_steps``.

    Raises:
        SpecsweepError: If the trial fails.
    """
    recipe = config.objective.for_images(len(dataset.train))
    backbone = build_vit(
        VitConfig.from_settings(
            config.model, recipe, image_size=dataset.train.images.shape[-1], treatment=config.treatment
        ),
        init=config.treatment.init,
        seed=config.seed,
    )
    if perturbed:
        perturb(backbone, PERTURBATION, seed=config.seed)
    learner = build_learner(recipe, backbone, dataset, seed=config.seed)
    watched = frozenset(snapshot_steps(recipe.steps)) if after else frozenset()

    def after_step(report: StepReport) -> bool:
        if after is not None and report.step in watched:
            after(report.step, flat_weights(backbone))
        return False

    pretrain(learner, recipe, dataset.train, seed=config.seed, device=CPU, after_step=after_step)
    return learner


def probe(config: TrialConfig, learner: Learner, dataset: Dataset) -> dict[str, float]:
    """Probe a trained backbone as a trial does at its end."""
    others: dict[DataSource, Dataset] = {source: load(source) for source in config.sources}
    return Probing(config, dataset, others).backbone(learner.eval_backbone, device=CPU)


def run_task(task: Task, folder: Path, commit: str) -> list[Run]:
    """Do the trainings of a task, and append each run to the file as soon as it is done.

    Twins are compared by weights that are held in memory, so a run whose twin is missing is trained again.
    """
    snapshots: dict[int, Tensor] = {}
    distance: dict[int, float] = {}

    def measure(step: int, weights: Tensor) -> None:
        if step in snapshots:  # unless the run failed before
            distance[step] = float((weights - snapshots[step]).norm() / snapshots[step].norm())

    runs = []
    for arm in task.arms:
        is_twin = arm == task.twin
        after = measure if is_twin else snapshots.__setitem__ if task.twin else None
        recorded = is_twin or task.record_run
        run = _run(task, arm, after=after, is_twin=is_twin, probed=recorded, commit=commit, distance=distance)
        if recorded:
            append(folder / RUNS, asdict(run))
            runs.append(run)
    return runs


def _run(
    task: Task,
    arm: str,
    *,
    after: Callable[[int, Tensor], None] | None,
    is_twin: bool,
    probed: bool,
    commit: str,
    distance: dict[int, float],
) -> Run:
    config = arm_config(task.setting, arm, task.seed)
    assert config is not None
    dataset = load(config.data)
    metrics: dict[str, float] = {}
    error, started = "", time.process_time()
    trained = started
    try:
        learner = train(config, dataset, perturbed=is_twin, after=after)
        trained = time.process_time()
        if probed:
            metrics = probe(config, learner, dataset)
    except SpecsweepError as failure:
        error = str(failure)
    return Run(
        setting=task.setting.name,
        digest=task.setting.digest,
        arm=arm,
        seed=task.seed,
        metrics=metrics,
        training_core_s=round(trained - started, 2),
        probes_core_s=round(time.process_time() - trained, 2),
        distance=dict(distance) if is_twin else {},
        error=error,
        commit=commit,
    )
