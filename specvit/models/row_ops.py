"""Operations that treat a few rows of a sequence apart, with their backward written out.

Shapes: B images, N tokens, R of them the rows, D channels in, E out.

Autograd's own slicing and in-place addition copy whole gradients to touch a few rows. These operations touch
the few rows only. When torch.compile traces a model, it sees ordinary operations instead, which it fuses by
itself.

What only the rows reach gives the shared weights no gradient at all, not a difference of two sums: that would
hold their rounding error, which an optimizer that divides by its size turns into steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_ALL = [True, True, True]
"""Which gradients of a layer norm are wanted: input, scale, shift."""


def _refuse_double_backward() -> None:
    """Refuse to be differentiated twice: these backwards write in place, and hold no second derivative.

    ``once_differentiable`` would say so too, but its wrapper takes tens of microseconds a call.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("own weights can be differentiated once: create_graph=True is not supported")


class _Fork(torch.autograd.Function):
    """Return ``x`` and a copy of some of its rows; the rows' gradient is added into that of ``x`` in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        ctx.rows = (start, stop)
        ctx.set_materialize_grads(False)
        ctx.shape = x.shape
        return x.view_as(x), x[:, start:stop].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_rows: Tensor | None) -> tuple[Tensor | None, None, None]:
        _refuse_double_backward()
        if grad_rows is None:
            return grad, None, None
        if grad is None:
            grad = grad_rows.new_zeros(ctx.shape)
        start, stop = ctx.rows
        grad[:, start:stop] += grad_rows
        return grad, None, None


class _AddToRows(torch.autograd.Function):
    """Add to some rows and channels in place; the gradient passes through, its rows are read off."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, delta: Tensor, start: int, stop: int, first: int) -> Tensor:
        ctx.place = (start, stop, first, first + delta.shape[2])
        ctx.num_images, ctx.delta_dtype = delta.shape[0], delta.dtype
        y.view(delta.shape[0], -1, y.shape[-1])[:, start:stop, first : first + delta.shape[2]] += delta
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        _refuse_double_backward()
        start, stop, first, last = ctx.place
        by_image = grad.reshape(ctx.num_images, -1, grad.shape[-1])
        return grad, by_image[:, start:stop, first:last].to(ctx.delta_dtype), None, None, None


class _ReplaceRows(torch.autograd.Function):
    """Replace some rows and channels in place by others that differ by ``own - shared``; no gradient to the old."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, own: Tensor, shared: Tensor, start: int, stop: int, first: int) -> Tensor:
        ctx.place = (start, stop, first, first + own.shape[2])
        ctx.num_images, ctx.own_dtype = own.shape[0], own.dtype
        y.view(own.shape[0], -1, y.shape[-1])[:, start:stop, first : first + own.shape[2]] += own - shared
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_double_backward()
        start, stop, first, last = ctx.place
        others = grad.clone(memory_format=torch.contiguous_format)
        by_image = others.view(ctx.num_images, -1, grad.shape[-1])
        grad_own = by_image[:, start:stop, first:last].to(ctx.own_dtype, copy=True)
        by_image[:, start:stop, first:last] = 0
        return others, grad_own, None, None, None, None


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
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        x_rows = x.narrow(1, start, count).contiguous()
        y_rows, own_mean, own_rstd = torch.native_layer_norm(x_rows, shape, own_weight, own_bias, eps)
        y.narrow(1, start, count).copy_(y_rows)
        ctx.save_for_backward(x, mean, rstd, weight, bias, x_rows, own_mean, own_rstd, own_weight, own_bias)
        ctx.rows = (start, count)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_double_backward()
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
    """Map all rows linearly, and correct some of them, at some outputs, by weights of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        own_weight: Tensor,
        own_bias: Tensor | None,
        rows: tuple[int, int],
        first: int,
    ) -> Tensor:
        y = torch.nn.functional.linear(x, weight, bias)
        span, outputs = slice(*rows), slice(first, first + len(own_weight))
        bias_difference = None if bias is None or own_bias is None else own_bias - bias[outputs]
        x_rows = x[:, span].contiguous()
        y[:, span, outputs] += torch.nn.functional.linear(x_rows, own_weight - weight[outputs], bias_difference)
        ctx.save_for_backward(x, weight, own_weight, x_rows)
        ctx.span, ctx.outputs, ctx.has_bias = span, outputs, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_double_backward()
        x, weight, own_weight, x_rows = ctx.saved_tensors
        span, outputs = ctx.span, ctx.outputs
        grad = grad.contiguous()
        rows = grad[:, span, outputs]
        grad_rows = rows.clone()
        flat, flat_rows = grad.flatten(0, 1), grad_rows.flatten(0, 1)
        rows.zero_()  # for a while: a copy of the gradient would cost more than all the rest
        grad_x = (flat @ weight).view(x.shape)
        grad_weight = flat.t() @ x.flatten(0, 1)
        grad_bias = flat.sum(0) if ctx.has_bias else None
        rows.copy_(grad_rows)  # others may hold this gradient too
        grad_x[:, span] += (flat_rows @ own_weight).view(x_rows.shape)
        grad_own_weight = flat_rows.t() @ x_rows.flatten(0, 1)
        grad_own_bias = flat_rows.sum(0) if ctx.has_bias else None
        return grad_x, grad_weight, grad_bias, grad_own_weight, grad_own_bias, None, None


def linear_with_rows(
    x: Tensor,
    *,
    shared: tuple[Tensor, Tensor | None],
    own: tuple[Tensor, Tensor | None],
    rows: tuple[int, int],
    first: int,
) -> Tensor:
    """Map a sequence linearly, with own weights for some rows and outputs.

    Args:
        x: ``(B, N, D)``, of the weights' type.
        shared: Matrix ``(E, D)`` and bias ``(E,)`` or None of everything else.
        own: Matrix ``(F, D)`` and bias ``(F,)`` or None of the rows, at F of the outputs.
        rows: First row, and the row after the last.
        first: First of the F outputs.

    Returns:
        ``(B, N, E)``.
    """
    y: Tensor = _LinearRows.apply(x, *shared, *own, rows, first)
    return y


def layer_norm_with_rows(
    x: Tensor, *, shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], rows: tuple[int, int], eps: float
) -> Tensor:
    """Normalise a sequence, with own scale and shift for some rows.

    Args:
        x: ``(B, N, D)``, of the weights' type.
        shared: Scale and shift ``(D,)`` of all other rows.
        own: Scale and shift ``(D,)`` of the rows.
        rows: First row, and the row after the last.
        eps: Added to the variance.

    Returns:
        ``(B, N, D)``.
    """
    y: Tensor = _LayerNormRows.apply(x, *shared, *own, rows, eps)
    return y


def fork_rows(x: Tensor, rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Split off a copy of some rows.

    Args:
        x: ``(B, N, D)``.
        rows: First row, and the row after the last.

    Returns:
        ``x``, to be used once, by an operation whose backward makes a new gradient, and ``(B, R, D)``.
    """
    if torch.compiler.is_compiling() or not x.requires_grad:
        return x, x[:, rows[0] : rows[1]]
    forked: tuple[Tensor, Tensor] = _Fork.apply(x, *rows)
    return forked


def add_to_rows(y: Tensor, delta: Tensor, rows: tuple[int, int], *, first: int = 0) -> Tensor:
    """Add ``(B, R, E)`` to some rows of a sequence, at channels from ``first`` on, in place.

    Args:
        y: ``(B, N, F)`` or ``(B * N, F)``; nothing else may need its values, and it must not be a view.
        delta: What is added.
        rows: First row, and the row after the last.
        first: First of the E channels.

    Returns:
        ``y``, with the sum.
    """
    if torch.compiler.is_compiling():
        added = y.view(delta.shape[0], -1, y.shape[-1]).clone()
        added[:, rows[0] : rows[1], first : first + delta.shape[2]] += delta
        return added.view(y.shape)
    in_place: Tensor = _AddToRows.apply(y, delta, *rows, first)
    return in_place


def replace_rows(
    y: Tensor, own: Tensor, shared: Tensor, rows: tuple[int, int], *, first: int = 0
) -> Tensor:
    """Replace some rows of a sequence, at channels from ``first`` on, in place.

    Args:
        y: ``(B, N, F)`` or ``(B * N, F)``; nothing else may need its values, and it must not be a view.
        own: ``(B, R, E)`` what the rows become.
        shared: ``(B, R, E)`` what they are, computed as ``own`` is: equal inputs then change no bit.
        rows: First row, and the row after the last.
        first: First of the E channels.

    Returns:
        ``y``, with the rows replaced; no gradient passes to what was there.
    """
    if torch.compiler.is_compiling():
        replaced = y.view(own.shape[0], -1, y.shape[-1]).clone()
        replaced[:, rows[0] : rows[1], first : first + own.shape[2]] = own
        return replaced.view(y.shape)
    in_place: Tensor = _ReplaceRows.apply(y, own, shared.detach(), *rows, first)
    return in_place
