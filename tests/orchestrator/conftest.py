"""Sweeps small enough to run in a test, and the records they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import main
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.run import LEDGER_NAME, describe
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Trial

TINY: dict[str, object] = {
    "question": "Does a tiny sweep run?",
    "data": {"source": "scenes", "num_train": 64, "num_val": 32},
    "objective": {"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8},
    "probes": {"knn": {}},
    "rungs": {"count": 2, "num_images": 32},
    "seeds": 2,
    "ablate": {"components": ["none", "norm"]},
}
"""Baseline, one arm and two floors with two seeds: 8 trials, of which 4 train, each for about a second."""


@pytest.fixture(scope="session")
def write_sweep() -> Callable[..., Path]:
    """Write the tiny sweep with some of its sections replaced; JSON is YAML."""

    def write(folder: Path, name: str = "tiny", **sections: Any) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(TINY | sections, indent=2))
        return path

    return write


@pytest.fixture
def make_sweep(tmp_path: Path, write_sweep: Callable[..., Path]) -> Callable[..., Sweep]:
    def make(**sections: Any) -> Sweep:
        return load_sweep(write_sweep(tmp_path, **sections))

    return make


@pytest.fixture
def sweep(make_sweep: Callable[..., Sweep]) -> Sweep:
    return make_sweep()


@pytest.fixture
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture
def ledger(sweep: Sweep, trials: tuple[Trial, ...], tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger that knows the tiny sweep's trials, in ``tmp_path``."""
    with Ledger.open(tmp_path / LEDGER_NAME) as opened:
        opened.register(describe(sweep, trials, {}), trials, collect_provenance())
        yield opened


@pytest.fixture(scope="session")
def record_of() -> Callable[..., TrialRecord]:
    """Make up what a ledger would say of a trial."""

    def make(trial: Trial, state: State = State.WAITING, **known: Any) -> TrialRecord:
        return TrialRecord(trial, state, **known)

    return make


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in this process, in ``tmp_path``, its output going into pipes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["specsweep", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


class Clock:
    """Tell a time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()
