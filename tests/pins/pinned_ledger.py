"""A small ledger with a trial of every kind of end, written through the public calls of the ledger."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance
from orchestrator.run import describe
from orchestrator.sweep.grid import expand, start_order
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause
from specvit.diagnostics.measurement import Measurement

SWEEP = {
    "question": "What does a table look like?",
    "data": {"source": "scenes", "num_train": 64, "num_val": 32},
    "objective": {"recipe": "deit3_cpu", "steps": 40, "batch_size": 8},
    "probes": {"knn": {}, "segmentation": {}, "depth": {}},
    "rungs": {"count": 3, "num_images": 32},
    "seeds": [0, 1, 2],
    "ablate": {"components": ["none", "norm", "qkv", "mlp"], "blocks": ["first-third", "all"]},
    "vary": {"model.scale": ["nano", "micro"]},
    "pruning": {"pruner": "median"},
    "diagnostics": True,
}
PROVENANCE = Provenance(
    started_at="2026-11-29T12:00:00+00:00",
    argv=("specsweep", "run", "pinned.yaml"),
    host="node",
    git_sha="0" * 40,
    git_dirty=False,
    versions={"python": "3.11.7", "torch": "2.14.1"},
    platform="Linux-x86_64",
    cpu="A processor",
    num_cores=2,
    memory_gib=24.0,
    gpus=(),
)


def write_ledger(path: Path) -> None:
    """Write the ledger to ``path``; its folder holds the sweep file too."""
    file = path.with_name("pinned.yaml")
    file.write_text(json.dumps(SWEEP, indent=1))
    sweep = load_sweep(file)
    trials = start_order(sweep, expand(sweep))  # that was the order of tables, too
    with Ledger.open(path) as ledger:
        ledger.register(describe(sweep, trials, {}), trials, PROVENANCE)
        for number, trial in enumerate(trials):
            key = (trial.trial_id, ledger.begin_attempt(trial.trial_id))
            ledger.record(Started(*key, worker="node:1"))
            ledger.record(Progressed(*key, step=10, steps=40, images_per_s=100.0))
            value = 30 + number * 7 % 11 + trial.seed / 3  # made up
            for step in (10, 20, 30):
                ledger.record(Reported(*key, step, {"knn_top1": value - 40 / step, "miou": value / 3, "loss": 3.0}))
            if number % 9 == 5 and trial.role == "arm":
                ledger.record(Pruned(*key, step=20, seconds=5.0))
            elif number % 11 == 7:
                error = "DivergenceError: the loss is nan at step 31 of 40"
                ledger.record(Failed(*key, error=error, traceback=f"Traceback\n{error}", cause=Cause.RAISED))
            elif number % 13 == 6:
                pass  # left as a run leaves it that was killed
            else:
                metrics = {"knn_top1": value, "miou": value / 2, "depth_rmse": value / 9, "depth_abs_rel": value / 90}
                metrics |= {"depth_delta1": 2 * value, "loss": 100 / value}
                reading = Measurement(0, "mlp", "cosine", value / 100)
                ledger.record(Logged(*key, "WARNING", f"line of {trial.label}"))
                ledger.record(Finished(*key, metrics, 10.0 + number, 9.5 + number, (reading,)))
        ledger.release_running()
        ledger.skip([trials[6].trial_id], "no time left")
