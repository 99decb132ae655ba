"""Which device a trial runs on, and how: the one place that knows.

On a CPU: float32, eager, one thread. Measured on two cores: bfloat16 autocast is 1.7 times slower, compiling
gains nothing and costs half a minute, and two trials of one thread do 640 images/s where one trial of two
threads does 526. On CUDA: bfloat16 autocast and fused AdamW; every combination of settings has been run under autocast
on a CPU, and every recipe, comparator and probe on a pretended device that refuses what lies elsewhere, but that path
has not been measured, nor has the bound on the memory of a share of a GPU.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What torch says in a plain ``RuntimeError`` where memory runs out, on GPUs and CPUs."""

_LOG = logging.getLogger(__name__)

_share: ContextVar[float | None] = ContextVar("GPUs of the trial that is computed", default=None)


@dataclass(frozen=True)
class Device:
    """The device of a trial."""

    torch_device: torch.device

    @property
    def is_cuda(self) -> bool:
        """Return whether it is a CUDA GPU."""
        return self.torch_device.type == "cuda"

    @property
    def name(self) -> str:
        """Return what people call it: ``CPU``, ``NVIDIA H200``."""
        return torch.cuda.get_device_name(self.torch_device) if self.is_cuda else "CPU"

    @property
    def fused_optimizer(self) -> bool:
        """Return whether to use the optimizer's fused kernels."""
        return self.is_cuda

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        return torch.autocast("cuda", torch.bfloat16) if self.is_cuda else nullcontext()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return the context in which nothing is computed in a narrower type than it has, on the device of ``x``."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or in float64 if it is: what autocast has narrowed is too coarse for sums and logs.

    bfloat16 holds 8 bits, so that a mean of many rows or a log of a small probability would be off by percents.
    """
    return x if x.dtype == torch.float64 else x.float()


def select_device(gpus: float | None = None) -> Device:
    """Return the GPU of the trial's share, the CPU where it has none; outside of a trial the GPU, if there is one.

    Args:
        gpus: GPUs that the trial occupies; None = what ``share_of_gpus`` says.
    """
    is_on_gpu = (_share.get() if gpus is None else gpus) != 0 and torch.cuda.is_available()
    return Device(torch.device("cuda" if is_on_gpu else "cpu"))


@contextmanager
def share_of_gpus(gpus: float) -> Iterator[None]:
    """Have ``select_device`` follow what a trial occupies, whatever this process sees, until the context ends.

    Of a GPU that others share, the trial gets no more memory than its part, so that it alone feels it when it needs
    more. What CUDA itself takes for each process comes on top of that. Not measured.

    Args:
        gpus: GPUs that the trial occupies, in this process; 0 = it computes on the CPU.
    """
    token = _share.set(gpus)
    try:
        if gpus and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
        elif gpus:
            _LOG.warning("the trial occupies %g GPUs, but torch sees none here: it computes on the CPU", gpus)
        yield
    finally:
        _share.reset(token)


def hide_gpus() -> None:
    """Hide all GPUs from this process; call it before the first operation."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def find_fault(*, with_gpus: bool) -> str:
    """Compute a little on the CPU and on every GPU that this process sees, whose number may be 0.

    Args:
        with_gpus: Whether GPUs are of interest; if not, they are left alone.

    Returns:
        What goes wrong, in a line; empty if nothing. A GPU whose memory others have taken is not at fault.
    """
    names = ["cpu"]
    try:
        names += [f"cuda:{number}" for number in range(torch.cuda.device_count() if with_gpus else 0)]
        for name in names:
            ones = torch.ones(64, 64, device=name)
            if (found := float((ones @ ones).sum())) != 64**3:
                return f"{name}: a product of matrices is {found}, not {64**3}"
    except RuntimeError as error:
        return "" if is_out_of_memory(error) else f"{name}: {str(error).partition(chr(10))[0]}"
    return ""


def limit_threads(num_threads: int) -> None:
    """Limit this process to ``num_threads`` threads of computation; call it before the first operation."""
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    torch.set_num_threads(num_threads)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)
