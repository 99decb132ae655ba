"""Sweep files whose grids are expanded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial

BASE = "objective: {recipe: dinov2_cpu, steps: 150}\nprobes: {knn: }\n"

Expand = Callable[..., tuple[Trial, ...]]


def load_text(path: Path, text: str, *overrides: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return load_sweep(path, overrides)


def arms(trials: tuple[Trial, ...]) -> list[str]:
    return [trial.arm for trial in trials]
