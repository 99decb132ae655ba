"""The one place that knows the device."""

from __future__ import annotations

import os

import pytest
import torch

from specvit.device import (
    Device,
    find_fault,
    hide_gpus,
    is_out_of_memory,
    limit_threads,
    select_device,
    share_of_gpus,
)


@pytest.mark.parametrize(("available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_is_taken_if_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    device = select_device()
    assert device.torch_device.type == kind
    assert device.is_cuda is device.fused_optimizer is available


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pretend that this machine has a GPU; return which parts of its memory processes were bounded to."""
    bounded: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", bounded.append)
    return bounded


@pytest.mark.parametrize(
    ("gpus", "kind", "bounded"), [(0.0, "cpu", []), (0.25, "cuda", [0.25]), (1.0, "cuda", [1.0]), (4.0, "cuda", [1.0])]
)
def test_the_device_of_a_trial_follows_from_its_share_and_a_part_of_a_gpu_has_that_part_of_its_memory(
    gpus: float, kind: str, bounded: list[float], fractions: list[float]
) -> None:
    with share_of_gpus(gpus):
        assert select_device().torch_device.type == kind
    assert fractions == bounded
    assert select_device().is_cuda


def test_a_trial_whose_gpu_is_not_there_computes_on_the_cpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with share_of_gpus(0.0):
        assert caplog.messages == []
    with share_of_gpus(0.5):
        assert not select_device().is_cuda
    assert caplog.messages == ["the trial occupies 0.5 GPUs, but torch sees none here: it computes on the CPU"]


def test_hidden_gpus_are_those_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    hide_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_device_that_cannot_compute_is_named_and_one_whose_memory_is_taken_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_on_gpus(text: str) -> None:
        ones = torch.ones

        def make(*shape: int, device: str) -> torch.Tensor:
            if device == "cuda:1":
                raise RuntimeError(text)
            return ones(*shape)

        monkeypatch.setattr("torch.ones", make)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    assert find_fault(with_gpus=True) == ""
    fail_on_gpus("CUDA error: uncorrectable ECC error\nCompile with")
    assert find_fault(with_gpus=True) == "cuda:1: CUDA error: uncorrectable ECC error"
    assert find_fault(with_gpus=False) == ""
    monkeypatch.undo()
    fail_on_gpus("CUDA out of memory")
    assert find_fault(with_gpus=True) == ""


def test_on_a_cpu_nothing_is_cast() -> None:
    device = Device(torch.device("cpu"))
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
    assert not device.is_cuda


def test_limit_threads_holds_for_torch_and_for_what_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    try:
        limit_threads(1)
        assert torch.get_num_threads() == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_it_is_told_whether_memory_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
