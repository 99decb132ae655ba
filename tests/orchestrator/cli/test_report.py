"""The command ``report``: where it writes, what it refuses, and that the page it serves ends with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Failed, Finished, Reported
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial

from ...waiting import wait_for_end

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def sweep_folder(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return the results of a sweep of which two trials are done, one of them in a second attempt, and one failed."""
    for number, trial in enumerate(trials[:2]):
        key = trial.trial_id
        if not number:
            ledger.record(Failed(key, ledger.begin_attempt(key), "OSError: no", "Traceback", cause=Cause.IO))
        attempt = ledger.begin_attempt(key)
        ledger.record(Reported(key, attempt, 2, {"knn_top1": 12.0, "loss": 9.0}))
        ledger.record(Finished(key, attempt, {"knn_top1": 34.0 + 2 * trial.seed}, 1.0, 1.0))
    last = trials[-1].trial_id
    ledger.record(Failed(last, ledger.begin_attempt(last), "ValueError: no", "Traceback"))
    return tmp_path


def test_a_page_is_written_beside_the_ledger_or_where_it_is_wanted(command: Command, sweep_folder: Path) -> None:
    ended = command("report", str(sweep_folder), "--no-figures")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"written: {sweep_folder}/report.html\n"
    page = (sweep_folder / "report.html").read_text()
    for said in ("Does a tiny sweep run?", "5 trials of 8 still to do", "ValueError: no", "1 trial (io 1)"):
        assert said in page
    assert command("report", str(sweep_folder), "--no-figures", "-o", "of it.html").returncode == 0
    assert (sweep_folder / "of it.html").read_text() == page


def test_what_is_wanted_of_a_page_that_is_not_served_is_refused(command: Command, sweep_folder: Path) -> None:
    refused = command("report", str(sweep_folder), "--port", "8000")
    assert (refused.returncode, refused.stderr) == (2, "specsweep: --port: only with --serve\n")
    refused = command("report", str(sweep_folder), "--serve", "-o", "x.html")
    assert (refused.returncode, refused.stderr) == (2, "specsweep: --out: not with --serve, which writes nothing\n")
    assert command("report", "nowhere", "--serve").returncode == 2


@pytest.mark.long
def test_figures_for_papers_are_written_beside_the_page(command: Command, sweep_folder: Path) -> None:
    ended = command("report", str(sweep_folder))
    assert ended.returncode == 0
    names = {path.name for path in (sweep_folder / "figures").iterdir()}
    assert names == {
        f"{figure}{width}.{kind}"
        for figure in ("curves", "forest")
        for width in ("", "-column")
        for kind in ("pdf", "svg")
    }
    assert ended.stdout.splitlines() == [
        f"written: {sweep_folder}/report.html",
        f"written: 8 figures for papers, SVG and PDF, in {sweep_folder}/figures",
    ]


@pytest.mark.long
def test_a_served_page_is_of_the_sweep_as_it_stands_and_ends_with_ctrl_c(sweep_folder: Path) -> None:
    code = "import sys; from orchestrator.cli.app import main; main()"
    program = [sys.executable, "-c", code, "report", str(sweep_folder), "--serve"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url, _, rest = process.stdout.readline().partition(" ")
        assert rest == "shows this sweep; Ctrl-C ends it\n"
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        assert '<meta http-equiv="refresh" content="30">' in page
        assert "UTC, made anew every 30 s" in page
        process.send_signal(signal.SIGINT)
        _, err = wait_for_end(process)
        assert (process.returncode, err) == (0, "")
    assert not (sweep_folder / "report.html").exists()
