"""What attempts have taken, in GPU hours, and the larger shares that trials are given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Failed, Finished, Progressed, Started
from orchestrator.trials.resources import ResourceFloor, ResourceRequest

from ..record_contract import A, B
from .known_trials import INFO, PROVENANCE, TRIALS


def test_reader_can_ask_for_gpu_hours_which_writes_nothing(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger._progress, "held_s", lambda _: 1800.0)
    ledger.record(Finished(A, ledger.begin_attempt(A, ResourceRequest(gpus=2.0, processes=2)), {}, 1.0, 1.0))
    with Ledger.read(path) as reader:
        # Two processes with two GPUs each, for half an hour.
        assert reader.gpu_hours() == 2.0


def test_larger_shares_are_known_to_later_runs_the_newest_of_each_scale(ledger: Ledger, path: Path) -> None:
    assert ledger.resource_floors() == {}
    ledger.write_resource_floor("nano", ResourceFloor(0.5))
    ledger.write_resource_floor("micro", ResourceFloor(1.0, 32.5, 4))
    ledger.write_resource_floor("nano", ResourceFloor(1.0))
    with Ledger.read(path) as reader:
        assert reader.resource_floors() == {"nano": ResourceFloor(1.0), "micro": ResourceFloor(1.0, 32.5, 4)}


def test_gpu_hours_are_those_of_all_attempts_by_the_gpus_of_each(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.time", SimpleNamespace(monotonic=lambda: now_s))
    assert ledger.gpu_hours() == 0.0
    failed = ledger.begin_attempt(A, ResourceRequest(gpus=0.5))
    pair = ledger.begin_attempt(B, ResourceRequest(gpus=2.0, processes=2))
    now_s += 7200.0
    ledger.record_all([Started(A, failed, worker="node:1"), Started(B, pair, worker="node:2")])
    assert ledger.gpu_hours() == 0.0  # they were pending
    now_s += 1800.0
    ledger.record(Failed(A, failed, "boom", "Traceback"))
    assert ledger.gpu_hours() == pytest.approx(0.25)
    # Of what runs, as far as has been heard of it.
    ledger.record(Progressed(B, pair, 1, 20, 1.0))
    assert ledger.gpu_hours() == pytest.approx(0.25 + 2.0)
    lost = ledger.begin_attempt(A, ResourceRequest(gpus=1.0))
    ledger.record(Started(A, lost, worker="node:1"))
    now_s += 3600.0
    ledger.record(Finished(B, pair, {}, 1.0, 1.0))
    assert ledger.gpu_hours() == pytest.approx(0.25 + 6.0)
    assert ledger.release_running() == lost - 1 == 1
    assert ledger.gpu_hours() == pytest.approx(0.25 + 6.0 + 1.0)
    with Ledger.read(path) as reader:
        assert reader.gpu_hours() == ledger.gpu_hours()


def test_the_gpu_hours_of_an_attempt_whose_driver_died_are_those_up_to_its_last_progress(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.time", SimpleNamespace(monotonic=lambda: now_s))
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        attempt = ledger.begin_attempt(A, ResourceRequest(gpus=1.0))
        ledger.record(Started(A, attempt, worker="node:1"))
        now_s += 3600.0
        ledger.record(Progressed(A, attempt, 1, 20, 1.0))
    now_s = 5.0
    with Ledger.open(path) as ledger:
        assert ledger.release_running() == 1
        assert ledger.gpu_hours() == pytest.approx(1.0)
