"""A process that has imported everything and forks drivers on request; see ``forked_drivers`` for its other side.

Requests and answers are lines of JSON. A driver is the whole of ``run_sweep``: ledger, lock, states and orders on the
disk, the judge, the executor in its process. Figures and provenance are stood in for: they take most of the time.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash_points
import stand_ins

import orchestrator.execution.local
import orchestrator.reports.curves
import orchestrator.run
import specvit.trial  # noqa: F401  a driver would import it with its first trial
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.worker import RunningJob
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.storage.folder_lock import LockedError
from orchestrator.sweep.loading import load_sweep
from specvit.files.atomic import replacing

LIMIT_S = 900
"""A driver that runs longer hangs, also on a busy machine: it takes a second. The kernel ends it."""


def main() -> None:
    """Serve until the requests end."""
    provenance = collect_provenance()
    orchestrator.run.collect_provenance = lambda *_: provenance
    load_data = functools.cache(_load)
    orchestrator.reports.curves.draw_curves = _draw_nothing
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _warm_up(load_data)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), file=answers)
            continue
        load_data(Path(request["file"]))
        child = os.fork()
        if child == 0:
            os._exit(_drive(request, load_data))
        print(json.dumps(child), file=answers)


def _warm_up(load_data: Callable[[Path], orchestrator.run.Datasets]) -> None:
    """Drive a sweep in this process, so that all is imported that a driver needs."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "sweep.yaml"
        file.write_text(sys.argv[1])
        _run({"trials": "stand-ins", "journal": os.devnull}, Path(name) / "results", file, load_data)


def _load(file: Path) -> orchestrator.run.Datasets:
    return orchestrator.run.load_datasets(orchestrator.run.expand(load_sweep(file)))


def _draw_nothing(_: object, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("figure")


def _drive(request: dict[str, Any], load_data: Callable[[Path], orchestrator.run.Datasets]) -> int:
    """Be a driver; return the exit code: 0 done, 1 an error, 3 another driver holds the folder, 4 trials failed."""
    signal.alarm(LIMIT_S)
    folder, file = Path(request["folder"]), Path(request["file"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    try:
        kill_at = request.get("kill_at")
        points = crash_points.CrashPoints(
            folder, kill_at=tuple(kill_at) if kill_at else None, all_statements=request.get("all_statements", False)
        )
        outcome = _run(request, folder, file, load_data)
        if "points" in request:
            rows = [[thread, number, name] for (thread, number), name in points.names.items()]
            Path(request["points"]).write_text(json.dumps(rows))
    except LockedError:
        traceback.print_exc()
        return 3
    except BaseException:
        traceback.print_exc()
        return 1
    return 4 if outcome.num_failed else 0


def _run(
    request: dict[str, Any], folder: Path, file: Path, load_data: Callable[[Path], orchestrator.run.Datasets]
) -> orchestrator.run.Outcome:
    def make_executor(datasets: orchestrator.run.Datasets, _: object) -> LocalExecutor:
        if request["trials"] == "real":
            orchestrator.execution.local.RunningJob = RunningJob  # type: ignore[misc]
            return LocalExecutor(datasets)
        kind = stand_ins.InStepAttempt if request["trials"] == "in step" else stand_ins.StandInAttempt
        attempt = functools.partial(kind, journal=Path(request["journal"]), pace_s=request.get("pace_s", 0.0))
        orchestrator.execution.local.RunningJob = attempt  # type: ignore[misc, assignment]
        return LocalExecutor(datasets)

    return orchestrator.run.run_sweep(
        load_sweep(file),
        folder=folder,
        make_executor=make_executor,
        load_data=lambda _: load_data(file),
    )


if __name__ == "__main__":
    main()
