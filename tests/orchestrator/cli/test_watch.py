from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.trials.events import Failed, Finished, Logged, Reported
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial

from ...waiting import wait_for_end

Command = Callable[..., "subprocess.CompletedProcess[str]"]
MAIN = [sys.executable, "-c", "from orchestrator.cli.app import main; main()"]


@pytest.fixture
def sweep_folder(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return the results of a sweep whose first trial failed, then got a result."""
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Logged(key, attempt, "WARNING", "[red]low\x1b[2J"))
    ledger.record(Failed(key, attempt, "OSError: [b]gone", "Traceback\n  here", 1.0, Cause.WORKER))
    again = ledger.begin_attempt(key)
    ledger.record(Reported(key, again, 2, {"knn_top1": 12.0}))
    ledger.record(Finished(key, again, {"knn_top1": 34.0}, 1.0, 1.0))
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def start(sweep_folder: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*MAIN, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_logs_of_a_trial_show_every_attempt_as_text(command: Command, sweep_folder: Path) -> None:
    ended = command("logs", str(sweep_folder), "nano none seed 0")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert "attempt 1: failed (worker)" in lines
    assert "  error: OSError: [b]gone" in lines
    assert lines[lines.index("  Traceback") + 1] == "    here"
    assert any(line.endswith(r" WARNING: [red]low\x1b[2J") for line in lines)
    assert "attempt 2: done" in lines
    assert "  result: knn_top1 34.00" in lines
    assert "\x1b" not in ended.stdout


def test_logs_of_one_attempt_leave_the_others_out(
    command: Command, sweep_folder: Path, trials: tuple[Trial, ...]
) -> None:
    out = command("logs", str(sweep_folder), trials[0].trial_id[:8], "--attempt", "2").stdout
    assert "attempt 2: done" in out
    assert "attempt 1" not in out


def test_logs_without_a_trial_list_what_failed(
    command: Command, sweep_folder: Path, trials: tuple[Trial, ...]
) -> None:
    ended = command("logs", str(sweep_folder))
    assert ended.returncode == 0
    assert ended.stdout == (
        f"{trials[0].trial_id[:12]}  nano none seed 0: 1 of 2 attempts failed, now done; "
        "attempt 1, worker: OSError: [b]gone\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed 0",), "'seed 0' fits 4 trials; give one of these labels or ids:\n"),
        (("nobody",), "'nobody': no trial has this label"),
        (("nano none seed 0", "--attempt", "3"), "--attempt: of nano none seed 0 there are 2 so far, not 3\n"),
        (("--attempt", "3"), "--attempt: needs a TRIAL whose attempt it is\n"),
    ],
)
def test_logs_of_what_is_not_there_exit_2_and_say_why(
    arguments: tuple[str, ...], message: str, command: Command, sweep_folder: Path
) -> None:
    ended = command("logs", str(sweep_folder), *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"specsweep: {message}")


@pytest.mark.parametrize("words", [("logs",), ("events",), ("status", "--follow")])
def test_an_unknown_target_exits_2_and_is_named(words: tuple[str, ...], command: Command) -> None:
    name, *options = words
    ended = command(name, "unknown", *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "specsweep: unknown: no such sweep file or results folder\n"


def test_events_are_json_lines(command: Command, sweep_folder: Path) -> None:
    ended = command("events", str(sweep_folder))
    assert (ended.returncode, ended.stderr) == (0, "")
    kinds = [json.loads(line)["kind"] for line in ended.stdout.splitlines()]
    assert kinds == ["registered", "begun", "log", "failed", "begun", "rung", "done"]


def test_events_that_are_followed_end_at_once_where_no_run_is(command: Command, sweep_folder: Path) -> None:
    assert command("events", str(sweep_folder), "--follow").stdout == command("events", str(sweep_folder)).stdout


def test_events_reach_a_pipe_one_by_one_and_end_with_the_run(
    start: Callable[..., subprocess.Popen[str]], sweep_folder: Path, ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    with hold_lock(sweep_folder):
        process = start("events", str(sweep_folder), "--follow", "--interval", "0.1")
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline())["kind"] for _ in range(7)]
        key = trials[1].trial_id
        ledger.begin_attempt(key)
        event = json.loads(process.stdout.readline())
        ledger.record(Failed(key, 1, "x", ""))
    out, err = wait_for_end(process)
    assert (first[0], first[-1]) == ("registered", "done")
    assert (event["kind"], event["trial_id"]) == ("begun", key)
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["failed"]
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("words", [("events",), ("logs", "nano none seed 0"), ("status",)])
def test_a_reader_that_has_had_enough_ends_a_command_quietly(
    words: tuple[str, ...], start: Callable[..., subprocess.Popen[str]], sweep_folder: Path
) -> None:
    name, *rest = words
    process = start(name, str(sweep_folder), *rest)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = wait_for_end(process)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("name", ["status", "events"])
def test_ctrl_c_ends_following_with_130(
    name: str, start: Callable[..., subprocess.Popen[str]], sweep_folder: Path
) -> None:
    with hold_lock(sweep_folder):
        process = start(name, str(sweep_folder), "--follow", "--interval", "0.1")
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = wait_for_end(process)
    assert (process.returncode, err) == (130, "")


def test_a_status_that_was_followed_exits_1_where_a_trial_has_no_result(command: Command, sweep_folder: Path) -> None:
    followed = command("status", str(sweep_folder), "--follow")
    assert followed.returncode == 1
    once = command("status", str(sweep_folder))
    assert (once.returncode, once.stdout) == (0, followed.stdout)


def test_a_status_that_was_followed_exits_0_where_every_trial_has_a_result(
    command: Command, sweep_folder: Path, ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    for trial in trials[1:]:
        ledger.record(Finished(trial.trial_id, ledger.begin_attempt(trial.trial_id), {}, 1.0, 1.0))
    assert command("status", str(sweep_folder), "--follow").returncode == 0


def test_none_of_them_changes_the_ledger(command: Command, sweep_folder: Path, ledger: Ledger) -> None:
    version = ledger.version()
    for words in (("status",), ("status", "--follow"), ("logs",), ("events",), ("events", "--follow")):
        name, *options = words
        command(name, str(sweep_folder), *options)
    assert ledger.version() == version


def test_a_status_as_json_has_every_trial(command: Command, sweep_folder: Path, trials: tuple[Trial, ...]) -> None:
    told = json.loads(command("status", str(sweep_folder), "--json").stdout)
    assert (told["sweep"], told["is_running"], told["has_ended"]) == ("tiny", False, True)
    assert [trial["label"] for trial in told["trials"]] == [trial.label for trial in trials]
    assert told["trials"][0]["metrics"] == {"knn_top1": 34.0}


@pytest.mark.parametrize("arguments", [("status", "--json"), ("events",)])
def test_who_follows_before_the_ledger_is_there_waits_for_it(
    arguments: tuple[str, ...], start: Callable[..., subprocess.Popen[str]], sweep_folder: Path, tmp_path: Path
) -> None:
    ledger, aside = sweep_folder / "ledger.sqlite", tmp_path / "aside"
    ledger.rename(aside)
    name, *options = arguments
    process = start(name, str(sweep_folder), "--follow", "--interval", "0.1", *options)
    assert process.stderr is not None
    assert process.stderr.readline() == (
        f"specsweep: {ledger}: no ledger here yet; waiting for the sweep to start\n"
    )
    assert process.poll() is None
    aside.rename(ledger)
    out, _ = wait_for_end(process)
    # Nobody runs the sweep, so that there is one look; most of its trials have no result.
    assert process.returncode == (1 if name == "status" else 0)
    assert json.loads(out.splitlines()[-1])
