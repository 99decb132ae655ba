"""The training loop: what a step is given, computes and changes, and what ends a run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from torch import nn

from specvit.errors import DataError, DivergenceError
from specvit.models.config import VitConfig
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.training.loop import StepReport, batches, pretrain

from .small_runs import (
    CPU,
    DATASET,
    DEIT,
    DINO,
    SCALE,
    STEPS,
    Scripted,
    make_learner,
    make_split,
    never,
    run_loop,
    take,
)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_finite_number_ends_the_run_with_its_step(bad: float) -> None:
    with pytest.raises(DivergenceError, match=rf"the loss is {bad} at step 3 of 4"):
        pretrain(Scripted([1.0, 2.0, bad, 3.0]), DEIT, make_split(), seed=0, device=CPU, after_step=never)


@pytest.mark.parametrize(
    ("target", "value", "rule"),
    [
        ("labels", 4, r"in \[0, 4\), but hold 4"),
        ("labels", -1, r"in \[0, 4\), but hold -1"),
        ("masks", 3, r"in \[0, 3\) or 255 = ignore, but hold 3"),
        ("masks", 254, r"in \[0, 3\) or 255 = ignore, but hold 254"),
    ],
)
def test_a_class_out_of_range_in_the_middle_of_a_run_ends_it_with_the_step_and_the_image(
    target: str, value: int, rule: str
) -> None:
    masks = np.random.default_rng(1).integers(0, 3, (20, 16, 16)).astype(np.uint8)
    masks[:, 0] = 255
    data = dataclasses.replace(DATASET, train=dataclasses.replace(make_split(), masks=masks), mask_names=tuple("xyz"))
    recipe = dataclasses.replace(DEIT, dense_weight=0.5)
    backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, cls_position=recipe.cls_position))
    learner = build_learner(recipe, backbone, data, seed=5)
    (image,) = set(take(batches(20, batch_size=8, seed=5), 2)[1][3:4])
    done: list[int] = []

    def spoil(report: StepReport) -> bool:
        done.append(report.step)
        getattr(data.train, target)[image, ...] = value
        return False

    with pytest.raises(DataError, match=rf"step 2 of 4: {target} of training image {image} must be {rule}"):
        pretrain(learner, recipe, data.train, seed=5, device=CPU, after_step=spoil)
    assert done == [1]


def test_classes_that_a_recipe_does_not_learn_from_are_not_looked_at() -> None:
    split = dataclasses.replace(make_split(), labels=np.full(20, 1000), masks=np.full((20, 16, 16), 200, np.uint8))
    losses: list[float] = []
    learner = make_learner(DINO)
    pretrain(learner, DINO, split, seed=0, device=CPU, after_step=lambda report: losses.append(report.loss) or False)
    assert losses == run_loop(DINO)[0]


def test_batches_carry_the_images_and_labels_in_order_and_their_step() -> None:
    learner, split = Scripted([0.0] * STEPS), make_split()
    pretrain(learner, DEIT, split, seed=5, device=CPU, after_step=never)
    expected = batches(len(split), batch_size=8, seed=5)
    for step, (batch, indices) in enumerate(zip(learner.batches, expected, strict=False)):
        np.testing.assert_allclose(batch.images, split.images[indices] / 255, rtol=1e-6)
        assert split.labels is not None
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.labels, split.labels[indices])
        assert (batch.step, batch.steps, batch.seed, batch.progress) == (step, STEPS, 5, step / STEPS)


def test_batches_carry_masks_where_the_recipe_needs_them() -> None:
    masks = np.random.default_rng(1).integers(0, 3, (20, 16, 16)).astype(np.uint8)
    split = dataclasses.replace(make_split(), masks=masks)
    for weight in (0.0, 0.5):
        learner = Scripted([0.0] * STEPS)
        recipe = dataclasses.replace(DEIT, dense_weight=weight)
        pretrain(learner, recipe, split, seed=5, device=CPU, after_step=never)
        for batch, indices in zip(learner.batches, batches(20, batch_size=8, seed=5), strict=False):
            if weight == 0:
                assert batch.masks is None
            else:
                assert batch.masks is not None
                np.testing.assert_array_equal(batch.masks, masks[indices])


def test_the_learner_is_called_before_each_update_and_after_each_step_with_its_progress() -> None:
    learner = Scripted([0.0] * STEPS)
    pretrain(learner, DEIT, make_split(), seed=0, device=CPU, after_step=never)
    expected = []
    for before, after in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)):
        expected += [("before_update", before), ("after_step", after)]
    assert learner.calls == expected


def test_a_true_answer_ends_the_run_after_that_step() -> None:
    reports: list[StepReport] = []

    def stop_at_two(report: StepReport) -> bool:
        reports.append(report)
        return report.step == 2

    learner = Scripted([5.0, 6.0, 7.0, 8.0])
    last = pretrain(learner, DEIT, make_split(), seed=0, device=CPU, after_step=stop_at_two)
    assert [report.step for report in reports] == [1, 2]
    assert last is reports[-1]
    assert last.images_per_s > 0
    assert [batch.step for batch in learner.batches] == [0, 1]


def test_the_learning_rate_and_decay_of_each_step_are_those_worked_out_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr(
        "specvit.training.loop.set_schedules", lambda _, *, lr, weight_decay: seen.append((lr, weight_decay))
    )
    changes = {"lr": 1.0, "min_lr": 0.0, "warmup": 0.5, "weight_decay": 0.4, "weight_decay_end": 0.0}
    recipe = dataclasses.replace(DEIT, **changes)
    pretrain(Scripted([0.0] * STEPS), recipe, make_split(), seed=0, device=CPU, after_step=never)
    # Steps end at 1/4, 1/2, 3/4 and 1 of the run: half way up, the peak, half way down its cosine, the end.
    assert [lr for lr, _ in seen] == pytest.approx([0.5, 1.0, 0.5, 0.0], abs=1e-12)
    # The decay is that of the step's start: cosines of 0, 45, 90 and 135 degrees.
    root = math.sqrt(0.5)
    assert [decay for _, decay in seen] == pytest.approx([0.4, 0.2 * (1 + root), 0.2, 0.2 * (1 - root)])


def test_gradients_are_clipped_to_the_recipes_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    clip = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda p, norm: norms.append(norm) or clip(p, norm))
    for value in (0.25, 0.0):
        recipe = dataclasses.replace(DEIT, clip_norm=value)
        pretrain(Scripted([0.0] * STEPS), recipe, make_split(), seed=0, device=CPU, after_step=never)
    assert norms == [0.25] * STEPS  # 0 switches clipping off


def test_lamb_takes_a_step_of_the_rate_times_the_norm_whatever_the_gradients_size() -> None:
    recipe = dataclasses.replace(DEIT, optimizer="lamb", steps=1, warmup=1.0, weight_decay=0.05, clip_norm=1e-3)
    learner = make_learner(recipe)
    weight = learner.get_parameter("backbone.blocks.0.mlp.fc1.weight")
    before = weight.detach().clone()
    pretrain(learner, recipe, DATASET.train, seed=0, device=CPU, after_step=never)
    assert float((weight.detach() - before).norm()) == pytest.approx(recipe.lr * float(before.norm()), rel=1e-4)


def test_the_loss_falls_when_a_supervised_run_is_repeated_on_few_images() -> None:
    recipe = DeiT3Cpu(steps=40, batch_size=20, lr=5e-3, mixup=0.0, cutmix=0.0, three_augment=False, crop="simple")
    losses, _ = run_loop(recipe)
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
