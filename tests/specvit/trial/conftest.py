"""A few small scenes."""

from __future__ import annotations

import pytest

from specvit.data import Dataset

from .small_trials import DATA


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return DATA.load()
