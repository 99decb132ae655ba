"""The files of a bench: a line of JSON for each run that is done, safe against an end at any time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = "runs.jsonl"
PROBE_NOISE = "probe_noise.jsonl"


@dataclass(frozen=True)
class Run:
    """A trial that is done.

    Attributes:
        setting: What the file of settings called it then.
        digest: Hash of the setting.
        arm: Name of the arm.
        seed: Its seed.
        metrics: Value by metric; empty if it failed.
        training_core_s: CPU seconds of the pretraining.
        probes_core_s: CPU seconds of the probes.
        distance: Of a twin, by step, ||w - w'|| / ||w|| to the run it repeats; else empty.
        error: Why it has no metrics; empty if it has.
        commit: The code's commit, as far as known, with a + if the code differed from it.
    """

    setting: str
    digest: str
    arm: str
    seed: int
    metrics: Mapping[str, float]
    training_core_s: float
    probes_core_s: float
    distance: Mapping[int, float]
    error: str = ""
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """Return what it is done only once for."""
        return self.digest, self.arm, self.seed

    @property
    def core_s(self) -> float:
        """Return its CPU seconds."""
        return self.training_core_s + self.probes_core_s


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as a line of its own, on the disk when this returns; processes may do so at the same time."""
    line = json.dumps(record, allow_nan=True).encode() + b"\n"
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def drop_half_line(path: Path) -> bool:
    """Cut off what a killed process has left of a line at the end of a file; return whether there was any."""
    if not path.exists():
        return False
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return False
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return True


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file, none if it is not there; a last line without its end is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def read_runs(path: Path) -> list[Run]:
    """Read the runs of a file in its order; of several with one key the first."""
    runs: dict[tuple[str, str, int], Run] = {}
    for line in read_lines(path):
        distance = {int(step): value for step, value in line.pop("distance").items()}
        run = Run(**line, distance=distance)
        runs.setdefault(run.key, run)
    return list(runs.values())


def by_arm(runs: Sequence[Run], metric: str) -> dict[str, dict[int, float]]:
    """Return a metric's values by arm and seed, of the runs that have it."""
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        if metric in run.metrics:
            values.setdefault(run.arm, {})[run.seed] = run.metrics[metric]
    return values
