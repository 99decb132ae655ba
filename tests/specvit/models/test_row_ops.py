"""Operations on a few rows: their derivatives by finite differences, and what autocast rounds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from torch import Tensor, nn

from specvit.models.routed_layers import OwnedPart, route
from specvit.models.row_ops import layer_norm_with_rows, linear_with_rows, scale_with_rows
from specvit.specialization.modes import parse_mode
from specvit.specialization.token_rows import PrefixRows


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("sizes", "rows"), [({0: 6}, (0, 1)), ({2: 2}, (2, 3)), ({0: 2, 4: 2}, (0, 2))])
def test_the_derivatives_of_a_linear_map_with_own_rows_are_those_of_finite_differences(
    sizes: dict[int, int], rows: tuple[int, int]
) -> None:
    torch.manual_seed(0)

    def mapped(x: Tensor, weight: Tensor, bias: Tensor, *own: Tensor) -> Tensor:
        pairs = list(zip(own[::2], own[1::2], strict=True))
        return linear_with_rows(x, shared=(weight, bias), own=pairs, rows=rows, firsts=tuple(sizes))

    own = [value for size in sizes.values() for value in (_draw(size, 3), _draw(size))]
    torch.autograd.gradcheck(mapped, (_draw(2, 4, 3), _draw(6, 3), _draw(6), *own))


@pytest.mark.parametrize("rows", [(0, 2), (2, 3)])
def test_the_derivatives_of_norms_and_scales_with_own_rows_are_those_of_finite_differences(
    rows: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    torch.autograd.gradcheck(
        lambda x, *w: layer_norm_with_rows(x, shared=w[:2], own=w[2:], rows=rows, eps=1e-6),
        (_draw(2, 4, 3), *(_draw(3) for _ in range(4))),
    )
    torch.autograd.gradcheck(
        lambda x, shared, own: scale_with_rows(x, shared=shared, own=own, rows=rows),
        (_draw(2, 4, 3), _draw(3), _draw(3)),
    )


@pytest.mark.parametrize("mode", ["full", "gate", "gate:token"])
@pytest.mark.parametrize("plain", [nn.Linear(64, 48), nn.LayerNorm(64), LayerScale(64, 0.5)])
def test_own_weights_much_smaller_than_shared_ones_are_rounded_as_by_a_plain_layer(plain: nn.Module, mode: str) -> None:
    torch.manual_seed(0)
    size = next(plain.parameters()).shape[0]
    layer = route(plain, plain, [OwnedPart("it", parse_mode(mode), 0, size)], PrefixRows())
    small = {name: 1e-3 * torch.randn_like(value) for name, value in plain.named_parameters()}
    with torch.no_grad():
        for name, value in small.items():
            layer.get_parameter(f"own.it.{name}").copy_(value)
        for name, value in layer.named_parameters():
            if name.endswith(("gate", "gate_bias")):
                value.fill_(30.0 if name.endswith("bias") else 1.0)  # open
    x = torch.randn(64, 3, 64)
    exact = torch.func.functional_call(plain, small, x[:, :1])
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.func.functional_call(plain, small, x[:, :1])
        found = layer(x)[:, :1]
    assert found.dtype == expected.dtype
    error, of_plain = ((rows.float() - exact).norm() / exact.norm() for rows in (found, expected))
    assert error <= 1.05 * of_plain + 5e-5


def test_operations_cast_as_autocast_does() -> None:
    x, weight, bias = torch.randn(2, 4, 3), torch.randn(6, 3), torch.randn(6)
    for given in (x, x.bfloat16(), x.double()):
        w, b = (weight.double(), bias.double()) if given.dtype == torch.float64 else (weight, bias)
        with torch.autocast("cpu", torch.bfloat16):
            plain = F.linear(given, w, b)
            own = linear_with_rows(given, shared=(w, b), own=[(w, b)], rows=(0, 1), firsts=(0,)).view(plain.shape)
        assert own.dtype == plain.dtype
        assert torch.equal(own[:, 1:], plain[:, 1:])
