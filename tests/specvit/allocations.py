"""What torch allocates on the CPU, counted by its own profiler: not what the process holds, which libraries blur."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass
class Allocations:
    """Bytes that were held at most, and at the end, of what was allocated within."""

    peak: int = 0
    left: int = 0


@contextmanager
def counted() -> Iterator[Allocations]:
    """Give the count of all tensors' memory, which is known once the context has ended."""
    found = Allocations()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield found
    assert profiler.profiler is not None
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            found.left += event.nbytes()
            found.peak = max(found.peak, found.left)
