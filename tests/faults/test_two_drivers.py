"""Two drivers on one folder: the second exits with 3 and touches nothing; orders to a driver that stands still."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import control
from orchestrator.ledger.ledger import Ledger
from orchestrator.storage.command_inbox import FOLDER_NAME, Prune, send
from orchestrator.trials.records import State
from specvit.errors import SpecsweepError

from ..waiting import run_to_end, wait_for
from .harness.finished_sweeps import dump
from .harness.forked_drivers import REPOSITORY, DriverServer, Site
from .harness.killed_sweeps import Folders, Whole

PROGRAM = str(Path(sys.executable).with_name("specsweep"))
EXIT_LOCKED = 3
PACE_S = 0.02


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return the time of change, the inode and the content of all that lies in a folder, and of the folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *sorted(folder.rglob("*")))
    }


def stop(pid: int) -> None:
    """Make a process stand still; return when it does."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


@pytest.fixture
def site(fine: Whole, folders: Folders) -> Site:
    return folders.new(fine)


@pytest.fixture
def holder(server: DriverServer, site: Site) -> Iterator[int]:
    """Start a driver, and make it stand still in the middle of its first trial, with a state on the disk."""
    pid = server.start(site, trials="stand-ins", pace_s=PACE_S)
    try:
        wait_for(lambda: any(site.folder.glob("checkpoints/*.safetensors")))
        stop(pid)
        yield pid
        os.kill(pid, signal.SIGCONT)
    finally:
        code = server.wait(pid) if not sys.exc_info()[0] else server.kill(pid)
    assert code == 0


@pytest.mark.long
def test_the_second_command_exits_with_3_naming_the_first_and_touches_nothing(
    holder: int, site: Site
) -> None:
    before = snapshot(site.folder)
    results = site.root / "by_name"
    results.mkdir()
    (results / "fine").symlink_to(site.folder, target_is_directory=True)
    second = run_to_end(
        [PROGRAM, "run", site.file, "--executor", "local", "--results", results],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert (second.returncode, second.stdout) == (EXIT_LOCKED, "")
    assert re.search(rf"is in use by process {holder} on ", second.stderr)
    assert "Traceback" not in second.stderr
    assert snapshot(site.folder) == before


@pytest.mark.long
def test_drivers_that_come_second_change_nothing_of_the_first_ones_sweep(
    holder: int, site: Site, fine: Whole, server: DriverServer
) -> None:
    before = snapshot(site.folder)
    assert [server.run(site, **fine.subject.wishes) for _ in range(3)] == [EXIT_LOCKED] * 3
    assert snapshot(site.folder) == before
    os.kill(holder, signal.SIGCONT)
    wait_for(lambda: not (site.folder / "checkpoints").exists() and (site.folder / "environment.json").exists())
    assert fine.faults_of(site, num_kills=0) == []


def test_of_drivers_that_start_together_one_runs_the_sweep_and_the_others_exit_with_3(
    server: DriverServer, fine: Whole, folders: Folders
) -> None:
    site = folders.new(fine)
    pids = [server.start(site, **fine.subject.wishes) for _ in range(6)]
    codes = [server.wait(pid) for pid in pids]
    # One that starts when the first has ended finds nothing to do.
    assert set(codes) <= {0, EXIT_LOCKED}
    assert 0 in codes
    assert fine.faults_of(site, num_kills=0) == []
    assert max(row[1] for row in dump(site.folder)["attempts"]) == 1


@pytest.mark.long
def test_an_order_that_a_driver_which_stands_still_does_not_take_is_withdrawn_with_an_error(
    holder: int, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TAKE_TIMEOUT_S", 0.3)
    with Ledger.read(site.folder / "ledger.sqlite") as ledger:
        records, info = ledger.records(), ledger.sweep()
    before = dump(site.folder)
    orders: list[Callable[[], object]] = [
        lambda: control.prune(site.folder, records, info, arm="norm@all"),
        lambda: control.retry_in_run(site.folder, records, {State.WAITING}),
        lambda: control.cancel(site.folder),
    ]
    for order in orders:
        with pytest.raises(SpecsweepError, match=f"{site.folder}: the run has not taken the command .* is withdrawn"):
            order()
        assert list((site.folder / FOLDER_NAME).iterdir()) == []
    assert dump(site.folder) == before


def test_a_driver_that_was_given_orders_while_it_stood_still_obeys_those_that_were_not_withdrawn(
    holder: int, site: Site
) -> None:
    with Ledger.read(site.folder / "ledger.sqlite") as ledger:
        arm = tuple(record.trial.trial_id for record in ledger.records() if record.trial.arm == "norm@all")
    order = send(site.folder, Prune(arm))
    os.kill(holder, signal.SIGCONT)
    wait_for(lambda: not order.exists())
    wait_for(lambda: (site.folder / "environment.json").exists())
    with Ledger.read(site.folder / "ledger.sqlite") as ledger:
        states = {record.trial.trial_id: record.state for record in ledger.records()}
    assert [trial_id for trial_id, state in states.items() if state is State.PRUNED] == list(arm)
    assert set(states.values()) == {State.PRUNED, State.DONE}
