"""Drivers that are killed or end leave no process of the cluster that they started."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..long_run import SLOW_IF_LONG
from .harness.disturbed_runs import count, rows, wait_until, write_sweep
from .harness.processes import command_of, descendants_of, is_alive, kill, named

pytestmark = SLOW_IF_LONG

PROGRAM = str(Path(sys.executable).with_name("specsweep"))
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@pytest.mark.long
def test_a_driver_that_is_killed_or_ends_leaves_no_process_of_its_cluster(tmp_path: Path) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 120, "batch_size": 8}
    file = write_sweep(tmp_path, seeds=1, ablate={"components": ["none"]}, objective=objective)
    command = [PROGRAM, "run", str(file), "--results", str(tmp_path), "--slots", "1"]
    folder = tmp_path / "disturbed"
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: count(folder, "reports") or driver.poll() is not None)
        assert driver.poll() is None
        started, session = started_by(driver)
        assert len(started) > 3
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        # Ray's own agents spend a minute on telling the head, which is gone, that their node is gone.
        agents = {pid for pid in started if command_of(pid) in AGENTS}
        wait_until(lambda: not any(map(is_alive, (started | named(session)) - agents)))
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: count(folder, "reports WHERE attempt = 2") or driver.poll() is not None)
        started, session = started_by(driver)
        assert driver.wait() == 0
        wait_until(lambda: not any(map(is_alive, started | named(session))))
        assert rows(folder, "SELECT state FROM attempts ORDER BY attempt") == [("lost",), ("done",)]
        wait_until(lambda: not any(map(is_alive, agents)), patience_s=300.0)
    finally:
        kill(driver.pid)
        driver.wait()


def started_by(driver: subprocess.Popen[bytes]) -> tuple[set[int], str]:
    """Return the processes that a driver has started, and the session of Ray that they are of."""
    started = descendants_of(driver.pid)
    found = re.search(r"/session_[0-9_-]+", " ".join(map(command_of, started)))
    assert found
    return started, found[0]
