"""A ledger that knows the trials of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger

from .known_trials import INFO, PROVENANCE, TRIALS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        yield ledger
