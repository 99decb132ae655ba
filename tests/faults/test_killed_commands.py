"""``specsweep run`` as users start it, killed: in this process, and on Ray, whose processes must not outlive it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..long_run import ONLY_LONG
from ..waiting import wait_for, wait_for_end
from .harness.finished_sweeps import select
from .harness.forked_drivers import REPOSITORY, Site
from .harness.killed_sweeps import KILLED, Folders, Whole

pytestmark = ONLY_LONG

PROGRAM = str(Path(sys.executable).with_name("specsweep"))
MARK = "SPECSWEEP_FAULTS_RUN"
"""Environment variable that all processes of a run inherit, and by which they are found."""

NUM_KILLS = 20
NUM_RAY_KILLS = 10
LEAST_RAY_PROCESSES = 3
"""Of a cluster that runs a trial: the control service, the raylet, a worker."""

GONE_AFTER_S = 30.0
AGENTS_GONE_AFTER_S = 120.0
"""Ray's agents that were starting when their cluster was lost look for its control service for 60 s, then end."""


class Command:
    """Run a sweep by the command, in a folder of results that carries the sweep's name."""

    def __init__(self, site: Site, *, executor: str) -> None:
        self.mark = uuid.uuid4().hex
        results = site.root / "by_name"
        results.mkdir(exist_ok=True)
        link = results / site.file.stem
        if not link.exists():
            site.folder.mkdir()
            link.symlink_to(site.folder, target_is_directory=True)
        with site.log.open("a") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", str(site.file), "--executor", executor, "--results", str(results)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY), MARK: self.mark},
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> int:
        self._process.kill()
        return self.wait()

    def wait(self) -> int:
        wait_for_end(self._process)
        return self._process.returncode

    def descendants(self) -> dict[int, str]:
        """Return the command lines of the processes of this run that are alive, the driver apart."""
        mark, found = f"{MARK}={self.mark}".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            # A process may end between two looks; one that is dead and not yet waited for has no environment.
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes() and int(folder.name) != self._process.pid:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found


def wait_for_a_rung(command: Command, site: Site) -> None:
    """Wait until a running attempt has reported, or the command has ended."""
    query = "SELECT 1 FROM reports JOIN attempts USING (trial_id, attempt) WHERE state = 'running'"
    shm = site.folder / "ledger.sqlite-shm"
    wait_for(lambda: command.has_ended or (shm.exists() and has_rows(site, query)))


def has_rows(site: Site, query: str) -> bool:
    return bool(select(site.folder, "SELECT 1 FROM sqlite_schema WHERE name = 'attempts'")) and bool(
        select(site.folder, query)
    )


def kill_at_random(
    whole: Whole, folders: Folders, *, executor: str, num_kills: int, after_kill: Callable[[Command], list[str]]
) -> int:
    """Kill commands while they start, or a moment after a trial has reported, by turns.

    Returns:
        How many processes a command had beside itself when it was killed, at most.
    """
    draw, killed, most, wrong = random.Random(3), 0, 0, {}
    while killed < num_kills:
        site, code, kills_here = folders.new(whole), KILLED, 0
        while code == KILLED:
            command = Command(site, executor=executor)
            if killed < num_kills:
                if killed % 2:
                    wait_for_a_rung(command, site)
                    time.sleep(draw.uniform(0.0, 0.7))
                else:
                    time.sleep(draw.uniform(0.0, 5.0))
                most = max(most, len(command.descendants()))
                code = command.kill()
                killed += code == KILLED
                kills_here += code == KILLED
                if left := after_kill(command):
                    wrong[f"{site.root.name}, kill {kills_here}"] = left
            else:
                code = command.wait()
        log = site.log.read_text()
        if faults := whole.faults_of(site, num_kills=kills_here) if code == 0 else [f"exit code {code}", log]:
            wrong[site.root.name] = faults
    assert wrong == {}
    assert killed == num_kills
    return most


def test_commands_that_are_killed_while_they_start_or_run_end_the_sweep_with_the_same_numbers(
    real: Whole, folders: Folders
) -> None:
    kill_at_random(real, folders, executor="local", num_kills=NUM_KILLS, after_kill=lambda _: [])


def test_of_commands_on_ray_that_are_killed_no_process_is_left_and_the_sweep_ends_with_the_same_numbers(
    real: Whole, folders: Folders
) -> None:
    killed: list[tuple[Command, float]] = []

    def find_survivors(command: Command) -> list[str]:
        killed.append((command, time.monotonic()))
        return survivors(*killed[-1], gone_after_s=GONE_AFTER_S, spared=is_agent)

    most = kill_at_random(real, folders, executor="ray", num_kills=NUM_RAY_KILLS, after_kill=find_survivors)
    assert most >= LEAST_RAY_PROCESSES
    # Agents of all runs are waited for together: while they look for what is gone, the next runs went on.
    left = [survivors(*kill, gone_after_s=AGENTS_GONE_AFTER_S) for kill in killed]
    assert left == [[]] * len(killed)


def survivors(
    command: Command, killed_at: float, *, gone_after_s: float, spared: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Wait until no process of a killed run is left but those to be spared; end the others and return them."""
    while left := {pid: line for pid, line in command.descendants().items() if not spared(line)}:
        if time.monotonic() - killed_at > gone_after_s:
            break
        time.sleep(0.1)
    for pid in left:  # they are this test's own
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values())


def is_agent(command_line: str) -> bool:
    """Tell whether a process is one of the two agents that Ray starts beside a raylet, whose own line names them."""
    program = command_line.partition(" ")[0]  # of a process that has just ended nothing
    return not program.endswith(("/raylet", "/gcs_server")) and "agent" in command_line.lower()
