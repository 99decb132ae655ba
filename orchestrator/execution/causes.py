"""Why an attempt failed, told from what it raised."""

from __future__ import annotations

from orchestrator.storage.remote_folder import RemoteError
from orchestrator.trials.records import Cause
from specvit.errors import ConfigError, DataError, DivergenceError, PartError

_GPU_TEXTS = ("cuda", "cudnn", "cublas", "cusolver", "cufft", "nccl")
"""What torch's messages of a GPU and its libraries contain."""

_IO_NAMES = ("Connection", "Timeout", "HTTPError")
"""What the names of exceptions contain that clients of stores raise, which are no ``OSError``."""


def cause_of(error: BaseException) -> Cause:
    """Return the cause of a failure: what an exception says, or else the one that it was raised from."""
    cause = _own_cause(error)
    if error.__cause__ is None or cause not in (Cause.RAISED, Cause.INVALID):
        return cause
    # Data that cannot be used since a disk failed are not bad data.
    before = cause_of(error.__cause__)
    return before if cause is Cause.RAISED or before is Cause.IO else cause


def _own_cause(error: BaseException) -> Cause:
    if isinstance(error, MemoryError | RuntimeError):
        return _cause_in_torch(error)
    if isinstance(error, DivergenceError):
        return Cause.DIVERGED
    if isinstance(error, OSError | EOFError | RemoteError):
        return Cause.IO
    if isinstance(error, ConfigError | DataError | PartError):
        return Cause.INVALID
    return Cause.IO if any(name in type(error).__name__ for name in _IO_NAMES) else Cause.RAISED


def _cause_in_torch(error: BaseException) -> Cause:
    import torch

    from specvit.device import is_out_of_memory

    is_gpu = isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in _GPU_TEXTS)
    if is_out_of_memory(error):
        return Cause.GPU_MEMORY if is_gpu else Cause.HOST_MEMORY
    return Cause.DEVICE if is_gpu else Cause.RAISED
