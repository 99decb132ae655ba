"""Users who share a results folder: what one of them looks at, another one goes on writing to.

Processes become other users, which takes root; elsewhere there is nothing to run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.catalog import list_sweeps
from orchestrator.ledger.event_stream import EventReader
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.monitoring.status import SweepStatus
from orchestrator.run import describe
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Finished
from orchestrator.trials.trial import Trial

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

OWNER, READER, GROUP = 54_001, 54_002, 54_003
SWEEP = """
objective: {recipe: dinov2_cpu, steps: 4}
probes: {knn: }
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a folder that a group may write to and all may enter, with results of the owner's."""
    folder = Path(tempfile.mkdtemp(prefix="specsweep-users-"))
    (folder / "shared.yaml").write_text(SWEEP)
    results = folder / "results" / "shared"
    results.mkdir(parents=True)
    folder.chmod(0o755)
    for shared in (results.parent, results):
        os.chown(shared, OWNER, GROUP)
        shared.chmod(0o2775)
    yield folder
    shutil.rmtree(folder)


def as_user(user: int, do: Callable[[], None]) -> None:
    """Do something in a process of another user, and make sure that it was done."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(user)
            os.umask(0o002)
            do()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def write_one(folder: Path, trials: tuple[Trial, ...], number: int) -> Callable[[], None]:
    # Found out here: other users cannot import what is not imported yet.
    info, provenance = describe(load_sweep(folder.parents[1] / "shared.yaml"), trials, {}), collect_provenance()

    def write() -> None:
        with hold_lock(folder), Ledger.open(folder / LEDGER_NAME) as ledger:
            ledger.register(info, trials, provenance)
            key = (trials[number].trial_id, ledger.begin_attempt(trials[number].trial_id))
            ledger.record(Finished(*key, {"knn_top1": 1.0}, 1.0, 1.0))

    return write


def look_at(folder: Path) -> Callable[[], None]:
    """Return what reads a ledger as the commands do."""

    def look() -> None:
        with Ledger.read(folder / LEDGER_NAME) as ledger:
            status = SweepStatus.read(ledger)
            assert [record.num_attempts for record in status.records[:2]] == [1, 0]
            assert ledger.diagnostics() == {}
            with ledger.snapshot() as connection:
                assert EventReader().poll(connection)
        assert [sweep.trials for sweep in list_sweeps(folder.parent)] == [len(status.records)]

    return look


def owners(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_uid for path in folder.iterdir()}


def test_a_reader_of_another_user_leaves_nothing_that_keeps_the_owner_from_writing(root: Path) -> None:
    folder = root / "results" / "shared"
    trials = expand(load_sweep(root / "shared.yaml"))
    as_user(OWNER, write_one(folder, trials, 0))
    assert owners(folder) == {LEDGER_NAME: OWNER, "lock": OWNER}
    as_user(READER, look_at(folder))
    assert owners(folder) == {LEDGER_NAME: OWNER, "lock": OWNER}
    as_user(OWNER, write_one(folder, trials, 1))
    with Ledger.read(folder / LEDGER_NAME) as ledger:
        assert len(ledger.with_result()) == 2


def test_a_sweep_that_another_user_may_not_look_into_keeps_none_from_being_listed(root: Path) -> None:
    as_user(OWNER, write_one(root / "results" / "shared", expand(load_sweep(root / "shared.yaml")), 0))
    (root / "results" / "private").mkdir(mode=0o700)

    def look() -> None:
        listed = {sweep.name: sweep for sweep in list_sweeps(root / "results")}
        assert {name: str(sweep.state) for name, sweep in listed.items()} == {
            "shared": "stopped",
            "private": "unreadable",
        }
        assert "Permission denied" in listed["private"].error

    as_user(READER, look)


def test_a_reader_of_another_user_sees_a_run_that_is_going_on(root: Path) -> None:
    folder = root / "results" / "shared"
    sweep = load_sweep(root / "shared.yaml")
    trials = expand(sweep)
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        key = (trials[0].trial_id, ledger.begin_attempt(trials[0].trial_id))
        before = owners(folder)
        as_user(READER, look_at(folder))
        assert owners(folder) == before
        assert ledger.record(Finished(*key, {"knn_top1": 1.0}, 1.0, 1.0))
