"""The sweeps whose drivers are killed, and how they are compared with themselves, uninterrupted."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .finished_sweeps import Ended, find_faults, read_end, without_times
from .forked_drivers import DriverServer, Site

KILLED = -signal.SIGKILL
NUM_TRAINED, NUM_FLOORS = 4, 2


@dataclass(frozen=True)
class Subject:
    """Hold a sweep of four trials that train and two that do not.

    Attributes:
        name: Its name.
        steps: Of each trial that trains.
        rungs: Steps at which it reports.
        trials: What runs: ``in step`` or ``stand-ins`` (see ``stand_ins``), or ``real`` trials.
        pace_s: Least seconds that a stand-in's step takes.
    """

    name: str
    steps: int
    rungs: tuple[int, ...]
    trials: str
    pace_s: float = 0.0

    @property
    def sections(self) -> dict[str, Any]:
        """Return the sweep file."""
        return {
            "question": "Does a sweep survive its drivers?",
            "data": {"source": "scenes", "num_train": 64, "num_val": 32},
            "objective": {"recipe": "dinov2_cpu", "steps": self.steps, "batch_size": 8},
            "probes": {"knn": {}},
            "rungs": {"count": len(self.rungs), "num_images": 32},
            "seeds": 2,
            "ablate": {"components": ["none", "norm"]},
            "floors": ["random_init"],
            "checkpoint_every_s": 1e-4,
            "checkpoint_max_share": 1,
        }

    @property
    def wishes(self) -> dict[str, Any]:
        """Return what a server of drivers is to be asked for."""
        return {"trials": self.trials, "pace_s": self.pace_s}


# Rungs lie evenly between the first step and the last one.
SHORT = Subject("short", steps=4, rungs=(1, 3), trials="in step")
FINE = Subject("fine", steps=20, rungs=(5, 10, 15), trials="stand-ins", pace_s=0.002)
REAL = Subject("real", steps=6, rungs=(2, 4), trials="real")


class Folders:
    """Give out folders for sweeps."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def new(self, whole: Whole) -> Site:
        """Make a folder for the same sweep file."""
        self._count += 1
        site = Site(self._root / str(self._count), whole.file)
        site.root.mkdir()
        return site


@dataclass(frozen=True)
class Whole:
    """Hold a sweep that was run without an interruption, and the points that its driver came by."""

    subject: Subject
    file: Path
    ended: Ended
    points: dict[tuple[str, int], str]

    def faults_of(self, site: Site, *, num_kills: int) -> list[str]:
        """Return in what a sweep that has ended is not as it should be, or not as the uninterrupted one."""
        ended, before = read_end(site.folder), self.ended
        is_real = self.subject.trials == "real"
        parts: dict[str, tuple[object, object]] = {
            "results": (ended.results, before.results),
            "reports": (ended.reports, before.reports),
            "files": (sorted(ended.files), sorted(before.files)),
            "tables": (without_times(ended.files), without_times(before.files)),
        }
        if not is_real:
            parts |= {"seconds": (ended.seconds, before.seconds), "files": (ended.files, before.files)}
        assert site.journal.exists() != is_real
        return [
            *find_faults(site.folder, num_trials=NUM_TRAINED + NUM_FLOORS, rungs=self.subject.rungs),
            *(f"other {name} than uninterrupted" for name, (here, there) in parts.items() if here != there),
            *([] if is_real else self._steps_lost(site, num_kills=num_kills)),
        ]

    def _steps_lost(self, site: Site, *, num_kills: int) -> list[str]:
        lines = [line.split() for line in site.journal.read_text().splitlines()]
        steps = [(trial_id, step) for trial_id, _, step in lines]
        again = len(steps) - len(set(steps))
        # Of a driver that dies nothing is lost but the step whose state is being written, and one computed meanwhile.
        return [f"{again} steps computed again after {num_kills} kills"] if again > 2 * num_kills else []


def run_whole(server: DriverServer, subject: Subject, site: Site) -> Whole:
    """Run a sweep without an interruption."""
    path = site.root / "points.json"
    assert server.run(site, points=str(path), **subject.wishes) == 0, site.log.read_text()
    points = {(thread, number): name for thread, number, name in json.loads(path.read_text())}
    whole = Whole(subject, site.file, read_end(site.folder), points)
    assert whole.faults_of(site, num_kills=0) == []
    return whole
