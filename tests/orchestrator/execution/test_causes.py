from __future__ import annotations

import errno

import pytest
import torch

from orchestrator.execution.causes import cause_of
from orchestrator.storage.remote_folder import RemoteError
from orchestrator.trials.records import Cause
from specvit.errors import ConfigError, DataError, DivergenceError, SpecsweepError


class EndpointConnectionError(Exception):
    """As a client of a store raises it."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EIO, "input/output error"), Cause.IO),
        (ConnectionResetError("peer"), Cause.IO),
        (TimeoutError(), Cause.IO),
        (EOFError(), Cause.IO),
        (RemoteError("s3://bucket: not reached"), Cause.IO),
        (EndpointConnectionError(), Cause.IO),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Cause.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.DEVICE),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.GPU_MEMORY),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), Cause.GPU_MEMORY),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), Cause.HOST_MEMORY),
        (MemoryError(), Cause.HOST_MEMORY),
        (DivergenceError("the loss is nan at step 3 of 60"), Cause.DIVERGED),
        (ConfigError("lr must be above 0"), Cause.INVALID),
        (DataError("labels of image 3"), Cause.INVALID),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Cause.RAISED),
        (TypeError("a bug"), Cause.RAISED),
        (SystemExit(1), Cause.RAISED),
        (SpecsweepError("x"), Cause.RAISED),
    ],
)
def test_the_cause_follows_from_what_was_raised(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize(
    ("error", "origin", "cause"),
    [
        (DataError("photos cannot be read"), OSError(errno.ESTALE, "stale file handle"), Cause.IO),
        (SpecsweepError("weights cannot be written"), OSError(errno.ENOSPC, "full"), Cause.IO),
        (SpecsweepError("x"), DivergenceError("y"), Cause.DIVERGED),
        (DataError("photos: no image"), ValueError("x"), Cause.INVALID),
        (DivergenceError("x"), OSError("y"), Cause.DIVERGED),
    ],
)
def test_an_error_of_a_disk_behind_another_one_is_the_cause(
    error: BaseException, origin: BaseException, cause: Cause
) -> None:
    error.__cause__ = origin
    assert cause_of(error) is cause
