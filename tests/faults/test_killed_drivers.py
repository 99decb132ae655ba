"""Drivers that are killed: wherever they die, the next one ends the sweep as if nothing had been.

With ``SPECSWEEP_FAULTS=long`` there are more of everything.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .finished_sweeps import Ended, find_faults, read_end, without_times
from .forked_drivers import DriverServer, Site

IS_LONG = os.environ.get("SPECSWEEP_FAULTS") == "long"
KILLED = -signal.SIGKILL
STEPS, RUNGS = 4, (1, 3)
SWEEP: dict[str, Any] = {
    "question": "Does a sweep survive its drivers?",
    "data": {"source": "scenes", "num_train": 64, "num_val": 32},
    "objective": {"recipe": "dinov2_cpu", "steps": STEPS, "batch_size": 8},
    "probes": {"knn": {}},
    "rungs": {"count": 2, "num_images": 32},
    "seeds": 2,
    "ablate": {"components": ["none", "norm"]},
    "floors": ["random_init"],
    "checkpoint_every_s": 1e-4,
}
NUM_TRAINED, NUM_FLOORS = 4, 2
NUM_TRIALS = NUM_TRAINED + NUM_FLOORS


@dataclass(frozen=True)
class Whole:
    """Hold a sweep that was run without an interruption, and the points that its driver came by."""

    ended: Ended
    points: dict[tuple[str, int], str]


@pytest.fixture(scope="module")
def server() -> Iterator[DriverServer]:
    with DriverServer(SWEEP) as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "killed.yaml"
    path.write_text(json.dumps(SWEEP))
    return path


def run_whole(server: DriverServer, site: Site, **wishes: Any) -> Whole:
    path = site.root / "points.json"
    assert server.run(site, points=str(path), **wishes) == 0, site.log.read_text()
    points = {(thread, number): name for thread, number, name in json.loads(path.read_text())}
    return Whole(read_end(site.folder), points)


@pytest.fixture(scope="module")
def whole(server: DriverServer, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    site = Site(tmp_path_factory.mktemp("whole"), file)
    made = run_whole(server, site)
    assert find_faults(site.folder, num_trials=NUM_TRIALS, rungs=RUNGS) == []
    assert sorted(made.ended.seconds.values()) == [(0.0, 0.0)] * NUM_FLOORS + [(STEPS / 2, STEPS / 4)] * NUM_TRAINED
    return made


class Folders:
    """Give out folders for sweeps, each with the one sweep file."""

    def __init__(self, root: Path, file: Path) -> None:
        self._root, self._file = root, file
        self._count = 0

    def new(self) -> Site:
        self._count += 1
        site = Site(self._root / str(self._count), self._file)
        site.root.mkdir()
        return site


@pytest.fixture
def folders(tmp_path: Path, file: Path) -> Folders:
    return Folders(tmp_path, file)


def faults_of(site: Site, whole: Whole) -> list[str]:
    """Return in what a sweep of stand-ins that ended is not as it should be, or not as the uninterrupted one."""
    ended = read_end(site.folder)
    parts = ("results", "reports", "seconds", "files")
    return [
        *find_faults(site.folder, num_trials=NUM_TRIALS, rungs=RUNGS),
        *(f"other {part} than uninterrupted" for part in parts if getattr(ended, part) != getattr(whole.ended, part)),
    ]


def steps_done_again(site: Site) -> int:
    lines = [line.split() for line in site.journal.read_text().splitlines()]
    steps = [(trial_id, step) for trial_id, _, step in lines]
    assert len(set(steps)) == NUM_TRAINED * STEPS
    return len(steps) - len(set(steps))


def test_a_driver_comes_by_every_kind_of_transition(whole: Whole) -> None:
    names = set(whole.points.values())
    transactions = ("the schema", "register", "release_running", "take_in", "begin_attempt", "record_all")
    changes = ("replace .safetensors", "unlink .safetensors", "replace table.md", "replace table.csv")
    for name in (*(f"COMMIT of {method}" for method in transactions), *changes):
        assert {f"before {name}", f"after {name}"} <= names
    assert len(whole.points) >= 100  # noqa: PLR2004


def test_a_driver_that_was_killed_at_any_transition_is_followed_by_one_that_ends_the_sweep_as_if_nothing_had_been(
    server: DriverServer, whole: Whole, folders: Folders
) -> None:
    wrong = {}
    for place, name in whole.points.items():
        site = folders.new()
        codes = [server.run(site, kill_at=place), server.run(site)]
        faults = faults_of(site, whole) if codes == [KILLED, 0] else [f"exit codes {codes}", site.log.read_text()]
        # The step before a state is saved is all that can be lost.
        faults += [f"{again} steps done again" for again in [steps_done_again(site)] if again > 1]
        if faults:
            wrong[f"{place}: {name}"] = faults
    assert wrong == {}
