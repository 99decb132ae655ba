"""Patch diversification: losses against references with loops, and the patches they are computed on."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from specvit.comparators.patch_diversification import PatchDiversification
from specvit.scales import Scale
from specvit.trunks.diversification import PatchRegulariser, patch_contrast, patch_cosine
from specvit.vit import build_vit, encode

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
    first, last = drawn(2, 5, 4), drawn(2, 5, 4, seed=1)
    losses = PatchDiversification(cosine_weight=2.0, contrast_weight=0.5).extra_losses(first, last)
    assert float(losses["patch_cosine"]) == pytest.approx(2 * float(patch_cosine(last)))
    assert float(losses["patch_contrast"]) == pytest.approx(0.5 * float(patch_contrast(first, last)))
    assert set(PatchDiversification(cosine_weight=0.0).extra_losses(first, last)) == {"patch_contrast"}


def test_regulariser_takes_the_patches_after_the_first_block_and_those_given() -> None:
    model = build_vit(SCALE, image_size=16, patch_size=4).train()
    seen: list[tuple[Tensor, Tensor]] = []
    regulariser = PatchRegulariser(model, lambda first, last: seen.append((first, last)) or {})
    images = torch.randn(2, 3, 16, 16)
    last = encode(model, images).patches
    assert regulariser(last) == {}
    ((first, given),) = seen
    assert given is last
    torch.testing.assert_close(first, model.blocks[0](model._pos_embed(model.patch_embed(images)))[:, 1:])


def test_regulariser_without_a_training_pass_before_is_refused() -> None:
    model = build_vit(SCALE, image_size=16, patch_size=4)
    unwatched = copy.deepcopy(model)
    regulariser = PatchRegulariser(model, PatchDiversification().extra_losses)
    encode(unwatched.train(), torch.randn(2, 3, 16, 16))
    encode(model.eval(), torch.randn(2, 3, 16, 16))
    with pytest.raises(RuntimeError, match="just before"):
        regulariser(torch.zeros(2, 16, 16))
