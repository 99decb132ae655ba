"""Layers with own weights: names, copies, refusals. Their arithmetic is tested in ``test_routing_reference``."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.layers import LayerScale
from torch import nn

from specvit.models.routed_layers import OwnedPart, own_parameters, route
from specvit.specialization.modes import FULL, Mode, parse_mode
from specvit.specialization.token_rows import PrefixRows

from ..own_weights import original_name

PLAIN = [nn.Linear(5, 7), nn.Linear(5, 7, bias=False), nn.LayerNorm(5), LayerScale(5, 0.5)]


def _route(plain: nn.Module, mode: str = "full") -> nn.Module:
    size = 7 if isinstance(plain, nn.Linear) else 5
    return route(plain, plain, [OwnedPart("it", parse_mode(mode), 0, size)], PrefixRows())


@pytest.mark.parametrize("plain", PLAIN)
def test_a_layer_routed_to_its_own_copy_computes_the_plain_layer_to_the_last_bit(plain: nn.Module) -> None:
    x = torch.randn(3, 9, 5)
    assert torch.equal(_route(plain)(x), plain(x))


@pytest.mark.parametrize("plain", PLAIN)
def test_own_weights_are_a_copy_that_moves_alone(plain: nn.Module) -> None:
    routed = _route(plain)
    shared = {name: value.clone() for name, value in plain.state_dict().items()}
    with torch.no_grad():
        for parameter in own_parameters(routed).values():
            parameter.add_(1.0)
    for name, value in shared.items():
        assert torch.equal(getattr(routed, name), value)
        assert torch.equal(routed.get_parameter(f"own.it.{name}"), value + 1.0)


@pytest.mark.parametrize("plain", PLAIN)
def test_shared_weights_keep_the_names_of_the_plain_layer(plain: nn.Module) -> None:
    names = set(plain.state_dict())
    assert set(_route(plain).state_dict()) == names | {f"own.it.{name}" for name in names}


def test_own_parameters_are_those_of_the_routed_layers_alone() -> None:
    model = nn.ModuleDict({"plain": nn.Linear(3, 3), "routed": _route(nn.LayerNorm(5))})
    assert set(own_parameters(model)) == {"routed.own.it.weight", "routed.own.it.bias"}


@pytest.mark.parametrize("mode", ["full", "gate", "gate:token", "lora:2"])
def test_original_name_is_that_of_a_shared_parameter(mode: str) -> None:
    model = nn.ModuleDict({"layer": _route(nn.Linear(5, 7), mode)})
    shared = {name for name, _ in model.named_parameters()} - own_parameters(model).keys()
    for name in own_parameters(model):
        assert original_name(name) in shared
    assert original_name("blocks.0.ls1.own.layerscale.gamma") == "blocks.0.ls1.gamma"


def test_the_input_of_a_routed_layer_is_left_as_it_was() -> None:
    x = torch.randn(2, 4, 5, requires_grad=True)
    before = x.detach().clone()
    for plain in PLAIN:
        _route(plain)(x).sum().backward()
    assert torch.equal(x, before)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("plain", PLAIN)
def test_shared_weights_get_no_gradient_at_all_from_the_rows_with_own_weights(
    plain: nn.Module, autocast: bool
) -> None:
    """A rounding error in its place would be a step of full size for an optimizer that divides by it."""
    torch.manual_seed(0)
    routed = _route(copy.deepcopy(plain))
    routed.zero_grad(set_to_none=True)
    with torch.no_grad():
        for parameter in own_parameters(routed).values():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(3, 9, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = routed(x)
    y[:, 0].float().sin().sum().backward()
    own = own_parameters(routed)
    for name, parameter in routed.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == (name in own), name
    assert x.grad is not None
    assert not x.grad[:, 1:].any()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("mode", ["full", "gate", "gate:token"])
@pytest.mark.parametrize("plain", PLAIN)
def test_a_gradient_that_others_hold_too_is_left_as_it_was(plain: nn.Module, mode: str, autocast: bool) -> None:
    x = torch.randn(2, 4, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = _route(plain, mode)(x)
    gradient = torch.randn_like(y)
    before = gradient.clone()
    y.backward(gradient)
    assert torch.equal(gradient, before)


def test_route_refuses_a_layer_that_it_has_no_version_of() -> None:
    part = OwnedPart("it", FULL, 0, 4)
    with pytest.raises(TypeError, match="Conv2d"):
        route(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), [part], PrefixRows())
    with pytest.raises(TypeError, match="Linear"):
        route(nn.Linear(3, 3), nn.LayerNorm(3), [part], PrefixRows())


def test_a_gate_by_the_token_blends_each_token_by_the_sigmoid_of_its_own_value() -> None:
    routed = route(LayerScale(2, 1.0), LayerScale(2, 3.0), [OwnedPart("it", Mode("gate:token"), 0, 2)], PrefixRows(2))
    with torch.no_grad():
        routed.get_parameter("own.it.gate_weight").copy_(torch.tensor([1.0, 0.0]))
        routed.get_parameter("own.it.gate_bias").fill_(math.log(3))
    x = torch.tensor([[[math.log(2), 1.0], [-math.log(9), 1.0], [5.0, 1.0]]])
    # Odds of 3 x 2 and of 3 / 9: 6/7 and 1/4 of the way from a scale of 1 to one of 3; the third token is a patch.
    factors = torch.tensor([1 + 2 * 6 / 7, 1 + 2 / 4, 1.0]).view(1, 3, 1)
    torch.testing.assert_close(routed(x), x * factors)
