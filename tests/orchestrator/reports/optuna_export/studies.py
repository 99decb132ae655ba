"""Records of trials in every state, and what Optuna reads of the studies that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.optuna_export.studies import GroupStudy, write_studies
from orchestrator.trials.records import Report, State, TrialRecord

from ..table_records import make_trial

INFO = SweepInfo("tiny", "Why?", "", metrics=("knn_top1", "depth_rmse"), seeds=(0, 1))
BEGAN, ENDED = "2026-01-01T00:00:00.250+00:00", "2026-01-01T00:01:00.500+00:00"
RUNGS = (Report(2, {"knn_top1": 10.0, "depth_rmse": 3.0}), Report(4, {"knn_top1": 20.0, "depth_rmse": 2.0}))

Make = Callable[..., tuple[GroupStudy, ...]]


def made(arm: str, seed: int, state: State = State.WAITING, *, role: str = "arm", **known: Any) -> TrialRecord:
    return TrialRecord(make_trial(arm, seed, role=role), state, **known)


def done(arm: str, *values: float, role: str = "arm") -> list[TrialRecord]:
    """Make an arm whose seeds are done, each with a value."""
    return [
        made(arm, seed, State.DONE, role=role, metrics={"knn_top1": value}, reports=RUNGS)
        for seed, value in enumerate(values)
    ]


def loaded(folder: Path, studies: tuple[GroupStudy, ...]) -> list[optuna.Study]:
    path = folder / "out.db"
    write_studies(path, studies)
    storage = f"sqlite:///{path}"
    return [optuna.load_study(study_name=study.name, storage=storage) for study in studies]
