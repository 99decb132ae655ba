"""Trackers and webhooks on the command line."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.tracking import make_notifier
from orchestrator.ledger.ledger import Ledger
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.sweep.loading import load_sweep
from orchestrator.trackers import Tracker
from orchestrator.trials.trial import Trial

from ...waiting import wait_for
from ..made_up import made_up_trial

Command = Callable[..., "subprocess.CompletedProcess[str]"]
RUN = ("run", "tiny.yaml", "--executor", "local")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give the address of a webhook, and what it has taken."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/SECRET", taken
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("made_up")
def test_a_webhook_is_told_and_stands_nowhere(
    command: Command,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    webhook: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, taken = webhook
    write_sweep(tmp_path, notify=address, seeds=1, rungs={"count": 0}, floors=[], ablate={})
    ended = command(*RUN, "--set", f"notify={address}")
    wait_for(lambda: taken)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (taken[0]["sweep"], taken[0]["status"], taken[0]["trials"]) == ("tiny", "done", {"done": 1})
    assert "SECRET" not in ended.stdout
    results = tmp_path / "results" / "tiny"
    kept = {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert [name for name, content in kept.items() if b"SECRET" in content] == []
    assert "--set notify=$SPECSWEEP_NOTIFY" in json.loads(kept["environment.json"])["command"]
    assert '"notify": "$SPECSWEEP_NOTIFY"' in kept["sweep.yaml"].decode()
    # The copy runs too, with a warning where the variable is not set.
    monkeypatch.delenv("SPECSWEEP_NOTIFY", raising=False)
    make_notifier(load_sweep(results / "sweep.yaml"))
    warning = "specsweep: notify: the environment variable SPECSWEEP_NOTIFY is not set, so nobody is told by it\n"
    assert capsys.readouterr().err == warning


def test_a_package_that_is_missing_ends_a_run_before_anything_begins(
    command: Command, tmp_path: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.trackers.base.find_spec", lambda _: None)
    write_sweep(tmp_path, trackers=["mlflow"])
    ended = command(*RUN)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "specsweep: trackers: 'mlflow' needs the package 'mlflow', which is not installed: "
        'pip install "specsweep[mlflow]"\n'
    )
    assert not (tmp_path / "results").exists()
    assert command("plan", "tiny.yaml").returncode == 0


def test_what_is_no_address_in_the_environment_ends_a_run_before_anything_begins(
    command: Command, tmp_path: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECSWEEP_NOTIFY", "nonsense")
    write_sweep(tmp_path)
    ended = command(*RUN)
    assert ended.returncode == 2
    assert ended.stderr.startswith("specsweep: SPECSWEEP_NOTIFY: must hold")
    assert not (tmp_path / "results").exists()


def test_an_export_tells_a_tracker_of_a_ledger(
    command: Command, ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Tracker, Path, Path]] = []
    monkeypatch.setattr("orchestrator.trackers.base.Tracker.check_installed", lambda _: None)
    monkeypatch.setattr(
        "orchestrator.monitoring.tracking.tell_all",
        lambda tracker, *, ledger, folder: told.append((tracker, ledger, folder)),
    )
    ended = command("export", "mlflow", str(tmp_path), "--with", "uri=http://host:5000", "--with", "experiment=x")
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "told mlflow: http://host:5000\n")
    [(tracker, path, folder)] = told
    assert (tracker.name, path, folder) == ("mlflow", ledger.path, tmp_path / "trackers" / "mlflow")
    refused = command("export", "wandb", str(tmp_path), "--with", "key=1")
    assert (refused.returncode, len(told)) == (2, 1)
    with hold_lock(tmp_path):
        running = command("export", "mlflow", str(tmp_path))
    assert running.returncode == 2
    assert "a run holds these results; export them when it ends" in running.stderr
