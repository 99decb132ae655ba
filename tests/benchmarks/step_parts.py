"""Where the time of a training step goes, forward and backward, measured in the step itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

REST = "other"


class Clock:
    """Know which part of a step is being computed, and add up the seconds of each.

    A wrapped function switches the clock to its part and back. Its outputs are marked: when the gradient arrives
    at a mark, the backward of that part begins, which lasts until the next mark. Autograd works through the later
    parts of a graph first, so on a CPU, where it computes one operation at a time, the marks come in order.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._part, self._since = REST, time.perf_counter()

    def switch(self, part: str) -> str:
        """Begin a part; return the one before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def wrap(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Callable[..., Any]:
        """Return ``function`` on the clock; ``part`` is a name, or makes it of the arguments."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            name = part if isinstance(part, str) else part(*args)
            before = self.switch(name)
            result = function(*args, **kwargs)
            self.switch(before)
            return self._marked(result, name)

        return wrapped

    def shares(self) -> dict[str, float]:
        """Return the share of each part, the largest first."""
        self.switch(REST)
        total = sum(self.seconds.values())
        return {name: s / total for name, s in sorted(self.seconds.items(), key=lambda item: -item[1])}

    def _marked(self, result: Any, part: str) -> Any:
        if isinstance(result, Tensor):
            return _Mark.apply(result, self, part) if result.requires_grad else result
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return type(result)(*(self._marked(value, part) for value in result))
        return result


class _Mark(torch.autograd.Function):
    """Pass a tensor on, and switch the clock when its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: Clock, part: str) -> Tensor:
        ctx.clock, ctx.part = clock, part
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.switch(ctx.part)
        return gradient, None, None
