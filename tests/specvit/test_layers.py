"""Two-kinds layers against two plain layers on split tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specvit.layers import RoutedLayerNorm, RoutedLinear, route, routed_parameters

TOLERANCE = 1e-9
sizes = st.integers(1, 6)


def _split_reference(shared: nn.Module, own: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([own(x[:, :1]), shared(x[:, 1:])], dim=1)


def _check_against_two_layers(shared: nn.Module, own: nn.Module, routed: nn.Module, x: Tensor) -> None:
    """Compare outputs and all gradients; ``routed`` has taken over ``shared``'s parameters."""
    weight_of_output = torch.randn(1, dtype=x.dtype)

    def loss(y: Tensor) -> Tensor:
        return (y.sin() * weight_of_output + y.square()).sum()

    reference_x, routed_x = (x.clone().requires_grad_() for _ in range(2))
    expected = _split_reference(shared, own, reference_x)
    parameters = [*shared.parameters(), *own.parameters()]
    expected_gradients = torch.autograd.grad(loss(expected), [reference_x, *parameters])

    got = routed(routed_x)
    names = [name for name, _ in shared.named_parameters()]
    parameters = [getattr(routed, prefix + name) for prefix in ("", "cls_") for name in names]
    gradients = torch.autograd.grad(loss(got), [routed_x, *parameters])

    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(batch=sizes, tokens=sizes, width=sizes, outputs=sizes, bias=st.booleans(), seed=st.integers(0, 2**31))
def test_routed_linear_equals_two_linear_layers_in_outputs_and_all_gradients(
    batch: int, tokens: int, width: int, outputs: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    shared, own = (nn.Linear(width, outputs, bias=bias, dtype=torch.float64) for _ in range(2))
    x = torch.randn(batch, tokens, width, dtype=torch.float64)
    _check_against_two_layers(shared, own, RoutedLinear(shared, own), x)


@settings(max_examples=30, deadline=None)
@given(batch=sizes, tokens=sizes, width=st.integers(2, 8), seed=st.integers(0, 2**31))
def test_routed_layer_norm_equals_two_layer_norms_in_outputs_and_all_gradients(
    batch: int, tokens: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    shared, own = (nn.LayerNorm(width, eps=1e-6, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        for parameter in (*shared.parameters(), *own.parameters()):
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(batch, tokens, width, dtype=torch.float64)
    _check_against_two_layers(shared, own, RoutedLayerNorm(shared, own), x)


@pytest.mark.parametrize("plain", [nn.Linear(5, 7), nn.Linear(5, 7, bias=False), nn.LayerNorm(5)])
def test_a_layer_routed_to_its_own_copy_computes_the_plain_layer_to_the_last_bit(plain: nn.Module) -> None:
    x = torch.randn(3, 9, 5)
    expected = plain(x)
    assert torch.equal(route(plain, plain)(x), expected)


@pytest.mark.parametrize("plain", [nn.Linear(5, 7), nn.LayerNorm(5)])
def test_own_weights_are_a_copy_that_moves_alone(plain: nn.Module) -> None:
    routed = route(plain, plain)
    shared = {name: value.clone() for name, value in plain.state_dict().items()}
    with torch.no_grad():
        for parameter in routed_parameters(routed).values():
            parameter.add_(1.0)
    for name, value in shared.items():
        assert torch.equal(getattr(routed, name), value)
        assert torch.equal(getattr(routed, f"cls_{name}"), value + 1.0)


def test_shared_weights_keep_the_names_of_the_plain_layer() -> None:
    for plain in (nn.Linear(3, 4), nn.LayerNorm(3)):
        names = {"weight", "bias"}
        assert set(route(plain, plain).state_dict()) == names | {f"cls_{name}" for name in names}


def test_routed_parameters_are_those_of_the_two_kinds_layers_alone() -> None:
    linear = nn.Linear(3, 3)
    model = nn.ModuleDict({"plain": nn.Linear(3, 3), "routed": route(linear, linear)})
    assert set(routed_parameters(model)) == {"routed.cls_weight", "routed.cls_bias"}


def test_route_refuses_a_layer_that_it_has_no_version_of() -> None:
    with pytest.raises(TypeError, match="Conv2d"):
        route(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1))
    with pytest.raises(TypeError, match="Linear"):
        route(nn.Linear(3, 3), nn.LayerNorm(3))
