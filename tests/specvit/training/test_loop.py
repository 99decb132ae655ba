"""The training loop: which images, which step, which arms are paired."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.errors import DataError, DivergenceError
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
from specvit.training.loop import StepReport, batches, pretrain

SCALE = Scale(width=16, depth=2, num_heads=2)
CPU = Device(torch.device("cpu"))
STEPS = 4
SHORT = {"steps": STEPS, "batch_size": 8, "lr": 5e-3}
DINO = DinoV2Cpu(local_size=8, head_hidden=12, head_bottleneck=6, num_prototypes=10, **SHORT)
DEIT = DeiT3Cpu(**SHORT)
RECIPES = pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
TREATED = "norm+qkv"


def _split(num_images: int = 20) -> Split:
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (num_images, 3, 16, 16), dtype=np.uint8),
        labels=rng.integers(0, 4, num_images),
    )


DATASET = Dataset(train=_split(), val=_split(), class_names=tuple("abcd"), mask_names=(), fingerprint="")


def _learner(recipe: Recipe, text: str = "none", *, seed: int = 0) -> Learner:
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


def _run(recipe: Recipe, text: str = "none", *, seed: int = 0) -> tuple[list[float], dict[str, Tensor]]:
    """Return the loss of every step and the final weights."""
    learner = _learner(recipe, text, seed=seed)
    losses: list[float] = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return False

    pretrain(learner, recipe, DATASET.train, seed=seed, device=CPU, after_step=note)
    return losses, learner.state_dict()


def _take(order: Iterator[Any], num_steps: int) -> list[list[int]]:
    return [indices.tolist() for indices in itertools.islice(order, num_steps)]


@settings(max_examples=40, deadline=None)
@given(num_images=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_every_image_is_seen_once_an_epoch_in_full_batches(num_images: int, batch_size: int, seed: int) -> None:
    num_steps = math.ceil(3 * num_images / batch_size)
    taken = _take(batches(num_images, batch_size=batch_size, seed=seed), num_steps)
    assert all(len(batch) == batch_size for batch in taken)
    stream = [index for batch in taken for index in batch]
    for epoch in range(3):
        assert sorted(stream[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


@settings(max_examples=40, deadline=None)
@given(
    num_images=st.integers(1, 30), batch_size=st.integers(1, 40), start=st.integers(0, 12), seed=st.integers(0, 99)
)
def test_a_run_that_starts_at_a_step_continues_the_order_from_there(
    num_images: int, batch_size: int, start: int, seed: int
) -> None:
    whole = _take(batches(num_images, batch_size=batch_size, seed=seed), start + 4)
    assert _take(batches(num_images, batch_size=batch_size, seed=seed, start=start), 4) == whole[start:]


def test_the_order_of_images_does_not_depend_on_the_batch_size() -> None:
    one, other = (_take(batches(12, batch_size=size, seed=3), 24 // size) for size in (4, 6))
    assert [i for batch in one for i in batch] == [i for batch in other for i in batch]


def test_epochs_and_seeds_have_their_own_orders() -> None:
    first, second = _take(batches(30, batch_size=30, seed=0), 2)
    assert first != second
    assert first != _take(batches(30, batch_size=30, seed=1), 1)[0]


@settings(max_examples=40, deadline=None)
@given(
    num_images=st.integers(1, 30), batch_size=st.integers(1, 40), copies=st.integers(1, 4), start=st.integers(0, 9)
)
def test_copies_come_in_a_row_in_the_order_that_images_have_without_them(
    num_images: int, batch_size: int, copies: int, start: int
) -> None:
    taken = _take(batches(num_images, batch_size=batch_size, seed=5, start=start, copies=copies), 3)
    assert all(len(batch) == batch_size for batch in taken)
    (plain,) = _take(batches(num_images, batch_size=(start + 3) * batch_size, seed=5), 1)
    repeated = [image for image in plain for _ in range(copies)]
    assert [i for batch in taken for i in batch] == repeated[start * batch_size : (start + 3) * batch_size]


def test_a_batch_has_each_image_as_often_as_the_recipe_repeats_it_each_time_otherwise_augmented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spied = _Spied(monkeypatch)
    recipe = dataclasses.replace(DEIT, repeats=4, mixup=0.0, cutmix=0.0)
    scripted = _Scripted([0.0] * STEPS)
    pretrain(scripted, recipe, _split(), seed=0, device=CPU, after_step=_never)
    _run(recipe)
    for batch, views in zip(scripted.batches, spied.inputs, strict=True):
        assert len(batch.images) == 8
        assert len(torch.unique(batch.images, dim=0)) == 2
        assert len(torch.unique(views, dim=0)) == 8


@RECIPES
def test_two_runs_with_one_seed_have_identical_losses_and_weights(recipe: Recipe) -> None:
    (losses, weights), (again, weights_again) = _run(recipe, TREATED), _run(recipe, TREATED)
    assert losses == again
    assert len(losses) == STEPS
    for name, value in weights.items():
        assert torch.equal(value, weights_again[name]), name


def test_stochastic_depth_repeats_too_whatever_the_global_generator_was() -> None:
    recipe = dataclasses.replace(DINO, drop_path=0.5)
    torch.manual_seed(1)
    losses, _ = _run(recipe)
    torch.manual_seed(2)
    assert _run(recipe)[0] == losses
    assert losses != _run(DINO)[0]


@RECIPES
def test_another_seed_gives_other_losses(recipe: Recipe) -> None:
    assert _run(recipe, seed=0)[0] != _run(recipe, seed=1)[0]


@RECIPES
def test_arms_start_equal_and_differ_after_their_first_update(recipe: Recipe) -> None:
    baseline, treated = _run(recipe)[0], _run(recipe, TREATED)[0]
    assert baseline[0] == treated[0]
    assert all(one != other for one, other in zip(baseline[1:], treated[1:], strict=True))


@RECIPES
def test_arms_stay_equal_if_nothing_is_learnt(recipe: Recipe) -> None:
    still = dataclasses.replace(recipe, lr=1e-30, min_lr=0.0)
    assert _run(still)[0] == _run(still, TREATED)[0]


class _Spied:
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


@pytest.mark.parametrize(("recipe", "num_a_step"), [(DINO, 3), (DEIT, 1)], ids=["dinov2", "deit3"])
def test_arms_of_a_pair_see_identical_views_and_masks_at_every_step(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, num_a_step: int
) -> None:
    spied = _Spied(monkeypatch)
    recorded = []
    for text in ("none", TREATED):
        spied.inputs = []
        _run(recipe, text)
        recorded.append(spied.inputs)
    assert len(recorded[0]) == len(recorded[1]) == num_a_step * STEPS
    for one, other in zip(*recorded, strict=True):
        assert torch.equal(one, other)


class _Scripted(Learner):
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


def _never(_: StepReport) -> bool:
    return False


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_finite_number_ends_the_run_with_its_step(bad: float) -> None:
    with pytest.raises(DivergenceError, match=rf"the loss is {bad} at step 3 of 4"):
        pretrain(_Scripted([1.0, 2.0, bad, 3.0]), DEIT, _split(), seed=0, device=CPU, after_step=_never)


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
    data = dataclasses.replace(DATASET, train=dataclasses.replace(_split(), masks=masks), mask_names=tuple("xyz"))
    recipe = dataclasses.replace(DEIT, dense_weight=0.5)
    backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, cls_position=recipe.cls_position))
    learner = build_learner(recipe, backbone, data, seed=5)
    (image,) = set(_take(batches(20, batch_size=8, seed=5), 2)[1][3:4])
    done: list[int] = []

    def spoil(report: StepReport) -> bool:
        done.append(report.step)
        getattr(data.train, target)[image, ...] = value
        return False

    with pytest.raises(DataError, match=rf"step 2 of 4: {target} of training image {image} must be {rule}"):
        pretrain(learner, recipe, data.train, seed=5, device=CPU, after_step=spoil)
    assert done == [1]


def test_classes_that_a_recipe_does_not_learn_from_are_not_looked_at() -> None:
    split = dataclasses.replace(_split(), labels=np.full(20, 1000), masks=np.full((20, 16, 16), 200, np.uint8))
    losses: list[float] = []
    learner = _learner(DINO)
    pretrain(learner, DINO, split, seed=0, device=CPU, after_step=lambda report: losses.append(report.loss) or False)
    assert losses == _run(DINO)[0]


def test_batches_carry_the_images_and_labels_in_order_and_their_step() -> None:
    learner, split = _Scripted([0.0] * STEPS), _split()
    pretrain(learner, DEIT, split, seed=5, device=CPU, after_step=_never)
    expected = batches(len(split), batch_size=8, seed=5)
    for step, (batch, indices) in enumerate(zip(learner.batches, expected, strict=False)):
        np.testing.assert_allclose(batch.images, split.images[indices] / 255, rtol=1e-6)
        assert split.labels is not None
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.labels, split.labels[indices])
        assert (batch.step, batch.steps, batch.seed, batch.progress) == (step, STEPS, 5, step / STEPS)


def test_batches_carry_masks_where_the_recipe_needs_them() -> None:
    masks = np.random.default_rng(1).integers(0, 3, (20, 16, 16)).astype(np.uint8)
    split = dataclasses.replace(_split(), masks=masks)
    for weight in (0.0, 0.5):
        learner = _Scripted([0.0] * STEPS)
        recipe = dataclasses.replace(DEIT, dense_weight=weight)
        pretrain(learner, recipe, split, seed=5, device=CPU, after_step=_never)
        for batch, indices in zip(learner.batches, batches(20, batch_size=8, seed=5), strict=False):
            if weight == 0:
                assert batch.masks is None
            else:
                assert batch.masks is not None
                np.testing.assert_array_equal(batch.masks, masks[indices])


def test_the_learner_is_called_before_each_update_and_after_each_step_with_its_progress() -> None:
    learner = _Scripted([0.0] * STEPS)
    pretrain(learner, DEIT, _split(), seed=0, device=CPU, after_step=_never)
    expected = []
    for before, after in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)):
        expected += [("before_update", before), ("after_step", after)]
    assert learner.calls == expected


def test_a_true_answer_ends_the_run_after_that_step() -> None:
    reports: list[StepReport] = []

    def stop_at_two(report: StepReport) -> bool:
        reports.append(report)
        return report.step == 2

    learner = _Scripted([5.0, 6.0, 7.0, 8.0])
    last = pretrain(learner, DEIT, _split(), seed=0, device=CPU, after_step=stop_at_two)
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
    pretrain(_Scripted([0.0] * STEPS), recipe, _split(), seed=0, device=CPU, after_step=_never)
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
        pretrain(_Scripted([0.0] * STEPS), recipe, _split(), seed=0, device=CPU, after_step=_never)
    assert norms == [0.25] * STEPS  # 0 switches clipping off


def test_lamb_takes_a_step_of_the_rate_times_the_norm_whatever_the_gradients_size() -> None:
    recipe = dataclasses.replace(DEIT, optimizer="lamb", steps=1, warmup=1.0, weight_decay=0.05, clip_norm=1e-3)
    learner = _learner(recipe)
    weight = learner.get_parameter("backbone.blocks.0.mlp.fc1.weight")
    before = weight.detach().clone()
    pretrain(learner, recipe, DATASET.train, seed=0, device=CPU, after_step=_never)
    assert float((weight.detach() - before).norm()) == pytest.approx(recipe.lr * float(before.norm()), rel=1e-4)


def test_the_loss_falls_when_a_supervised_run_is_repeated_on_few_images() -> None:
    recipe = DeiT3Cpu(steps=40, batch_size=20, lr=5e-3, mixup=0.0, cutmix=0.0, three_augment=False, crop="simple")
    losses, _ = _run(recipe)
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
