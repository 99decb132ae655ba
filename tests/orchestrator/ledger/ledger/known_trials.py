"""The sweep and the trials that the ledgers of these tests know, and what a ledger says of one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role, Trial
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data import DATA_SOURCES
from specvit.recipes import RECIPES

INFO = SweepInfo(
    name="components",
    question="Which?",
    text="name: components\n",
    metrics=("knn_top1", "miou"),
    seeds=(0, 1),
    data_fingerprints={"group": "f00d"},
)
PROVENANCE = Provenance(
    started_at="2026-01-01T00:00:00+00:00",
    argv=("specsweep", "run"),
    host="node",
    git_sha="abc",
    git_dirty=True,
    versions={"python": "3.11"},
    platform="Linux",
    cpu="cpu",
    num_cores=2,
    memory_gib=None,
    gpus=("H100",),
)


def make_trial(name: str, seed: int = 0, *, group: str = "", label: str = "") -> Trial:
    return Trial(
        trial_id=f"{name}-{seed}",
        group_id="group",
        arm_id=name,
        group=group,
        arm=name,
        role=Role.BASELINE if name == "none" else Role.ARM,
        label=label or f"{name} seed {seed}",
        seed=seed,
        num_parameters=1000,
        extra_parameters_percent=2.5,
        config=TrialConfig(
            treatment=Treatment(specialize=name),
            model=ModelSettings(),
            data=DATA_SOURCES["scenes"](),
            objective=RECIPES["dinov2"](),
            probes=(),
            rungs=RungSettings(),
            seed=seed,
        ),
    )


TRIALS = tuple(make_trial(name, seed) for name in ("none", "norm@all") for seed in (0, 1))


def record_of(ledger: Ledger, trial_id: str) -> TrialRecord:
    (record,) = (record for record in ledger.records() if record.trial.trial_id == trial_id)
    return record


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()
