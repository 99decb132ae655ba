"""How fast probes are: ridge against logistic regression, all of a trial's against its pretraining.

Run by ``make bench``; nothing here asserts a time, since machines differ. Times are of one core's work
(``time.process_time``), which other programs on the machine disturb less.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torchmetrics.classification import MulticlassJaccardIndex

import specvit.probing
import specvit.trial
from orchestrator.sweep.loading import load_sweep
from specvit.config import Treatment, TrialConfig
from specvit.data.sources.scenes import Scenes
from specvit.device import select_device
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probes import ProbeSplit
from specvit.probes.features import backbone_features
from specvit.probes.segmentation.probe import Segmentation
from specvit.probing import Probing
from specvit.recipes import RECIPES
from specvit.recipes.build import build_learner
from specvit.training.loop import pretrain
from specvit.trial import run_trial

SWEEP = Path(__file__).parents[2] / "sweeps" / "components.yaml"
STEPS = 40
"""Steps of pretraining that are timed, before extrapolation to all of the sweep's."""

RIVALS = {"to convergence": 10_000, "cut off": 100}
"""Largest number of iterations of scikit-learn's solver."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _features(*, steps: int) -> tuple[ProbeSplit, ProbeSplit, int]:
    """Return features of scenes by a nano backbone after so many steps, and the number of classes."""
    dataset = Scenes(image_size=32, num_train=1024, num_val=512).load()
    scale = SCALES["nano"]
    backbone = build_vit(VitConfig(scale, image_size=32, patch_size=4, specialization="none"), seed=0)
    device = select_device()
    backbone.to(device.torch_device)
    if steps:
        recipe = RECIPES["dinov2_cpu"](steps=steps)
        learner = build_learner(recipe, backbone, dataset, seed=0)
        pretrain(learner, recipe, dataset.train, seed=0, device=device, after_step=lambda _: False)
        backbone = learner.eval_backbone
    train, val = (backbone_features(backbone, split, device=device) for split in (dataset.train, dataset.val))
    return train, val, len(dataset.mask_names)


def _majority(split: ProbeSplit) -> NDArray[np.int64]:
    """Return the class of most pixels of every patch; the scenes have no ignored pixels."""
    assert split.masks is not None
    (num_images, height, width), (rows, columns) = split.masks.shape, split.grid
    tiles = split.masks.view(num_images, rows, height // rows, columns, width // columns).transpose(2, 3)
    return tiles.reshape(num_images * rows * columns, -1).long().mode(1).values.numpy()


def _miou(scores: NDArray[np.float64], split: ProbeSplit, classes: NDArray[np.int64], mode: str) -> float:
    assert split.masks is not None
    on_grid = torch.from_numpy(scores).view(len(split), *split.grid, -1).permute(0, 3, 1, 2)
    upsampled = torch.nn.functional.interpolate(on_grid, size=split.masks.shape[1:], mode=mode)
    metric = MulticlassJaccardIndex(num_classes=int(classes.max()) + 1, average="macro")
    return 100 * float(metric(torch.from_numpy(classes)[upsampled.argmax(1)], split.masks.long()))


@pytest.mark.parametrize("steps", [0, STEPS], ids=["random init", "briefly trained"])
def test_ridge_segmentation_over_logistic_regression(benchmark: BenchmarkFixture, steps: int) -> None:
    """The whole of the default probe against one fit of scikit-learn's ``LogisticRegression``.

    The probe's time holds all of it: 6 penalties on the tenth, the refit, the score on the reported split. That
    of its rival holds a single fit to majority labels with C = 1, the hardest comparison: a path over 45 values
    of C takes many times as long. The fit ends at scikit-learn's default tolerance; a second one is cut off at
    its default of 100 iterations, short of that. The rival's mIoU is the better one of scores upsampled
    bilinearly and one class per tile.
    """
    train, val, num_classes = _features(steps=steps)
    tokens, queries = (part.patches.flatten(0, 1).double().numpy() for part in (train, val))
    scaler = StandardScaler().fit(tokens)
    x, labels = scaler.transform(tokens), _majority(train)
    seconds: dict[str, list[float]] = {name: [] for name in ("ridge", *RIVALS)}
    mious: dict[str, float] = {}

    def take_turns() -> None:
        for _ in range(5):
            started = time.process_time()
            mious["ridge"] = Segmentation().evaluate(train, val, num_classes=num_classes, seed=0)["miou"]
            seconds["ridge"].append(time.process_time() - started)
        for name, max_iter in RIVALS.items():
            started = time.process_time()
            # One thread, as the probe: CPU seconds of two would count twice, waiting included.
            with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"), threadpool_limits(1):
                rival = LogisticRegression(C=1.0, max_iter=max_iter).fit(x, labels)
            seconds[name].append(time.process_time() - started)
            scores = rival.decision_function(scaler.transform(queries))
            mious[name] = max(_miou(scores, val, rival.classes_, mode) for mode in ("bilinear", "nearest"))

    benchmark.pedantic(take_turns, rounds=2, warmup_rounds=0)
    best = {name: min(values) for name, values in seconds.items()}
    speedups = {name: round(best[name] / best["ridge"], 1) for name in RIVALS}
    benchmark.extra_info.update(speedups=speedups, mious=mious)
    print(f"\n{steps} steps, {len(x)} patches: ridge {best['ridge']:.3f} s, mIoU {mious['ridge']:.2f}")
    for name, speedup in speedups.items():
        print(f"logistic regression {name} {best[name]:.2f} s, {speedup} times as long, mIoU {mious[name]:.2f}")


class _Silent:
    """Hear of a trial and never stop it."""

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None: ...

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None: ...

    def should_stop(self) -> bool:
        return False


def test_probes_over_pretraining(benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """All probes of a trial, rungs and features included, as a share of its pretraining: the baseline arm."""
    sweep = load_sweep(SWEEP)
    group = sweep.groups[0]
    steps = group.objective.steps
    config = TrialConfig(
        treatment=Treatment(),
        model=group.model,
        data=group.data,
        objective=dataclasses.replace(group.objective, steps=STEPS),
        probes=sweep.file.probes,
        rungs=sweep.file.rungs,
        seed=sweep.file.seeds[0],
    )
    dataset = group.data.load()
    seconds: dict[str, float] = {}

    def timed(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            result = function(*arguments, **options)
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
            return result

        monkeypatch.setattr(owner, name, wrapper)

    timed(specvit.trial, "pretrain")
    timed(specvit.probing, "backbone_features")
    timed(Probing, "_evaluate")
    timed(Probing, "rung")
    shares: list[float] = []

    def trial() -> None:
        seconds.clear()
        run_trial(config, dataset, _Silent())
        # Rungs are probed within ``pretrain``, so they are taken out of its time.
        whole = (seconds["pretrain"] - seconds["rung"]) * steps / STEPS
        shares.append((seconds["backbone_features"] + seconds["_evaluate"]) / whole)
        print(
            f"\npretraining {whole:.1f} s ({steps} steps), features {seconds['backbone_features']:.2f} s, probes "
            f"{seconds['_evaluate']:.2f} s, rungs {seconds['rung']:.2f} s of these two: {shares[-1]:.1%}"
        )

    benchmark.pedantic(trial, rounds=3, warmup_rounds=1)
    benchmark.extra_info["share"] = round(statistics.median(shares[1:]), 4)
