"""Records of a sweep, and Optuna's studies of records."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.optuna_export.studies import GroupStudy, make_studies
from orchestrator.trials.records import Cause, Report, State, TrialRecord

from .studies import BEGAN, ENDED, INFO, RUNGS, Make, made


@pytest.fixture
def records() -> list[TrialRecord]:
    first = {"reports": RUNGS, "metrics": {"knn_top1": 30.0, "depth_rmse": 1.5}, "num_attempts": 2, "seconds": 9.0}
    return [
        made("none", 0, State.DONE, role="baseline", **first),
        made("none", 1, State.DONE, role="baseline", metrics={"knn_top1": 32.0}),
        made("norm@all", 0, State.PRUNED, reports=RUNGS, num_attempts=1),
        made("norm@all", 1, State.FAILED, num_attempts=3, error="boom", cause=Cause.GPU_MEMORY),
        made("qkv@all", 0, State.RUNNING, reports=RUNGS[:1], num_attempts=1),
        made("qkv@all", 1),
        made("mlp@all", 0, State.SKIPPED, skip_reason="no GPU hours left"),
        made("mlp@all", 1, State.DONE, metrics={"knn_top1": math.nan}, reports=(Report(2, {"knn_top1": math.inf}),)),
        made("proj@all", 0, State.DONE, metrics={"depth_rmse": 1.0}),
    ]


@pytest.fixture
def make() -> Make:
    def make(records: list[TrialRecord], info: SweepInfo = INFO, **options: Any) -> tuple[GroupStudy, ...]:
        configs = {
            trial.trial_id: {
                "seed": trial.seed,
                "treatment": {"kind": "specialize", "specialize": "none" if trial.role == "floor" else trial.arm},
                "model": {"scale": "nano"},
                "rungs": {"probes": ["knn"]},
            }
            for trial in (record.trial for record in records)
        }
        times = dict.fromkeys(configs, (BEGAN, ENDED))
        return make_studies(info, records, configs=configs, times=times, **options)

    return make
