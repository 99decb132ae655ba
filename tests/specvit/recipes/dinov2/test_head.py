"""The projection head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from specvit.recipes.dinov2.head import JOINT_FROM, DinoHead, DinoNetwork


def _head() -> DinoHead:
    torch.manual_seed(0)
    return DinoHead(6, hidden=10, bottleneck=4, num_prototypes=9)


def test_outputs_are_cosines_with_the_prototypes() -> None:
    head = _head()
    x = 5 * torch.randn(3, 7, 6)
    out = head(x)
    assert out.shape == (3, 7, 9)
    assert out.abs().max() <= 1 + 1e-6
    bottleneck = head.mlp(x)
    for prototype in range(9):
        cosine = F.cosine_similarity(bottleneck, head.prototypes.weight[prototype].expand_as(bottleneck), dim=-1)
        torch.testing.assert_close(out[..., prototype], cosine, rtol=0, atol=1e-6)


def test_the_head_equals_one_with_torchs_weight_norm_of_gain_one() -> None:
    head = _head()
    last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 9, bias=False))
    with torch.no_grad():
        last.parametrizations.weight.original0.fill_(1.0)
        last.parametrizations.weight.original1.copy_(head.prototypes.weight)
    x = torch.randn(5, 6)
    torch.testing.assert_close(head(x), last(F.normalize(head.mlp(x), dim=-1)))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("num_prototypes", [9, JOINT_FROM])
def test_outputs_and_gradients_are_those_of_the_heads_one_by_one(shared: bool, num_prototypes: int) -> None:
    torch.manual_seed(0)
    heads = [DinoHead(6, hidden=10, bottleneck=4, num_prototypes=num_prototypes).double() for _ in range(2)]
    network = DinoNetwork(nn.Identity(), cls_head=heads[0], patch_head=heads[0 if shared else 1])  # type: ignore[arg-type]
    views = [torch.randn(rows, 6, dtype=torch.float64) for rows in (4, 2)]
    patches = torch.randn(5, 6, dtype=torch.float64)
    weight = heads[0].prototypes.weight
    results = []
    for cls, patch in (
        network.project(views, patches),
        (torch.cat([heads[0](view) for view in views]), network.patch_head(patches)),
    ):
        assert (cls.shape, patch.shape) == ((6, num_prototypes), (5, num_prototypes))
        (gradient,) = torch.autograd.grad(cls.square().sum() + (3 * patch).sin().sum(), weight)
        results.append((cls, patch, gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert network.project(views, patches[:0])[1].shape == (0, num_prototypes)


def test_the_length_of_prototypes_does_not_matter() -> None:
    head = _head()
    x = torch.randn(5, 6)
    before = head(x)
    with torch.no_grad():
        head.prototypes.weight.mul_(torch.linspace(0.5, 3.0, 9).view(-1, 1))
    torch.testing.assert_close(head(x), before)


def test_the_mlp_has_three_layers_with_small_weights_and_no_biases_at_first() -> None:
    head = DinoHead(64, hidden=128, bottleneck=32, num_prototypes=16)
    layers = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 128), (128, 128), (128, 32)]
    assert sum(isinstance(layer, nn.GELU) for layer in head.mlp) == 2
    for layer in layers:
        assert not layer.bias.any()
        assert abs(float(layer.weight.detach().std()) - 0.02) < 0.002
