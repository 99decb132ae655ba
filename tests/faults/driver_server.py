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
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import crash_points
import stand_ins

import orchestrator.curves
import orchestrator.local_executor
import orchestrator.run
import specvit.trial
from orchestrator.lock import LockedError
from orchestrator.provenance import collect_provenance
from orchestrator.sweepfile import load_sweep
from specvit.atomic import replacing

LIMIT_S = 120
"""A driver that runs longer hangs; the kernel ends it."""


class Silence:
    """Be a view that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what does nothing."""
        return lambda *_: None


def main() -> None:
    """Serve until the requests end."""
    # Loads what is loaded late, so that no driver has to.
    import specvit.learners  # noqa: F401

    provenance = collect_provenance()
    orchestrator.run.collect_provenance = lambda: provenance
    load_data = functools.cache(_load)
    orchestrator.curves.draw_curves = _draw_nothing
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
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
        if request["trials"] != "real":
            kind = stand_ins.InStepAttempt if request["trials"] == "in step" else stand_ins.StandInAttempt
            orchestrator.local_executor.Attempt = functools.partial(  # type: ignore[misc, assignment]
                kind, journal=Path(request["journal"]), pace_s=request.get("pace_s", 0.0)
            )
        outcome = orchestrator.run.run_sweep(
            load_sweep(file),
            folder=folder,
            make_executor=lambda datasets, _: orchestrator.local_executor.LocalExecutor(datasets),
            make_view=lambda *_: nullcontext(Silence()),
            load_data=lambda _: load_data(file),
        )
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


if __name__ == "__main__":
    main()
