"""Blocks that compute a part of the batch: which part, at what scale, and the same part for all arms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.stochastic_depth import SubsetBlock, add_to_subset
from specvit.models.vit import build_vit

SCALE = Scale(width=16, depth=3, num_heads=2)


def _vit(text: str = "none", *, rate: float = 0.5, uniform: bool = True, subset: bool = True) -> VisionTransformer:
    config = VitConfig(
        SCALE,
        image_size=16,
        patch_size=4,
        specialization=text,
        layer_scale=0.1,
        drop_path=rate,
        drop_path_uniform=uniform,
        drop_path_subset=subset,
    )
    return build_vit(config).train()


def _images(num: int = 6) -> Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("num_images", "rate", "size"),
    [(10, 0.3, 7), (10, 0.25, 7), (4, 0.3, 2), (3, 0.9, 1), (1, 0.5, 1), (64, 0.4, 38)],
)
def test_a_fixed_number_of_images_gets_the_residual_scaled_by_its_share(
    num_images: int, rate: float, size: int
) -> None:
    x = torch.arange(num_images * 2 * 3, dtype=torch.float64).view(num_images, 2, 3)
    seen: list[Tensor] = []

    def residual(part: Tensor) -> Tensor:
        seen.append(part)
        return torch.ones_like(part)

    change = add_to_subset(x, residual, rate=rate) - x
    assert [part.shape for part in seen] == [(size, 2, 3)]
    of_image = change[:, 0, 0]
    torch.testing.assert_close(change, of_image.view(-1, 1, 1).expand_as(change))
    assert int((of_image != 0).sum()) == size
    torch.testing.assert_close(of_image[of_image != 0], torch.full((size,), num_images / size, dtype=torch.float64))
    # Every image that was left out is as before, to the last bit, and each other got the residual of itself.
    assert torch.equal(seen[0].sort(dim=0).values, x[of_image != 0])


def test_the_expected_value_is_the_whole_residual() -> None:
    torch.manual_seed(0)
    x = torch.zeros(8, 1, 1, dtype=torch.float64)
    draws = torch.stack([add_to_subset(x, lambda part: part + 1.0, rate=0.5) for _ in range(4000)])
    # Each draw is 0 or 2: a standard error of 1 / sqrt(4000).
    torch.testing.assert_close(draws.mean(dim=0), torch.ones_like(x), rtol=0, atol=4 / 4000**0.5)


def test_the_gradient_is_that_of_the_chosen_images_alone() -> None:
    x = torch.ones(4, 1, 1, dtype=torch.float64, requires_grad=True)
    y = add_to_subset(x, lambda part: 3 * part, rate=0.5)
    y.sum().backward()
    chosen = y.detach().flatten() > 1
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(), torch.where(chosen, 1.0 + 2 * 3, 1.0).double())


def test_a_block_computes_timms_residuals_for_its_subsets() -> None:
    model = _vit(rate=0.5)
    block: Any = model.blocks[1]
    x = torch.randn(4, 17, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    got = block(x)
    torch.manual_seed(5)
    first, second = (torch.randperm(4)[:2] for _ in range(2))
    expected = x.clone()
    expected[first] += 2 * block.ls1(block.attn(block.norm1(x[first])))
    expected[second] += 2 * block.ls2(block.mlp(block.norm2(expected[second])))
    torch.testing.assert_close(got, expected)


def test_blocks_that_do_not_train_and_blocks_of_rate_zero_are_timms_and_draw_nothing() -> None:
    plain = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, layer_scale=0.1))
    state = torch.get_rng_state()
    for model in (_vit(rate=0.5).eval(), _vit(rate=0.0)):
        assert torch.equal(model.forward_features(_images()), plain.forward_features(_images()))
    assert torch.equal(torch.get_rng_state(), state)
    linear: Any = _vit(rate=0.5, uniform=False).blocks[0]  # its rate is 0, of 0, 0.25 and 0.5
    x = torch.randn(4, 17, 16, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    assert torch.equal(linear(x), Block.forward(linear, x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("uniform", "rates"), [(True, [0.4, 0.4, 0.4]), (False, [0.0, 0.2, 0.4])])
@pytest.mark.parametrize("subset", [True, False])
def test_rates_are_the_same_in_all_blocks_or_rise_from_zero(
    uniform: bool, subset: bool, rates: list[float]
) -> None:
    model = _vit(rate=0.4, uniform=uniform, subset=subset)
    for block, rate in zip(model.blocks, rates, strict=True):
        assert isinstance(block, Block)
        assert isinstance(block, SubsetBlock) is subset
        for drop in (block.drop_path1, block.drop_path2):
            assert getattr(drop, "drop_prob", 0.0) == pytest.approx(rate)
            assert isinstance(drop, DropPath) is (rate > 0)


def test_the_names_of_parameters_stay() -> None:
    plain = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, layer_scale=0.1, drop_path=0.5))
    assert list(_vit().state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("subset", [True, False])
def test_arms_leave_out_the_same_images_and_compute_the_same_from_copies(subset: bool) -> None:
    outputs = []
    for text in ("none", "norm+qkv", "mlp+proj+layerscale"):
        model = _vit(text, subset=subset)
        torch.manual_seed(7)
        outputs.append(model.forward_features(_images()).detach())
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    torch.manual_seed(8)
    assert not torch.equal(_vit(subset=subset).forward_features(_images()), outputs[0])
