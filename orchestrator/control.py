"""What ``cancel``, ``prune``, ``retry``, ``redo`` and ``shares`` do: find what is meant; tell the run or act itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.ledger.attempts import find_trial, select_names
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import write_tables
from orchestrator.storage.command_inbox import Cancel, Command, Prune, Retry, send
from orchestrator.storage.driver import is_in_use
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.storage.results_folder import ResultsFolder, has_mirror, results_folder
from orchestrator.trials.events import Pruned
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean, one_line

TAKE_TIMEOUT_S = 30.0
"""Longest wait for a run to receive a command."""

SHARED_TAKE_TIMEOUT_S = 150.0
"""Likewise on a network file system: NFS lets a machine see what another one wrote after up to a minute."""

STOP_TIMEOUT_S = 600.0
"""Longest wait for a run to stop: it ends the step or the probes it is at, and saves."""

_PERIOD_S = 0.1


def cancel(folder: Path) -> None:
    """Stop the run that holds ``folder``; return when it has stopped.

    Raises:
        SpecsweepError: If none holds it, or it does not stop.
    """
    if not is_in_use(folder):
        raise SpecsweepError(f"{folder}: no run to cancel; nothing holds the results folder")
    _send(folder, Cancel())
    if not _wait(lambda: not is_in_use(folder), STOP_TIMEOUT_S):
        raise SpecsweepError(f"{folder}: the run was told to stop {STOP_TIMEOUT_S:g} s ago, but has not")


def prune(folder: Path, records: Sequence[TrialRecord], info: SweepInfo, *, arm: str, group: str | None = None) -> int:
    """Prune the trials of an arm that have no result yet.

    Args:
        folder: The folder of the sweep's results.
        records: All its trials.
        info: The sweep.
        arm: The arm, as its row is called in the table.
        group: The group, as its table is called; None = in all groups.

    Returns:
        The number of trials that are given up.

    Raises:
        SpecsweepError: If there is no such arm or group, if it is a baseline, or if a run does not receive the command.
        LockedError: If a run has begun in this moment.
    """
    trial_ids = tuple(
        record.trial.trial_id
        for record in _of_arm(records, arm, group)
        if record.state in (State.WAITING, State.PENDING, State.RUNNING, State.FAILED, State.SKIPPED)
    )
    if trial_ids and is_in_use(folder):
        _send(folder, Prune(trial_ids))
    elif trial_ids:
        with ledger_to_change(folder) as (results, ledger):
            ledger.release_running()
            for trial_id in trial_ids:
                attempt = ledger.begin_attempt(trial_id)
                ledger.record(Pruned(trial_id, attempt, step=0, seconds=0.0))
            write_tables(results.local, SweepData(info, ledger.records(), ledger.training_ids()))
    return len(trial_ids)


@contextmanager
def ledger_to_change(folder: Path) -> Iterator[tuple[ResultsFolder, Ledger]]:
    """Open a ledger that no run holds for writing, wherever its results folder has it.

    Raises:
        LockedError: If a run holds it.
    """
    place = folder.resolve()
    with (
        results_folder(place.parent, place.name) as results,
        hold_lock(results.local),
        Ledger.open(results.local / LEDGER_NAME) as ledger,
    ):
        yield results, ledger


def retry_in_run(folder: Path, records: Sequence[TrialRecord], states: Collection[State]) -> int:
    """Send the run that holds ``folder`` the command to try trials again.

    Args:
        folder: The folder of the sweep's results.
        records: All its trials.
        states: In which those are that are meant: failed, pruned.

    Returns:
        Their number.

    Raises:
        SpecsweepError: If the run does not receive the command.
    """
    trial_ids = tuple(record.trial.trial_id for record in records if record.state in states)
    if trial_ids:
        _send(folder, Retry(trial_ids))
    return len(trial_ids)


def find_done(ledger: Ledger, names: Sequence[str], arms: Sequence[str]) -> frozenset[str]:
    """Return the ids of trials that are done: of those that are named and of all of some arms, or of all there are.

    Raises:
        SpecsweepError: If there is no such trial or arm, a trial that is named is not done, or none is.
    """
    records = {record.trial.trial_id: record for record in ledger.records(with_reports=False)}
    with ledger.snapshot(reads_logs=False) as connection:
        known = [name for name in select_names(connection) if name.in_sweep]
    named = [find_trial(known, name).trial_id for name in names]
    if unfinished := next((records[each] for each in named if records[each].state is not State.DONE), None):
        raise SpecsweepError(
            f"{one_line(unfinished.trial.label)}: is {unfinished.state}, not done; 'specsweep run' runs what has no "
            "result, 'specsweep retry' what has failed or was pruned"
        )
    by_arm: dict[str, set[str]] = {}
    for record in records.values():
        by_arm.setdefault(record.trial.arm, set()).add(record.trial.trial_id)
    for arm in arms:
        if arm not in by_arm:
            raise SpecsweepError(f"no arm {arm!r}; known: {', '.join(map(repr, by_arm))}{did_you_mean(arm, [*by_arm])}")
    wanted = {*named, *(each for arm in arms for each in by_arm[arm])} if names or arms else records.keys()
    done = frozenset(each for each in wanted if records[each].state is State.DONE)
    if not done:
        raise SpecsweepError(f"{ledger.path.parent}: none of these trials is done; 'specsweep run' runs them")
    return done


def reset_shares(folder: Path) -> None:
    """Forget what trials get since memory ran out, while no run holds ``folder``.

    Raises:
        LockedError: If one does.
    """
    with ledger_to_change(folder) as (_, ledger):
        ledger.clear_resource_floors()


def _of_arm(records: Sequence[TrialRecord], arm: str, group: str | None) -> list[TrialRecord]:
    groups = list(dict.fromkeys(record.trial.group for record in records))
    if group is not None and group not in groups:
        raise SpecsweepError(f"no group {group!r}; known: {', '.join(map(repr, groups))}{did_you_mean(group, groups)}")
    here = [record for record in records if group in (None, record.trial.group)]
    kept = (Role.BASELINE, Role.CONTROL)
    arms = list(dict.fromkeys(record.trial.arm for record in here if record.trial.role not in kept))
    found = [record for record in here if record.trial.arm == arm]
    if any(record.trial.role is Role.BASELINE for record in found):
        raise SpecsweepError(f"{arm!r} is the baseline, without which there are no differences; it is not pruned")
    if any(record.trial.role is Role.CONTROL for record in found):
        raise SpecsweepError(f"{arm!r} is a control, which says what all of its seeds say or nothing; it is not pruned")
    if not found:
        raise SpecsweepError(f"no arm {arm!r}; known: {', '.join(map(repr, arms))}{did_you_mean(arm, arms)}")
    return found


def _send(folder: Path, command: Command) -> None:
    path = send(folder, command)
    timeout_s = SHARED_TAKE_TIMEOUT_S if has_mirror(folder) else TAKE_TIMEOUT_S
    if not _wait(lambda: not path.exists(), timeout_s):
        path.unlink(missing_ok=True)
        raise SpecsweepError(f"{folder}: the run has not taken the command in {timeout_s:g} s; it is withdrawn")


def _wait(is_so: Callable[[], bool], timeout_s: float) -> bool:
    until_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until_s:
            return False
        time.sleep(_PERIOD_S)
    return True
