"""Runs that are stopped by a signal, and commands whose output nobody reads."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

from orchestrator.trials.records import State
from orchestrator.trials.trial import Role

from ....waiting import wait_for_end
from ...made_up import made_up_trial
from .commands import PROGRAM, Ended, FinishedSweep, ended_without_a_reader, read_table, records_in, started


@pytest.mark.long
@pytest.mark.slow
def test_ray_is_the_default_and_says_where_its_dashboard_is_and_sigterm_stops_it_as_ctrl_c_does(
    tmp_path: Path, write_sweep: Callable[..., Path], cli: Callable[..., Ended]
) -> None:
    few = {"seeds": 1, "ablate": {"components": ["none"]}, "floors": []}
    # More steps than there is time for: the second trial runs when the signal comes.
    write_sweep(tmp_path, vary={"objective.steps": [4, 1_000_000]}, **few)
    with started(tmp_path, PROGRAM, "run", "tiny.yaml", "--slots", "1", runs=Role.BASELINE) as process:
        process.send_signal(signal.SIGTERM)
        out, err = wait_for_end(process)
    assert process.returncode == 130, err
    assert "2 trials to run, 1 at once" in out
    assert "Ray dashboard: http://127.0.0.1:" in out
    assert "get-auth-token' prints it" in out
    assert "\x1b" not in out
    assert "SIGTERM" not in err
    assert out.splitlines()[-1] == "Stopped. To go on, run the same command again: specsweep run tiny.yaml --slots 1"
    done, waiting = records_in(tmp_path / "results" / "tiny")
    assert (done.state, waiting.state) == (State.DONE, State.WAITING)
    write_sweep(tmp_path, name="alone", **few)
    assert cli("run", "alone.yaml", "--executor", "local").code == 0
    (local,) = records_in(tmp_path / "results" / "alone")
    assert (local.trial.trial_id, local.metrics) == (done.trial.trial_id, done.metrics)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.long)], ids=["ctrl-c", "hangup"]
)
def test_ctrl_c_and_a_lost_terminal_exit_130_say_how_to_go_on_and_the_same_command_does_what_is_left(
    number: signal.Signals,
    finished: FinishedSweep,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    cli: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_sweep(tmp_path)
    command = [sys.executable, "-m", "tests.orchestrator.made_up", "run", "tiny.yaml", "--executor", "local"]
    with started(tmp_path, *command, runs=Role.ARM) as process:
        process.send_signal(number)
        out, err = wait_for_end(process)
    assert process.returncode == 130
    assert err == "\nspecsweep: stopping; running trials save their states (once more: stop at once)\n"
    assert out.splitlines()[-1] == (
        "Stopped. To go on, run the same command again: specsweep run tiny.yaml --executor local"
    )
    counts = Counter(record.state for record in records_in(tmp_path / "results" / "tiny"))
    assert set(counts) == {State.DONE, State.WAITING}
    planned = json.loads(cli("plan", "tiny.yaml", "--json").out)
    assert planned["pending"] == counts[State.WAITING]
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert ended.code == 0, ended.err
    assert f"{counts[State.WAITING]} trials to run" in ended.out
    assert_frame_equal(read_table(tmp_path / "results" / "tiny"), finished.table(), check_exact=True)
    records = records_in(tmp_path / "results" / "tiny")
    assert [record.state for record in records] == [State.DONE] * 8
    assert sorted(record.num_attempts for record in records) == [*[1] * 7, 2]


@pytest.mark.parametrize(
    "arguments", [("table", "tiny.yaml"), ("table", "tiny.yaml", "--format", "csv"), ("plan", "tiny.yaml"), ("schema",)]
)
def test_a_command_whose_reader_has_had_enough_ends_quietly(
    arguments: tuple[str, ...], finished: FinishedSweep
) -> None:
    ended = ended_without_a_reader(finished.folder, PROGRAM, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.long
def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path, write_sweep: Callable[..., Path]) -> None:
    write_sweep(tmp_path, seeds=1, ablate={}, floors=["raw_pixels"])
    ended = ended_without_a_reader(tmp_path, PROGRAM, "run", "tiny.yaml", "--executor", "local")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [record.state for record in records_in(tmp_path / "results" / "tiny")] == [State.DONE] * 2
    assert (tmp_path / "results" / "tiny" / "table.md").exists()
