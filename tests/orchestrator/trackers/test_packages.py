"""The trackers with their packages: what these show of a sweep that was interrupted, read back by themselves."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.monitoring import tracking
from orchestrator.trackers import MLflow, TensorBoard, Tracker, Trackio, WeightsAndBiases
from orchestrator.trials.events import Failed, Finished, Progressed, Reported
from orchestrator.trials.trial import Trial

Points = dict[str, list[tuple[int, float]]]
"""Name of a metric to its steps and values."""
Runs = dict[str, tuple[Points, str]]
"""Name of a run to its points, and its state as the package calls it."""

pytestmark = pytest.mark.long


def read_tensorboard(folder: Path) -> Runs:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runs: Runs = {}
    for place in folder.glob("*-seed-*"):
        events = accumulator.EventAccumulator(str(place)).Reload()
        points = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
        name, _, seed = place.name.rpartition("-")[0].partition("-seed-")
        states = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("state/text_summary")]
        runs[f"{name.replace('-', ' ')} seed {seed}"] = points, states[-1]
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
        assert len(list(place.iterdir())) == 1
    return runs


def read_mlflow(folder: Path) -> Runs:
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs: Runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        assert (run.data.params["seed"], run.data.params["objective.recipe"]) == ("0", "dinov2_cpu")
        points = {name: [(point.step, point.value) for point in found] for name, found in histories.items()}
        runs[run.info.run_name] = points, run.info.status
    return runs


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield what a file of wandb's holds: LevelDB's log format, a protocol buffer each."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def read_wandb(folder: Path) -> Runs:
    pytest.importorskip("wandb")
    runs: Runs = {}
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        points: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        name, state = "", ""
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
                assert (record.run.run_group, record.run.project, record.run.host) == ("tiny", "tiny", "")
            if kind == "history":
                given = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                for key, value in given.items():
                    if not key.startswith("_"):
                        points[key].append((given["_step"], value))
            if kind == "exit":
                state = str(record.exit.exit_code)
        assert name not in runs  # one upload for a run
        runs[name] = dict(points), state
    return runs


def read_trackio(folder: Path) -> Runs:
    pytest.importorskip("trackio")
    runs: Runs = {}
    with sqlite3.connect(folder / "tiny.db") as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    connection.close()
    for run_name, step, metrics in rows:
        points, _ = runs.setdefault(run_name.rpartition(" ")[0], ({}, ""))
        for name, value in json.loads(metrics).items():
            points.setdefault(name, []).append((step, value))
    return runs


DONE = {"rung/knn_top1": [(1, 6.0), (3, 8.0)], "final/knn_top1": [(4, 5.0)], "final/seconds": [(4, 2.0)]}
PACKAGES = {
    "tensorboard": (TensorBoard(), read_tensorboard, ("done", "interrupted", "failed")),
    "mlflow": (MLflow(), read_mlflow, ("FINISHED", "KILLED", "FAILED")),
    "wandb": (WeightsAndBiases(mode="offline"), read_wandb, ("0", "1", "1")),
    "trackio": (Trackio(), read_trackio, ("", "", "")),
}


def train(ledger: Ledger, trial: Trial, *steps: int) -> int:
    attempt = ledger.begin_attempt(trial.trial_id)
    ledger.record(Progressed(trial.trial_id, attempt, 4, 4, 1.0))
    for step in steps:
        ledger.record(Reported(trial.trial_id, attempt, step, {"knn_top1": 5.0 + step}))
    return attempt


@pytest.mark.parametrize("name", PACKAGES)
def test_an_interrupted_sweep_is_shown_whole_and_once(
    name: str,
    ledger: Ledger,
    trials: tuple[Trial, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(name)
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tracking, "FINISH_S", 600.0)
    tracker: Tracker
    read: Callable[[Path], Runs]
    tracker, read, (done, interrupted, failed) = PACKAGES[name]
    first, second, third = trials[:3]
    names = [f"{trial.arm} seed 0" for trial in trials[:3]]
    folder, warnings = tracker.folder_in(tmp_path), list[str]()

    def run() -> None:
        with tracking.tracking([tracker], ledger=ledger.path, results=tmp_path, warn=warnings.append):
            pass
        assert warnings == []

    attempt = train(ledger, first, 1, 3)
    ledger.record(Finished(first.trial_id, attempt, {"knn_top1": 5.0}, 2.0, 2.0))
    train(ledger, second, 1)
    ledger.record(Failed(third.trial_id, train(ledger, third, 1), "boom", ""))
    run()
    part = {"rung/knn_top1": [(1, 6.0)]}
    assert read(folder) == {names[0]: (DONE, done), names[1]: (part, interrupted), names[2]: (part, failed)}
    ledger.release_running()
    attempt = train(ledger, second, 1, 3)  # it goes on from a state, and reports its first rung again
    ledger.record(Finished(second.trial_id, attempt, {"knn_top1": 5.0}, 2.0, 2.0))
    run()
    whole = {names[0]: (DONE, done), names[1]: (DONE, done), names[2]: (part, failed)}
    assert read(folder) == whole
    tracking.tell_all(tracker, ledger=ledger.path, folder=folder)
    assert read(folder) == whole
