"""A tracker in memory, which stays when its client is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.trackers import TrackedRun, TrackerClient


@dataclass
class Shown:
    """What a tracker shows of a run."""

    run: TrackedRun
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    state: str = "open"


class Store:
    """The runs of a tracker, by key."""

    def __init__(self) -> None:
        self.runs: dict[str, Shown] = {}
        self.num_begun = 0

    def named(self) -> dict[str, Shown]:
        names = {shown.run.name: shown for shown in self.runs.values()}
        assert len(names) == len(self.runs)
        return names


class InMemoryClient(TrackerClient):
    """A client of a store; it fails after ``calls_left`` calls, as if its process were killed."""

    def __init__(self, store: Store, calls_left: int = 1_000_000) -> None:
        self.store, self.calls_left = store, calls_left
        self.opened: set[str] = set()
        self.is_closed = False

    def begin(self, run: TrackedRun, *, at: float) -> int:  # noqa: ARG002
        self._call()
        assert run.key not in self.opened
        self.opened.add(run.key)
        self.store.num_begun += 1
        shown = self.store.runs.setdefault(run.key, Shown(run))
        shown.state = "open"
        return shown.points[-1][0] if shown.points else -1

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:
        self._call()
        assert run.key in self.opened
        self.store.runs[run.key].points.append((step, dict(metrics)))
        self.store.runs[run.key].times.append(at)

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:  # noqa: ARG002
        self._call()
        self.opened.remove(run.key)
        self.store.runs[run.key].state = state

    def close(self) -> None:
        assert not self.opened
        self.is_closed = True

    def _call(self) -> None:
        if not self.calls_left:
            raise ConnectionError("the store is gone")
        self.calls_left -= 1
