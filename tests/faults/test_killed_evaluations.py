"""Drivers that are killed while they evaluate kept weights: each evaluation is done once, and nothing is trained."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..long_run import IS_LONG, ONLY_LONG
from .harness.crash_points import Place
from .harness.finished_sweeps import find_faults, select
from .harness.forked_drivers import DriverServer, Site
from .harness.killed_sweeps import KILLED, NUM_FLOORS, NUM_TRAINED, REAL

pytestmark = ONLY_LONG

MORE = REAL.sections | {"probes": {"knn": {}, "clustering": {}}}
ONE_OF = 1 if IS_LONG else 6
"""Of the kinds of points, every which one is died at."""


@dataclass(frozen=True)
class Evaluated:
    """Hold a sweep that was trained, its results with another probe, and the points that the second driver came by."""

    before: Path
    results: dict[str, str]
    points: dict[Place, str]


@pytest.fixture(scope="module")
def server() -> Iterator[DriverServer]:
    with DriverServer(REAL.sections) as started:
        yield started


@pytest.fixture(scope="module")
def evaluated(server: DriverServer, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated")
    site = Site(root, root / "sweep.yaml")
    site.file.write_text(json.dumps(REAL.sections))
    assert server.run(site, **REAL.wishes) == 0, site.log.read_text()
    before = root / "before"
    shutil.copytree(site.folder, before)
    points = root / "points.json"
    assert server.run(asked_for_more(site), points=str(points), **REAL.wishes) == 0, site.log.read_text()
    rows = json.loads(points.read_text())
    return Evaluated(before, results_of(site.folder), {(thread, number): name for thread, number, name in rows})


def asked_for_more(site: Site) -> Site:
    """Name another file beside the sweep's, with one probe more; a driver keeps the data of each file."""
    more = Site(site.root, site.root / "more.yaml")
    more.file.write_text(json.dumps(MORE | {"name": "sweep"}))
    return more


def results_of(folder: Path) -> dict[str, str]:
    """Return the metrics of the trials that are in the file now, and see to it that they rest on those of before."""
    rows = select(
        folder,
        "SELECT t.trial_id, a.attempt, a.state, a.metrics, a.trained_by FROM trials AS t JOIN attempts AS a "
        "USING (trial_id) WHERE t.position IS NOT NULL ORDER BY t.trial_id, a.attempt",
    )
    states: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        states[row["trial_id"]].append(row["state"])
        assert row["trained_by"] is not None
    assert len(states) == NUM_TRAINED + NUM_FLOORS
    for each in states.values():
        assert each == [*["lost"] * (len(each) - 1), "done"]
    return {row["trial_id"]: row["metrics"] for row in rows if row["state"] == "done"}


def test_after_a_driver_that_was_killed_the_next_one_evaluates_what_is_missing_and_trains_nothing(
    server: DriverServer, evaluated: Evaluated, tmp_path: Path
) -> None:
    kinds: defaultdict[str, list[Place]] = defaultdict(list)
    for place, name in evaluated.points.items():
        kinds[name].append(place)
    wrong: dict[str, object] = {}
    for number, (name, places) in enumerate(kinds.items()):
        if number % ONE_OF:
            continue
        root = tmp_path / str(number)
        root.mkdir()
        site = asked_for_more(Site(root, root / "sweep.yaml"))
        shutil.copytree(evaluated.before, site.folder)
        codes = [
            server.run(site, kill_at=places[len(places) // 2], **REAL.wishes),
            server.run(site, **REAL.wishes),
        ]
        if codes != [KILLED, 0] or results_of(site.folder) != evaluated.results:
            wrong[name] = codes, site.log.read_text()
        # Attempts that trained are those of before; of the others the rungs were taken over, once.
        old = select(site.folder, "SELECT * FROM attempts WHERE trained_by IS NULL")
        assert len(old) == NUM_TRAINED + NUM_FLOORS
        faults = find_faults(site.folder, num_trials=2 * (NUM_TRAINED + NUM_FLOORS), rungs=REAL.rungs)
        assert faults == []
        shutil.rmtree(root)
    assert wrong == {}
    assert len(kinds) >= 10
