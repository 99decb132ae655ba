"""What a training costs: seconds and peaks are summed and kept by arithmetic, memory is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from specvit.device import Device
from specvit.memory import GIB
from specvit.training import cost
from specvit.training.cost import CostMeter, TrainingCost

CPU = Device(torch.device("cpu"))


class Memory:
    """A process whose memory is as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, can_measure: bool = True) -> None:
        self.peak = self.held = 0
        self.can_measure = can_measure
        monkeypatch.setattr(cost, "reset_peak_memory", self.reset)
        monkeypatch.setattr(cost, "peak_memory", lambda: self.peak)

    def reset(self) -> bool:
        self.peak = self.held
        return self.can_measure

    def hold(self, gib: float) -> None:
        self.held = int(gib * GIB)
        self.peak = max(self.peak, self.held)


def test_steps_are_summed_and_rungs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch)
    meter = CostMeter(CPU, notes={})
    for seconds, gib in ((1.0, 2.0), (0.5, 3.0)):
        memory.hold(gib)
        meter.step(seconds)
    memory.hold(1.0)
    meter.pause()
    memory.hold(9.0)  # a rung
    memory.hold(1.0)
    meter.resume()
    memory.hold(2.5)
    meter.step(0.5)

    assert meter.cost(num_images=48) == TrainingCost(2.0, 24.0, peak_memory_gib=3.0)


def test_a_training_that_goes_on_elsewhere_counts_what_its_state_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch)
    notes: dict[str, Any] = {}
    first = CostMeter(CPU, notes=notes)
    memory.hold(3.0)
    first.step(1.5)
    first.pause()
    saved = {"training": dict(notes["training"])}
    memory.hold(0.0)
    again: dict[str, Any] = {}
    second = CostMeter(CPU, notes=again)
    again.clear()
    again.update(saved)
    second.resume()
    memory.hold(2.0)
    second.step(0.5)

    assert second.cost(num_images=10) == TrainingCost(2.0, 5.0, peak_memory_gib=3.0)


def test_what_cannot_be_known_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, can_measure=False)
    meter = CostMeter(CPU, notes={})
    meter.step(2.0)
    assert meter.cost(num_images=10) == TrainingCost(2.0, 5.0)
    # A state of a version that noted nothing: the steps before it took nobody knows how long.
    notes: dict[str, Any] = {}
    meter = CostMeter(CPU, notes=notes)
    notes.clear()
    meter.resume()
    meter.step(2.0)
    assert meter.cost(num_images=10) is None


def test_memory_of_a_gpu_is_what_torch_allocated_there_between_resume_and_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Memory(monkeypatch)
    allocated = 1 * GIB
    asked: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("reset", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(("read", device)) or allocated)
    gpu = torch.device("cuda:1")
    meter = CostMeter(Device(gpu), notes={})
    meter.step(1.0)

    assert asked == [("reset", gpu)]
    assert meter.cost(num_images=8) == TrainingCost(1.0, 8.0, peak_memory_gib=0.0, peak_gpu_memory_gib=1.0)
    assert asked == [("reset", gpu), ("read", gpu)]


def test_memory_of_this_process_is_measured_within_a_tenth_after_more_was_held_and_freed() -> None:
    size = 192 << 20
    np.ones(2 * size, np.uint8).sum()  # before it begins: freed, and no part of it
    meter = CostMeter(CPU, notes={})
    meter.step(1.0)
    before = meter.cost(num_images=1)
    np.ones(size, np.uint8).sum()
    after = meter.cost(num_images=1)

    assert before is not None
    assert after is not None
    if before.peak_memory_gib is None:
        pytest.skip("this system does not reset the peak of a process's memory")
    assert after.peak_memory_gib is not None
    assert after.peak_memory_gib - before.peak_memory_gib == pytest.approx(size / GIB, rel=0.1)
