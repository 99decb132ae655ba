"""Patch diversification: losses against references with loops, and the patches they are computed on."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from specvit.comparators.patch_diversification.regulariser import (
    patch_contrast,
    patch_cosine,
    patch_mixing,
)
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.errors import ConfigError
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode
from specvit.recipes.deit3.learner import DeiT3Learner
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.training.learner import Batch
from specvit.training.mixing import Mixing, PatchLabels

SCALE = Scale(width=16, depth=3, num_heads=2)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_patch_cosine_equals_a_loop_over_pairs() -> None:
    patches = drawn(3, 5, 4)
    pairs = [
        abs(float(image[i] @ image[j] / (image[i].norm() * image[j].norm())))
        for image in patches
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert float(patch_cosine(patches)) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_patch_cosine_known_values() -> None:
    assert float(patch_cosine(torch.eye(4).unsqueeze(0))) == 0.0
    assert float(patch_cosine(torch.ones(2, 4, 3))) == pytest.approx(1.0)
    assert float(patch_cosine(torch.tensor([[[1.0, 0.0], [-2.0, 0.0]]]))) == pytest.approx(1.0)
    assert float(patch_cosine(torch.ones(2, 1, 3))) == 0.0


def test_patch_contrast_equals_a_loop_over_patches() -> None:
    first, last = drawn(3, 5, 4), drawn(3, 5, 4, seed=1)
    terms = []
    for f, h in zip(first, last, strict=True):
        for i in range(5):
            others = sum(h[j] for j in range(5) if j != i) / 4
            own, other = math.exp(f[i] @ h[i]), math.exp(f[i] @ others)
            terms.append(-math.log(own / (own + other)))
    assert float(patch_contrast(first, last)) == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_patch_contrast_known_values_and_no_gradient_to_the_first_layer() -> None:
    assert float(patch_contrast(torch.ones(2, 3, 4), torch.ones(2, 3, 4))) == pytest.approx(math.log(2))
    assert float(patch_contrast(torch.ones(2, 1, 4), torch.ones(2, 1, 4))) == 0.0
    first, last = drawn(1, 3, 4).requires_grad_(), drawn(1, 3, 4, seed=1).requires_grad_()
    patch_contrast(first, last).backward()
    assert first.grad is None
    assert last.grad is not None


def test_extra_losses_are_weighted_and_left_out_at_0() -> None:
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4)).train()
    images = torch.randn(2, 3, 16, 16)
    first = model.blocks[0](model._pos_embed(model.patch_embed(images)))[:, 1:]

    def losses(**weights: float) -> dict[str, Tensor]:
        regulariser = PatchDiversification(**weights).build_regulariser(model, num_classes=4, seed=0)
        return regulariser(encode(model, images).patches)

    both, last = losses(cosine_weight=2.0, contrast_weight=0.5), encode(model, images).patches
    assert float(both["patch_cosine"].detach()) == pytest.approx(2 * float(patch_cosine(last).detach()))
    assert float(both["patch_contrast"].detach()) == pytest.approx(0.5 * float(patch_contrast(first, last).detach()))
    assert set(losses(cosine_weight=0.0)) == {"patch_contrast"}


def test_regulariser_without_a_training_pass_before_is_refused() -> None:
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
    unwatched = copy.deepcopy(model)
    regulariser = PatchDiversification().build_regulariser(model, num_classes=4, seed=0)
    encode(unwatched.train(), torch.randn(2, 3, 16, 16))
    encode(model.eval(), torch.randn(2, 3, 16, 16))
    with pytest.raises(RuntimeError, match="just before"):
        regulariser(torch.zeros(2, 16, 16))


def test_patch_mixing_equals_a_loop_over_patches() -> None:
    logits, own, other = drawn(3, 5, 4), [0, 3, 1], [1, 3, 0]
    share = [1.0, 0.0, 0.25, 1.0, 0.5]
    terms = []
    for image in range(3):
        for patch, left in enumerate(share):
            exps = [math.exp(z) for z in logits[image, patch].tolist()]
            terms.append(-left * math.log(exps[own[image]] / sum(exps)))
            terms[-1] -= (1 - left) * math.log(exps[other[image]] / sum(exps))
    labels = PatchLabels(torch.tensor(own), torch.tensor(other), torch.tensor(share, dtype=torch.float64))
    assert float(patch_mixing(logits, labels)) == pytest.approx(sum(terms) / 15, rel=1e-12)


def test_patch_mixing_of_patches_that_show_their_image_is_near_0_by_cutmix() -> None:
    # Two images of classes 0 and 1 with a pasted box of one patch out of four: logits that tell the pixels' image.
    labels = Mixing(0.75, (0, 4, 4, 8)).patch_labels(torch.tensor([0, 1]), size=(8, 8), patch_size=(4, 4))
    of_image = torch.tensor([[[40.0, 0.0]], [[0.0, 40.0]]]).expand(2, 4, 2)
    told = of_image.clone()
    told[:, 1] = of_image.flip(0)[:, 1]
    assert float(patch_mixing(told, labels)) < 1e-6
    assert float(patch_mixing(of_image, labels)) == pytest.approx(40 / 4)


def test_the_mixing_loss_is_trained_along_with_its_own_classifier() -> None:
    recipe = DeiT3Cpu()
    backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, cls_position=False)).train()
    learner = DeiT3Learner(backbone, recipe, num_classes=4, seed=0)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    batch = Batch(images=images, labels=torch.tensor([0, 1, 2, 3, 0, 1]), step=0, steps=4, seed=0)
    plain = learner.losses(batch)
    comparator = PatchDiversification(mixing_weight=0.5)
    comparator.check_recipe(recipe)
    learner.regulariser = comparator.build_regulariser(backbone, num_classes=4, seed=0)
    names = {name for name, _ in learner.named_parameters() if "regulariser" in name}
    assert names == {"regulariser.classifier.weight", "regulariser.classifier.bias"}
    losses = learner.losses(batch)
    assert set(losses) == {"bce", "patch_cosine", "patch_contrast", "patch_mixing"}
    assert torch.equal(losses["bce"], plain["bce"])
    # Four classes, small logits: about log 4.
    assert float(losses["patch_mixing"].detach()) == pytest.approx(0.5 * math.log(4), rel=0.1)
    losses["patch_mixing"].backward()
    assert learner.get_parameter("regulariser.classifier.weight").grad is not None
    assert backbone.patch_embed.proj.weight.grad is not None


def test_the_mixing_loss_alone_is_a_comparator_and_off_it_has_no_classifier() -> None:
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
    alone = PatchDiversification(cosine_weight=0.0, contrast_weight=0.0, mixing_weight=1.0)
    one, same, other = (alone.build_regulariser(model, num_classes=3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(one["classifier.weight"], same["classifier.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
    assert not list(PatchDiversification().build_regulariser(model, num_classes=3, seed=0).parameters())
    with pytest.raises(ValueError, match="or it is the baseline"):
        PatchDiversification(cosine_weight=0.0, contrast_weight=0.0)


def test_patches_without_classes_are_refused() -> None:
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4)).train()
    regulariser = PatchDiversification(mixing_weight=1.0).build_regulariser(model, num_classes=3, seed=0)
    last = encode(model, torch.randn(2, 3, 16, 16)).patches
    with pytest.raises(ConfigError, match=r"mixing_weight must be 0 .*not 1\.0"):
        regulariser(last)
