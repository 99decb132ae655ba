from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial

from ..saved_steps import sections_of
from .mirrored_runs import STEPS, results, run


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what goes to a machine of some name; that is, to its cache."""

    def go_to(name: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return tmp_path / name

    go_to("here")
    return go_to


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), **sections_of(steps=STEPS))


@pytest.fixture(scope="session")
def sweep(file: Path) -> Sweep:
    return load_sweep(file)


@pytest.fixture(scope="session")
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture(scope="session")
def whole(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Return the metrics of the sweep's trials, run in a plain folder."""
    outcome, _ = run(sweep, str(tmp_path_factory.mktemp("whole")))
    return results(outcome)
