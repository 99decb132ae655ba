"""Processes that do tasks, one thread of computation each, and what is said on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

from .arms import Task
from .probe_noise import NUM_BLOCKS, NUM_DRAWS, ProbeTask, run_probe_task
from .records import Run
from .training import run_task

FIRST_GUESS_CORE_S = 60.0
"""CPU seconds of a run before any is known."""
INTERRUPTED = 130


class Pace:
    """How long runs take, and how long what is left will."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._core_s: dict[str, list[float]] = {}
        self._done_core_s = 0.0
        self._started = time.monotonic()
        for run in runs:
            self._note(run)

    def _note(self, run: Run) -> None:
        if not run.error:
            self._core_s.setdefault(run.digest, []).append(run.core_s)

    def finished(self, task: Task | ProbeTask, runs: Sequence[Run]) -> None:
        """Count a task that is done in this session."""
        for run in runs:
            self._note(run)
        self._done_core_s += self.core_s(task)

    def core_s(self, task: Task | ProbeTask) -> float:
        """Return the CPU seconds that a task is expected to take."""
        known = self._core_s.get(task.setting.digest) or [s for values in self._core_s.values() for s in values]
        a_run = sum(known) / len(known) if known else FIRST_GUESS_CORE_S
        if isinstance(task, ProbeTask):
            return a_run * (1 + NUM_DRAWS * NUM_BLOCKS / 10)
        return a_run * len(task.arms)

    def seconds_left(self, tasks: Sequence[Task | ProbeTask]) -> float:
        """Return the seconds that tasks will take at the pace of this session, once one of it is done."""
        elapsed = time.monotonic() - self._started
        return sum(map(self.core_s, tasks)) * elapsed / max(self._done_core_s, 1e-9)


def run_all(
    tasks: Sequence[Task | ProbeTask], folder: Path, *, workers: int, commit: str, known: Sequence[Run]
) -> None:
    """Do tasks in their order, by so many processes; on Ctrl-C, or where one fails, end the program at once.

    Runs are recorded by the workers themselves, so an end at any time costs only what was running.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when a worker imports torch
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_begin)
    try:
        _work(pool, tasks, folder, commit=commit, pace=Pace(known))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        _leave(INTERRUPTED)
    except Exception:
        say(traceback.format_exc())
        _leave(1)
    pool.shutdown()


def _work(
    pool: ProcessPoolExecutor, tasks: Sequence[Task | ProbeTask], folder: Path, *, commit: str, pace: Pace
) -> None:
    left: dict[Future[object], Task | ProbeTask] = {
        pool.submit(run_probe_task if isinstance(task, ProbeTask) else run_task, task, folder, commit): task
        for task in tasks
    }
    for number, future in enumerate(as_completed(list(left)), 1):
        task, result = left.pop(future), future.result()
        pace.finished(task, result if isinstance(result, list) else [])
        minutes = pace.seconds_left(list(left.values())) / 60
        say(f"[{number}/{len(tasks)}] {_told(task, result)}; about {minutes:.0f} min left")


def _told(task: Task | ProbeTask, result: object) -> str:
    if not isinstance(result, list):
        return f"{task.setting.name}: noise of the probes"
    parts = [f"{run.arm}: {run.error or _metrics(run)} ({run.core_s:.0f} core-s)" for run in result]
    return f"{task.setting.name}, seed {task.seed}, {'; '.join(parts)}"


def _metrics(run: Run) -> str:
    return " ".join(f"{name} {value:.1f}" for name, value in run.metrics.items())


def _begin() -> None:
    """Prepare a worker: one thread; it leaves Ctrl-C to the program, and does not outlive it."""
    from specvit.device import limit_threads

    limit_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _leave(code: int) -> None:
    """End at once: workers end by themselves when their parent has, and nobody waits for their runs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(text: str) -> None:
    """Write a line to the standard error stream."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
