"""Layers that map a few rows of a sequence by weights of their own, with their backward written out.

Shapes: B images, N tokens, R of them the rows, D channels in, E out.

Autograd's own slicing and in-place addition copy whole gradients to touch a few rows. These operations touch
the few rows only. When torch.compile traces a model, it sees ordinary operations instead, which it fuses by
itself.

Under autocast they cast what it would cast, and no more: a linear map computes in the narrow type, a norm in the
weights' type. What a backward returns in another type than the input's, autograd casts, as for the plain layer.

What only the rows reach gives the shared weights no gradient at all, not a difference of two sums: that would
hold their rounding error, which an optimizer that divides by its size turns into steps. So rows of the gradient are
zero while those weights' gradients are computed, and are put back before the backward returns: others may hold that
gradient too, and none of them looks in between, for autograd runs one operation at a time on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_ALL = [True, True, True]
"""Which gradients of a layer norm are wanted: input, scale, shift."""

_EXACT = (torch.float32, torch.float64)
"""Types in which own rows are the shared ones and a difference."""


def refuse_double_backward() -> None:
    """Refuse to be differentiated twice: these backwards write in place, and hold no second derivative.

    ``once_differentiable`` would say so too, but its wrapper takes tens of microseconds a call.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("own weights can be differentiated once: create_graph=True is not supported")


class _LayerNormRows(torch.autograd.Function):
    """Normalise all rows by shared weights, then some of them once more by their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        own_weight: Tensor,
        own_bias: Tensor,
        rows: tuple[int, int],
        eps: float,
    ) -> Tensor:
        start, count, shape = rows[0], rows[1] - rows[0], weight.shape
        x = x.to(weight.dtype)
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        x_rows = x.narrow(1, start, count).contiguous()
        y_rows, own_mean, own_rstd = torch.native_layer_norm(x_rows, shape, own_weight, own_bias, eps)
        y.narrow(1, start, count).copy_(y_rows)
        ctx.save_for_backward(x, mean, rstd, weight, bias, x_rows, own_mean, own_rstd, own_weight, own_bias)
        ctx.rows = (start, count)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        x, mean, rstd, weight, bias, x_rows, own_mean, own_rstd, own_weight, own_bias = ctx.saved_tensors
        # As few calls as can be: beside large products, Python itself is what costs here.
        (start, count), shape = ctx.rows, weight.shape
        grad = grad.contiguous()
        rows = grad.narrow(1, start, count)
        grad_rows = rows.clone()
        rows.zero_()  # for a while, as in ``_LinearRows``
        grad_x, grad_weight, grad_bias = _layer_norm_backward(grad, x, shape, mean, rstd, weight, bias, _ALL)
        rows.copy_(grad_rows)
        grad_x_rows, grad_own_weight, grad_own_bias = _layer_norm_backward(
            grad_rows, x_rows, shape, own_mean, own_rstd, own_weight, own_bias, _ALL
        )
        grad_x.narrow(1, start, count).copy_(grad_x_rows)
        return grad_x, grad_weight, grad_bias, grad_own_weight, grad_own_bias, None, None


class _LinearRows(torch.autograd.Function):
    """Map all rows linearly, and some of them, at some outputs, by weights of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: tuple[int, int],
        dtype: torch.dtype,
        firsts: Sequence[int],
        *own: Tensor | None,
    ) -> Tensor:
        x, weight = x.to(dtype), weight.to(dtype)
        bias, *own_biases = (None if value is None else value.to(dtype) for value in (bias, *own[1::2]))
        own_weights = [value.to(dtype) for value in own[::2] if value is not None]
        start, count = rows[0], rows[1] - rows[0]
        # Of flattened tokens the result is no view, so that it can be added to.
        y = torch.nn.functional.linear(x.flatten(0, 1), weight, bias)
        x_rows = x.narrow(1, start, count).flatten(0, 1)
        y_rows = y.view(len(x), -1, len(weight)).narrow(1, start, count)
        for first, own_weight, own_bias in zip(firsts, own_weights, own_biases, strict=True):
            size = len(own_weight)
            place = y_rows.narrow(2, first, size)
            if dtype in _EXACT:
                difference = None if bias is None or own_bias is None else own_bias - bias.narrow(0, first, size)
                change = torch.nn.functional.linear(x_rows, own_weight - weight.narrow(0, first, size), difference)
                place.add_(change.view(place.shape))
            else:
                place.copy_(torch.nn.functional.linear(x_rows, own_weight, own_bias).view(place.shape))
        ctx.save_for_backward(x, weight, x_rows, *own_weights)
        ctx.rows, ctx.firsts, ctx.has_bias = (start, count), firsts, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        x, weight, x_rows, *own_weights = ctx.saved_tensors
        start, count = ctx.rows
        grad = grad.contiguous()
        rows = grad.view(len(x), -1, len(weight)).narrow(1, start, count)
        places = [rows.narrow(2, first, len(own)) for first, own in zip(ctx.firsts, own_weights, strict=True)]
        grads_rows = [place.clone() for place in places]
        for place in places:
            place.zero_()  # for a while; a copy of the gradient would cost more than all the rest
        grad_x = (grad @ weight).view(x.shape)
        grad_weight = grad.t() @ x.flatten(0, 1)
        grad_bias = grad.sum(0) if ctx.has_bias else None
        grad_x_rows = grad_x.narrow(1, start, count)
        grads_own: list[Tensor | None] = []
        for place, grad_rows, own_weight in zip(places, grads_rows, own_weights, strict=True):
            place.copy_(grad_rows)  # others may hold this gradient too
            grad_rows = grad_rows.flatten(0, 1)
            grad_x_rows.add_((grad_rows @ own_weight).view(grad_x_rows.shape))
            grads_own += [grad_rows.t() @ x_rows, grad_rows.sum(0) if ctx.has_bias else None]
        return grad_x, grad_weight, grad_bias, None, None, None, *grads_own


class _ScaleRows(torch.autograd.Function):
    """Scale the channels of all rows by shared weights, but those of some by their own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, own: Tensor, rows: tuple[int, int]) -> Tensor:
        start, count = rows[0], rows[1] - rows[0]
        y = x * gamma
        torch.mul(x.narrow(1, start, count), own, out=y.narrow(1, start, count))
        ctx.save_for_backward(x, gamma, own)
        ctx.rows = (start, count)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        x, gamma, own = ctx.saved_tensors
        grad_x, products = grad * gamma, grad * x
        torch.mul(grad.narrow(1, *ctx.rows), own, out=grad_x.narrow(1, *ctx.rows))
        rows = products.narrow(1, *ctx.rows)
        grad_own = rows.sum((0, 1))
        rows.zero_()
        return grad_x, products.sum((0, 1)), grad_own, None


def _replaced(y: Tensor, own: Tensor, rows: tuple[int, int], first: int = 0) -> Tensor:
    """Return ``y`` with some rows and channels replaced, by operations that torch.compile can trace."""
    y = y.clone()
    y[:, rows[0] : rows[1], first : first + own.shape[2]] = own
    return y


def _product_type(x: Tensor) -> torch.dtype:
    """Return the type that a linear map of ``x`` computes in: autocast's, but of what autocast leaves alone its own."""
    kind = x.device.type
    casting = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casting and x.dtype != torch.float64 else x.dtype


def linear_with_rows(
    x: Tensor,
    *,
    shared: tuple[Tensor, Tensor | None],
    own: Sequence[tuple[Tensor, Tensor | None]],
    rows: tuple[int, int],
    firsts: Sequence[int],
) -> Tensor:
    """Map a sequence linearly, with own weights for some rows and outputs.

    In float32 and float64 the rows are corrected by the difference of the weights: what is equal changes no bit. In
    narrower types that would hold the rounding of the shared outputs, which may be much larger: own ones are put in.

    Args:
        x: ``(B, N, D)``.
        shared: Matrix ``(E, D)`` and bias ``(E,)`` or None of everything else.
        own: For each part of the outputs, matrix ``(F, D)`` and bias ``(F,)`` or None of the rows.
        rows: First row, and the row after the last.
        firsts: First of the F outputs of each part.

    Returns:
        ``(B * N, E)``, no view, as of ``torch.nn.functional.linear`` also under autocast.
    """
    if torch.compiler.is_compiling():
        traced = torch.nn.functional.linear(x, *shared)
        for first, mine in zip(firsts, own, strict=True):
            traced = _replaced(traced, torch.nn.functional.linear(x[:, rows[0] : rows[1]], *mine), rows, first)
        return traced.flatten(0, 1)
    flat = [value for mine in own for value in mine]
    y: Tensor = _LinearRows.apply(x, *shared, rows, _product_type(x), firsts, *flat)
    return y


def scale_with_rows(x: Tensor, *, shared: Tensor, own: Tensor, rows: tuple[int, int]) -> Tensor:
    """Scale the channels of a sequence, with own scales for some rows.

    Args:
        x: ``(B, N, D)``.
        shared: Scales ``(D,)`` of all other rows.
        own: Scales ``(D,)`` of the rows.
        rows: First row, and the row after the last.

    Returns:
        ``(B, N, D)``.
    """
    if torch.compiler.is_compiling():
        return _replaced(x * shared, x[:, rows[0] : rows[1]] * own, rows)
    y: Tensor = _ScaleRows.apply(x, shared, own, rows)
    return y


def layer_norm_with_rows(
    x: Tensor, *, shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], rows: tuple[int, int], eps: float
) -> Tensor:
    """Normalise a sequence, with own scale and shift for some rows.

    Args:
        x: ``(B, N, D)``.
        shared: Scale and shift ``(D,)`` of all other rows.
        own: Scale and shift ``(D,)`` of the rows.
        rows: First row, and the row after the last.
        eps: Added to the variance.

    Returns:
        ``(B, N, D)``, of the weights' type.
    """
    if torch.compiler.is_compiling():
        shape = shared[0].shape
        traced = torch.nn.functional.layer_norm(x, shape, *shared, eps)
        return _replaced(traced, torch.nn.functional.layer_norm(x[:, rows[0] : rows[1]], shape, *own, eps), rows)
    y: Tensor = _LayerNormRows.apply(x, *shared, *own, rows, eps)
    return y
