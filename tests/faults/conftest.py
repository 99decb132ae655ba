"""A server of drivers, and sweeps that were run without an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness.forked_drivers import DriverServer, Site
from .harness.killed_sweeps import FINE, REAL, SHORT, Folders, Subject, Whole, run_whole


@pytest.fixture(scope="session")
def server() -> Iterator[DriverServer]:
    with DriverServer(SHORT.sections) as running:
        yield running


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the sweep files, by the names of their subjects."""
    root = tmp_path_factory.mktemp("sweeps")
    paths = {subject.name: root / f"{subject.name}.yaml" for subject in (SHORT, FINE, REAL)}
    for subject in (SHORT, FINE, REAL):
        paths[subject.name].write_text(json.dumps(subject.sections))
    return paths


def _whole(subject: Subject, server: DriverServer, files: dict[str, Path], factory: pytest.TempPathFactory) -> Whole:
    return run_whole(server, subject, Site(factory.mktemp("whole"), files[subject.name]))


@pytest.fixture(scope="session")
def short(server: DriverServer, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return _whole(SHORT, server, files, tmp_path_factory)


@pytest.fixture(scope="session")
def fine(server: DriverServer, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return _whole(FINE, server, files, tmp_path_factory)


@pytest.fixture(scope="session")
def real(server: DriverServer, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return _whole(REAL, server, files, tmp_path_factory)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)
