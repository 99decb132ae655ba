"""How an attempt that raises is told of, and its cause."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from orchestrator.trials.events import Event, Failed, Started
from orchestrator.trials.records import Cause
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from .bodies import Body


def test_a_trial_that_raises_fails_with_one_line_and_the_whole_traceback(
    events_of: Callable[[Body], list[Event]],
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise ValueError("first line\nsecond line")

    started, end = events_of(body)
    assert isinstance(started, Started)
    assert isinstance(end, Failed)
    assert end.error == "ValueError: first line"
    assert end.traceback.startswith("Traceback (most recent call last):")
    assert "second line" in end.traceback
    assert "in body" in end.traceback


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), KeyError("x")])
def test_no_kind_of_exception_leaves_an_attempt_without_an_end(
    error: BaseException, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise error

    end = events_of(body)[-1]
    assert isinstance(end, Failed)
    assert end.error.startswith(f"{type(error).__name__}:")


def test_a_result_of_another_kind_is_a_failure_and_no_silence(events_of: Callable[[Body], list[Event]]) -> None:
    end = events_of(lambda *_: {"knn_top1": 1.0})[-1]  # type: ignore[arg-type, return-value]
    assert isinstance(end, Failed)
    assert end.error == "AttributeError: 'dict' object has no attribute 'stopped_at'"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("out of luck"), Cause.RAISED),
        (ValueError("out of memory"), Cause.RAISED),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Cause.DEVICE),
        (SystemExit(1), Cause.RAISED),
        (MemoryError(), Cause.HOST_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Cause.HOST_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Cause.GPU_MEMORY),
        (torch.OutOfMemoryError(), Cause.GPU_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Cause.GPU_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Cause.GPU_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Cause.GPU_MEMORY),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), Cause.GPU_MEMORY),
    ],
    ids=repr,
)
def test_the_cause_of_a_failure_tells_which_memory_ran_out(
    error: BaseException, cause: Cause, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise error

    end = events_of(body)[-1]
    assert isinstance(end, Failed)
    assert end.cause is cause
    assert "in body" in end.traceback
