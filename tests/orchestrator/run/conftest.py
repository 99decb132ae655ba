"""Runs of stand-ins into one folder, without figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..made_up import made_up_trial
from .driver import Driver


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of a run of stand-ins."""
    monkeypatch.setattr("orchestrator.reports.curves.draw_curves", lambda *_: None)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "results" / "tiny")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
