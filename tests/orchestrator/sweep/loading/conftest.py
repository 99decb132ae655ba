"""Loading of a text as a sweep file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep

from .sweep_texts import Load


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, *overrides: str, name: str = "x.yaml") -> Sweep:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load_sweep(path, overrides)

    return load_text
