"""Expansion of a text to trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.grid import expand

from .grids import Expand, load_text


@pytest.fixture
def trials_of(tmp_path: Path) -> Expand:
    return lambda text, *overrides: expand(load_text(tmp_path / "x.yaml", text, *overrides))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid") / "x.yaml"
