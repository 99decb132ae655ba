"""A copy of a few rows of a sequence, and what is added to them, with their backward written out.

Shapes: B images, N tokens, R of them the rows, D channels. See ``specvit.models.row_ops`` for why.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from specvit.models.row_ops import refuse_double_backward


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
        refuse_double_backward()
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
        refuse_double_backward()
        start, stop, first, last = ctx.place
        by_image = grad.reshape(ctx.num_images, -1, grad.shape[-1])
        return grad, by_image[:, start:stop, first:last].to(ctx.delta_dtype), None, None, None


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
