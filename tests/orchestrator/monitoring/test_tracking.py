"""The processes of trackers: that nothing they do reaches the sweep, and that all is told in the end."""

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
from orchestrator.monitoring import tracker_process, tracking
from orchestrator.trackers import TRACKERS, Tracker
from orchestrator.trials.events import Finished, Reported
from orchestrator.trials.trial import Trial
from specvit import plugins
from specvit.errors import SpecsweepError

from ...waiting import run_to_end, wait_for

JOURNAL = Path(__file__).parents[2] / "plugins" / "journal"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install_plugin: Callable[[Path, Path], None]
) -> Iterator[type[Tracker]]:
    """Install the tracker of another package, here and in the processes that are started."""
    site = tmp_path / "site"
    install_plugin(JOURNAL, site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
    plugins._entry_points.cache_clear()
    fresh = plugins.LazyMapping(TRACKERS._load)
    monkeypatch.setattr(TRACKERS, "_made", fresh._made)
    yield fresh["journal"]
    sys.modules.pop("journal", None)
    plugins._entry_points.cache_clear()


def finish(ledger: Ledger, trial: Trial) -> None:
    key = trial.trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Reported(key, attempt, 1, {"knn_top1": 6.0}))
    ledger.record(Finished(key, attempt, {"knn_top1": 5.0}, 2.0, 2.0))


def told(folder: Path) -> list[list[object]]:
    path = folder / "trackers" / "journal" / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)[1:] for line in lines]


WHOLE = [
    ["begin", 0, "none seed 0"],
    ["log", 1, {"rung/knn_top1": 6.0}],
    ["log", 2, {"final/knn_top1": 5.0, "final/seconds": 2.0}],
    ["end", 0, "done"],
]


def test_a_tracker_is_told_while_a_sweep_runs_and_what_is_left_at_its_end(
    journal: type[Tracker], ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    warnings: list[str] = []
    with tracking.tracking([journal()], ledger=ledger.path, results=tmp_path, warn=warnings.append):
        finish(ledger, trials[0])
        wait_for(lambda: len(told(tmp_path)) == 4)
        ledger.record(Reported(trials[1].trial_id, ledger.begin_attempt(trials[1].trial_id), 1, {"knn_top1": 7.0}))
    assert warnings == []
    assert told(tmp_path)[:4] == WHOLE
    assert told(tmp_path)[4:] == [
        ["begin", 0, f"{trials[1].arm} seed {trials[1].seed}"],
        ["log", 1, {"rung/knn_top1": 7.0}],
        ["end", 0, "interrupted"],
    ]
    assert (tmp_path / "trackers" / "journal" / tracking.LOG_NAME).stat().st_mode & 0o777 == 0o600


def request(tracker: Tracker, ledger: Ledger, tmp_path: Path) -> tracker_process.Request:
    folder = tracker.folder_in(tmp_path)
    folder.mkdir(parents=True)
    return tracker_process.Request(tracker, ledger.path, folder, fresh=False)


def test_a_tracker_that_fails_is_told_again_and_warned_of_once(
    journal: type[Tracker], ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    finish(ledger, trials[0])
    pauses: list[float] = []
    reports: list[str] = []

    def wait(seconds: float) -> bool:
        pauses.extend([seconds] if seconds > tracker_process.POLL_S else [])
        return len(pauses) > 6

    asked = request(journal(fails=True), ledger, tmp_path)
    assert not tracker_process.follow(asked, wait=wait, report=reports.append)
    assert reports == ["ConnectionError: no route to https://journal.example"]
    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_what_a_failing_tracker_has_missed_it_is_told_once_it_works(
    journal: type[Tracker], ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(ledger, trials[0])
    asked = request(journal(), ledger, tmp_path)
    looks: list[float] = []
    connect = journal.connect

    def fail_at_first(*args: object, **kwargs: object) -> object:
        if len(looks) < 3:
            raise SystemExit("no key")  # as a package may, that asks for one
        return connect(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(journal, "connect", fail_at_first)
    reports: list[str] = []

    def wait(seconds: float) -> bool:
        looks.append(seconds)
        return len(looks) > 6

    assert tracker_process.follow(asked, wait=wait, report=reports.append)
    assert (told(tmp_path), reports) == (WHOLE, ["SystemExit: no key"])


def test_runs_show_what_their_groups_are_configured_with_and_no_paths(
    ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    settings = tracker_process._settings(ledger)
    assert settings.keys() == {trial.trial_id for trial in trials}
    first = settings[trials[0].trial_id]
    assert (first["objective.recipe"], first["model.scale"], first["data.source"]) == ("dinov2_cpu", "nano", "scenes")
    assert first["parameters"] == trials[0].num_parameters
    config = {"model": {"checkpoint": "/home/me/x"}, "data": {"root": "/home/me", "source": "masks"}}
    assert tracker_process._flat(config) == {"data.source": "masks"}


def test_a_folder_that_is_a_link_is_not_written_to(
    journal: type[Tracker], ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trackers").symlink_to(tmp_path / "elsewhere")
    warnings: list[str] = []
    with tracking.tracking([journal()], ledger=ledger.path, results=tmp_path, warn=warnings.append):
        pass
    assert "must not be a link" in warnings[0]
    (tmp_path / "trackers").unlink()
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "journal").mkdir()
    (tmp_path / "trackers" / "journal" / tracking.LOG_NAME).symlink_to(tmp_path / "elsewhere" / "log")
    with tracking.tracking([journal()], ledger=ledger.path, results=tmp_path, warn=warnings.append):
        pass
    assert "cannot be started" in warnings[1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_settings_of_an_export_come_from_a_sweep_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("trackers: [tensorboard, {tracker: mlflow, experiment: ours, uri: http://a}]\n")
    read = tracking.read_tracker("mlflow", str(file), (), ["uri=http://b"])
    assert (read.experiment, read.uri) == ("ours", "http://b")  # type: ignore[attr-defined]
    assert tracking.read_tracker("wandb", str(file), (), []) == TRACKERS["wandb"]()
    assert tracking.read_tracker("mlflow", str(tmp_path), (), []) == TRACKERS["mlflow"]()
    for given, message in (
        ("uri", "must be field=value"),
        ("mode=neither", "mode: "),
        ("no_such=1", "no_such: "),
    ):
        with pytest.raises(SpecsweepError, match=message):
            tracking.read_tracker("wandb", str(file), (), [given])


DRIVER = """
import sys, time
from pathlib import Path
from orchestrator.monitoring.tracking import tracking
from orchestrator.trackers import TRACKERS

folder = Path(sys.argv[1])
with tracking([TRACKERS["journal"]()], ledger=folder / "ledger.sqlite", results=folder, warn=print):
    print("open", flush=True)
    time.sleep(1000)
"""


@pytest.mark.long
def test_what_the_ledger_has_is_told_although_the_driver_was_killed(
    journal: type[Tracker], ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "open\n"
    finish(ledger, trials[0])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    wait_for(lambda: told(tmp_path) == WHOLE)


PROGRAM = """
import sys
import specvit.trial
from orchestrator.cli.app import main
from orchestrator.monitoring import tracking
from tests.orchestrator.made_up import made_up_trial

specvit.trial.run_trial, tracking.FINISH_S = made_up_trial, float(sys.argv[1])
sys.argv[:] = ["specsweep", "run", "tiny.yaml", "--executor", "local"]
main()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ({"hangs": True}, "did not end within 0.5 s"),
        ({"fails": True}, "ConnectionError: no route to https://journal.example"),
    ],
)
def test_a_run_goes_on_and_ends_whatever_its_tracker_does(
    fault: dict[str, bool],
    warning: str,
    journal: type[Tracker],
    tmp_path: Path,
    write_sweep: Callable[..., Path],
) -> None:
    write_sweep(tmp_path, trackers=[{"tracker": "journal", **fault}])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    limit_s = "0.5" if "hangs" in fault else "600"
    ended = run_to_end([sys.executable, "-c", PROGRAM, limit_s], cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("tracker journal: ") == 1
    assert warning in ended.stderr
    assert "'specsweep export', tells it what is missing" in ended.stderr
    assert "password" not in ended.stdout + ended.stderr
    with Ledger.read(tmp_path / "results" / "tiny" / "ledger.sqlite") as ledger:
        assert {record.state for record in ledger.records()} == {"done"}
