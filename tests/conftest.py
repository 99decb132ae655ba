"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real image sets (camvid/, cifar10/); without it the test is skipped."""
    folder = Path(os.environ.get("SPECSWEEP_DATA", _BESIDE_THE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}; set SPECSWEEP_DATA to their folder")
    return folder
