"""Which device a trial runs on, and how: the one place that knows.

On a CPU: float32, eager, one thread. Measured on two cores: bfloat16 autocast is 1.7 times slower, compiling
gains nothing and costs half a minute, and two trials of one thread do 640 images/s where one trial of two
threads does 526. On CUDA: bfloat16 autocast and fused AdamW; that path has not been measured.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What torch says in a plain ``RuntimeError`` where memory runs out, on GPUs and CPUs."""


@dataclass(frozen=True)
class Device:
    """The device of a trial."""

    torch_device: torch.device

    @property
    def is_cuda(self) -> bool:
        """Return whether it is a CUDA GPU."""
        return self.torch_device.type == "cuda"

    @property
    def fused_optimizer(self) -> bool:
        """Return whether to use the optimizer's fused kernels."""
        return self.is_cuda

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        return torch.autocast("cuda", torch.bfloat16) if self.is_cuda else nullcontext()


def select_device() -> Device:
    """Return the GPU that this process may use, or else the CPU."""
    return Device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


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
