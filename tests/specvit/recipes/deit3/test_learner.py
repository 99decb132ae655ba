"""DeiT-III's learner: its losses, its heads, and what arms of a pair share."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from specvit.data import Dataset, Split
from specvit.errors import ConfigError, DataError
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.deit3 import learner as deit3
from specvit.recipes.deit3.learner import DeiT3Learner
from specvit.recipes.deit3.settings import DeiT3, DeiT3Cpu
from specvit.training.learner import Batch
from specvit.training.mixing import Mixing

SCALE = Scale(width=16, depth=2, num_heads=2)
C = 4
K = 3
LABELS = (0, 1, 2, 3, 0, 1)
PLAIN = {"three_augment": False, "colour_jitter": 0.0, "crop": "resized", "crop_scale": (1.0, 1.0)}


def _learner(text: str = "none", **changes: Any) -> DeiT3Learner:
    recipe = DeiT3Cpu(**changes)
    backbone = build_vit(
        VitConfig(
            SCALE,
            image_size=16,
            patch_size=4,
            specialization=text,
            layer_scale=recipe.layer_scale,
            cls_position=recipe.cls_position,
        ),
    )
    return DeiT3Learner(backbone, recipe, num_classes=C, num_mask_classes=K, seed=0)


def _batch(*, step: int = 0, labels: bool = True, masks: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 16, 16, generator=generator)
    drawn = torch.randint(0, K, (6, 16, 16), generator=generator).to(torch.uint8)
    return Batch(
        images=images,
        labels=torch.tensor(LABELS) if labels else None,
        step=step,
        steps=10,
        seed=0,
        masks=drawn if masks else None,
    )


def _fix_mixing(monkeypatch: pytest.MonkeyPatch, mixing: Mixing) -> None:
    monkeypatch.setattr(deit3, "sample_mixing", lambda _size, **_: mixing)


def test_published_constants_are_those_of_the_paper() -> None:
    recipe = DeiT3()
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.repeats) == ("lamb", 4e-3, 0.05, 3)
    assert (recipe.drop_path, recipe.drop_path_uniform, recipe.layer_scale) == (0.05, True, 1e-4)
    assert (recipe.cls_position, recipe.cls_std) == (False, 0.02)  # models_v2.py: trunc_normal_(cls_token, std=.02)
    assert recipe.min_lr == 1e-5  # main.py, --min-lr
    # 800 epochs of 1,281,167 images, 5 of them to warm up.
    assert recipe.steps == pytest.approx(800 * 1_281_167 / 2048, rel=1e-3)
    assert recipe.warmup == 5 / 800


def test_the_loss_is_binary_cross_entropy_on_every_class_present_in_the_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = _learner()
    logits = torch.linspace(-2, 2, 6 * C).view(6, C)
    monkeypatch.setattr(learner.head, "forward", lambda _: logits)
    _fix_mixing(monkeypatch, Mixing(0.3))
    terms = []
    for row, label, other in zip(logits.tolist(), LABELS, reversed(LABELS), strict=True):
        for name, logit in enumerate(row):
            probability = 1 / (1 + math.exp(-logit))
            terms.append(-math.log(probability if name in (label, other) else 1 - probability))
    losses = learner.losses(_batch())
    assert set(losses) == {"bce"}
    assert float(losses["bce"]) == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_a_label_that_was_mixed_out_entirely_does_not_count_as_present(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner()
    logits = torch.zeros(6, C)
    logits[:, 0] = 30.0  # certain of class 0, which is in the labels of images 0 and 4 alone
    monkeypatch.setattr(learner.head, "forward", lambda _: logits)
    _fix_mixing(monkeypatch, Mixing(1.0, (4, 4, 4, 4)))
    # Four images without class 0 lose 30 each; every other logit is 0 and loses log 2.
    expected = (4 * 30.0 + 18 * math.log(2)) / (6 * C)
    assert float(learner.losses(_batch())["bce"]) == pytest.approx(expected, rel=1e-6)


def test_trivial_losses_are_those_of_an_answer_by_the_frequencies_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner(dense_weight=0.5)
    _fix_mixing(monkeypatch, Mixing())
    batch = _batch(masks=True)
    pixels = deit3.augment_masks(batch, learner.recipe).flatten().tolist()
    of_images = [LABELS.count(name) / len(LABELS) for name in range(C)]
    of_pixels = [pixels.count(name) / len(pixels) for name in range(K)]
    logits = torch.tensor([math.log(share / (1 - share)) for share in of_images])
    monkeypatch.setattr(learner.head, "forward", lambda cls: logits.expand(len(cls), -1))
    dense = torch.tensor([math.log(share) for share in of_pixels])
    monkeypatch.setattr(learner.dense_head, "forward", lambda patches: dense.expand(*patches.shape[:2], -1))
    expected = {
        "bce": -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in of_images) / C,
        "dense": -sum(p * math.log(p) for p in of_pixels),
    }
    for size in (6, 4):
        found = learner.summarise(learner.measure(batch, size=size))
        for name, value in expected.items():
            assert found[f"{name}_loss"] == pytest.approx(value, rel=1e-5)
            assert found[f"{name}_loss_trivial"] == pytest.approx(value, rel=1e-6)


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        _learner().losses(_batch(labels=False))


def test_arms_of_a_pair_see_equal_images_and_have_equal_losses_from_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    normalise = deit3.normalise
    monkeypatch.setattr(deit3, "normalise", lambda images: seen.append(images) or normalise(images))
    losses = [_learner(text).losses(_batch())["bce"] for text in ("none", "norm+qkv+mlp+final_norm")]
    assert torch.equal(*seen)
    assert torch.equal(*losses)
    _learner().losses(_batch(step=1))
    assert not torch.equal(seen[0], seen[2])


def test_the_backbone_that_is_trained_is_the_one_that_is_probed() -> None:
    learner = _learner()
    assert learner.eval_backbone is learner.backbone
    learner.losses(_batch())["bce"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())


def test_the_head_does_not_depend_on_the_specialization_or_the_dense_loss() -> None:
    plain, arm, dense = _learner(), _learner("qkv"), _learner(dense_weight=1.0)
    assert torch.equal(plain.head.weight, arm.head.weight)
    assert torch.equal(plain.head.weight, dense.head.weight)
    assert not plain.head.bias.any()


def test_without_a_dense_loss_there_is_no_head_for_it_and_masks_change_nothing() -> None:
    plain, dense = _learner(), _learner(dense_weight=0.5)
    assert set(dense.state_dict()) - set(plain.state_dict()) == {"dense_head.weight", "dense_head.bias"}
    losses = plain.losses(_batch())
    assert set(losses) == set(plain.losses(_batch(masks=True))) == {"bce"}
    with_dense = dense.losses(_batch(masks=True))
    assert set(with_dense) == {"bce", "dense"}
    assert torch.equal(losses["bce"], with_dense["bce"])


@pytest.mark.parametrize("mixing", [Mixing(), Mixing(0.6), Mixing(1 - 35 / 256, (3, 8, 5, 12))])
def test_the_dense_loss_is_the_weighted_cross_entropy_of_the_pixels_of_mixed_masks(
    monkeypatch: pytest.MonkeyPatch, mixing: Mixing
) -> None:
    learner = _learner(dense_weight=0.5, **PLAIN)
    logits = torch.randn(6, 16, K, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(learner.dense_head, "forward", lambda _: logits)
    monkeypatch.setattr(deit3, "augment_masks", lambda batch, _: batch.masks)
    _fix_mixing(monkeypatch, mixing)
    batch = _batch(masks=True)
    assert batch.masks is not None
    masks, scores = batch.masks.numpy(), logits.double().numpy()
    # 4 patches in a row; each pixel has its patch's scores.
    losses = np.log(np.exp(scores).sum(-1, keepdims=True)) - scores
    pixels = losses.reshape(6, 4, 4, K).repeat(4, axis=1).repeat(4, axis=2)
    own, other = (np.take_along_axis(pixels, m[..., None].astype(int), -1)[..., 0] for m in (masks, masks[::-1]))
    share = np.full((16, 16), mixing.share)
    if mixing.box is not None:
        share[:] = 1.0
        share[3:8, 5:12] = 0.0
    expected = 0.5 * (share * own + (1 - share) * other).mean()
    assert float(learner.losses(batch)["dense"]) == pytest.approx(expected, rel=1e-5)


def test_the_dense_loss_trains_its_head_and_the_patches() -> None:
    learner = _learner(dense_weight=1.0)
    learner.losses(_batch(masks=True))["dense"].backward()
    assert learner.dense_head.weight.grad is not None
    assert learner.dense_head.weight.grad.any()
    assert learner.backbone.patch_embed.proj.weight.grad is not None
    assert learner.head.weight.grad is None


def test_the_dense_loss_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="masks"):
        _learner(dense_weight=1.0).losses(_batch())


def _dataset(masks: Any) -> Dataset:
    split = Split(images=np.zeros((2, 3, 16, 16), np.uint8), labels=np.zeros(2, np.int64), masks=masks)
    return Dataset(train=split, val=split, class_names=tuple("abcd"), mask_names=tuple("xyz"), fingerprint="")


def test_build_checks_the_masks_where_there_is_a_dense_loss() -> None:
    def build(weight: float, masks: Any) -> Any:
        backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
        return build_learner(DeiT3Cpu(dense_weight=weight), backbone, _dataset(masks), seed=0)

    masks = np.full((2, 16, 16), 2, np.uint8)
    assert build(1.0, masks).dense_head.out_features == 3
    assert not hasattr(build(0.0, None), "dense_head")
    with pytest.raises(ConfigError, match=r"objective\.dense_weight: must be 0"):
        build(1.0, None)
    with pytest.raises(DataError, match="but a pixel is 3"):
        build(1.0, masks + 1)


def test_what_a_recipe_requires_follows_its_settings() -> None:
    recipe = DeiT3Cpu()
    assert recipe.required_targets() == {"labels": "recipe"}
    dense = dataclasses.replace(recipe, dense_weight=0.1)
    assert dense.required_targets() == {"labels": "recipe", "masks": "dense_weight"}
    assert recipe.labels_patches()
    assert not DeiT3Cpu(cutmix=0.0).labels_patches()
    assert (recipe.copies(), DeiT3().copies()) == (1, 3)
