"""A tracker of another package: a file of JSON lines, which can fail or hang."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from orchestrator.trackers import TrackedRun, Tracker, TrackerClient
from specvit.settings import Flag, settings


@settings
class Journal(Tracker):
    """Write a line for each call."""

    name: ClassVar[str] = "journal"
    tracker: Literal["journal"] = "journal"
    fails: Flag = False
    """Whether it cannot be opened."""
    hangs: Flag = False
    """Whether it never comes to an end."""

    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:  # noqa: ARG002
        if self.fails:
            raise ConnectionError("no route to https://user:password@journal.example")
        while self.hangs:
            time.sleep(60)
        return _Lines(folder / "journal.jsonl")

    def destination(self, folder: Path, *, sweep: str) -> str:  # noqa: ARG002
        return f"cat {folder / 'journal.jsonl'}"


class _Lines(TrackerClient):
    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, run: TrackedRun, *, at: float) -> int:  # noqa: ARG002
        held = self._path.read_text().splitlines() if self._path.exists() else []
        steps = [step for key, what, step, _ in map(json.loads, held) if key == run.key and what == "log"]
        self._add(run, "begin", 0, run.name)
        return max(steps, default=-1)

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:  # noqa: ARG002
        self._add(run, "log", step, dict(metrics))

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:  # noqa: ARG002
        self._add(run, "end", 0, state)

    def _add(self, run: TrackedRun, what: str, step: int, about: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([run.key, what, step, about]) + "\n")
