"""What a later run asks of trainings that are on record: new probes look at kept weights, and nothing is trained."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.run import Outcome, prepare_run
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import WITHOUT_WEIGHTS, Cause, State, TrialRecord
from specvit.checkpoints import load_model
from specvit.training.loop import pretrain

from .driver import Driver, results

PROBES: dict[str, Any] = {"knn": {}}
MORE: dict[str, Any] = {"knn": {}, "clustering": {}}
LATER = ("clustering_miou", "clustering_nmi")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep the steps of every pretraining that begins."""
    begun: list[int] = []

    def counting(learner: Any, recipe: Any, *arguments: Any, **named: Any) -> Any:
        begun.append(recipe.steps)
        return pretrain(learner, recipe, *arguments, **named)

    monkeypatch.setattr("specvit.trial.pretrain", counting)
    return begun


@pytest.fixture
def small(make_sweep: Callable[..., Sweep]) -> Callable[..., Sweep]:
    """Make sweeps of a baseline and an arm with one seed, and both floors."""
    return lambda **sections: make_sweep(**({"seeds": 1, "probes": PROBES, "rungs": {"count": 1}} | sections))


def by_label(outcome: Outcome) -> dict[str, TrialRecord]:
    return {record.trial.label: record for record in outcome.records}


def without(metrics: dict[str, float], *names: str) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in names}


def test_a_probe_that_is_added_looks_at_kept_weights_and_finds_what_it_would_have_found_at_once(
    driver: Driver, small: Callable[..., Sweep], trained: list[int], tmp_path: Path
) -> None:
    before = by_label(driver.run(small()))
    assert trained == [4, 4]
    later = driver.run(small(probes=MORE))
    assert (trained, later.num_run, later.finished) == ([4, 4], 4, True)
    at_once = results(Driver(tmp_path / "other").run(small(probes=MORE)))
    assert results(later) == at_once
    for label, record in by_label(later).items():
        assert without(dict(record.metrics), *LATER) == before[label].metrics
        assert record.added_later == set(LATER)
        assert record.trained_by == before[label].trial.trial_id
        # Rungs, costs and weights are those of the training; its times are counted along.
        assert (record.reports, record.cost, record.weights) == (
            *(before[label].reports, before[label].cost, before[label].weights),
        )
        assert (record.seconds or 0.0) > (before[label].seconds or 0.0)


@pytest.mark.long
def test_bad_images_that_a_later_probe_leaves_out_are_counted(
    driver: Driver, small: Callable[..., Sweep], tmp_path: Path
) -> None:
    root = tmp_path / "photographs"
    for number in range(12):
        folder = root / ("train" if number < 8 else "val") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(folder / f"{number}.png")
    for name in ("train/a/2.png", "val/b/9.png"):
        (root / name).write_bytes(b"nothing")
    own = {"source": "image_folder", "root": str(root), "image_size": 16, "keep": "encoded", "on_bad_image": "skip"}
    driver.run(small(probes={"clustering": {}}))
    later = driver.run(small(probes={"clustering": {}, "knn": {"data": own}}))
    assert [record.metrics["skipped_images"] for record in later.records] == [2.0] * 4
    assert all(record.added_later == {"knn_top1", "skipped_images"} for record in later.records)


@pytest.mark.long
def test_what_is_taken_away_runs_nothing_and_changes_no_other_column(
    driver: Driver, small: Callable[..., Sweep], trained: list[int]
) -> None:
    before = by_label(driver.run(small(probes=MORE)))
    outcome = driver.run(small(probes=PROBES, rungs={"count": 2}))
    assert (outcome.num_run, outcome.num_taken, driver.executors, trained) == (0, 4, [], [4, 4])
    for label, record in by_label(outcome).items():
        assert record.metrics == without(dict(before[label].metrics), *LATER)
        assert (record.state, record.seconds, record.added_later) == (State.DONE, before[label].seconds, frozenset())
        # Rungs that were not probed while it trained cannot be had any more.
        assert record.reports == before[label].reports
    # What was there before is there again, as it was.
    again = by_label(driver.run(small(probes=MORE)))
    assert again == before


@pytest.mark.long
def test_diagnostics_are_measured_on_kept_weights_too(
    driver: Driver, small: Callable[..., Sweep], trained: list[int], tmp_path: Path
) -> None:
    driver.run(small())
    driver.run(small(diagnostics=True))
    other = Driver(tmp_path / "other")
    other.run(small(diagnostics=True))
    read = []
    for folder in (driver.folder, other.folder):
        with Ledger.read(folder / LEDGER_NAME) as ledger:
            read.append(ledger.diagnostics())
    assert trained == [4, 4, 4, 4]
    assert read[0] == read[1]
    assert len(read[0]) == 3  # raw pixels have no backbone


@pytest.mark.long
def test_without_weights_a_trial_is_left_out_until_somebody_asks_to_train_it_again(
    driver: Driver, small: Callable[..., Sweep], trained: list[int], tmp_path: Path
) -> None:
    driver.run(small(keep_weights=False))
    assert not (driver.folder / "weights").exists()
    outcome = driver.run(small(probes=MORE))
    states = {label: record.state for label, record in by_label(outcome).items()}
    assert states == {
        "nano none seed 0": State.SKIPPED,
        "nano norm@all seed 0": State.SKIPPED,
        # What is not trained is built anew, and needs no weights.
        "nano random init seed 0": State.DONE,
        "nano raw pixels seed 0": State.DONE,
    }
    assert (outcome.num_without_weights, trained) == (2, [4, 4])
    assert by_label(outcome)["nano none seed 0"].skip_reason == WITHOUT_WEIGHTS
    assert WITHOUT_WEIGHTS in (driver.folder / "table.md").read_text()
    with prepare_run(small(probes=MORE), driver.folder, retrain=True) as run:
        assert [trial.label for trial in run.pending] == ["nano none seed 0", "nano norm@all seed 0"]
        assert not run.kept


@pytest.mark.long
def test_nothing_is_trained_where_nothing_is_to_be_trained(driver: Driver, small: Callable[..., Sweep]) -> None:
    driver.run(small(ablate={"components": ["none"]}))
    with prepare_run(small(probes=MORE), driver.folder, trains=False) as run:
        assert [trial.label for trial in run.pending] == [
            *("nano none seed 0", "nano random init seed 0", "nano raw pixels seed 0")
        ]
        assert run.finish().num_without_weights == 0


@pytest.fixture
def damaged(driver: Driver, small: Callable[..., Sweep]) -> Path:
    """Change a byte of a kept file."""
    driver.run(small(ablate={"components": ["none"]}, floors=[]))
    (path,) = (driver.folder / "weights").glob("none-*/student.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_weights_that_are_not_those_that_were_kept_are_refused(
    driver: Driver, small: Callable[..., Sweep], damaged: Path
) -> None:
    (record,) = driver.run(small(ablate={"components": ["none"]}, floors=[], probes=MORE)).records
    assert (record.state, record.cause) == (State.FAILED, Cause.INVALID)
    assert str(damaged) in (record.error or "")
    assert "is not the file that was kept" in (record.error or "")


@pytest.mark.long
def test_an_evaluation_that_fails_costs_an_evaluation(
    driver: Driver, small: Callable[..., Sweep], trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = driver.run(small())
    with monkeypatch.context() as patch:
        patch.setattr("specvit.probes.clustering.probe.Clustering.evaluate", _raise)
        failed = driver.run(small(probes=MORE, max_retries=1))
    assert {record.state for record in failed.records} == {State.FAILED}
    assert driver.run(small()).records == before.records
    assert {record.state for record in driver.run(small(probes=MORE)).records} == {State.DONE}
    assert trained == [4, 4]


def _raise(*_: object, **__: object) -> Any:
    raise ArithmeticError("no clusters today")


@pytest.mark.long
def test_two_trainings_of_one_configuration_are_not_mixed(
    driver: Driver, small: Callable[..., Sweep], trained: list[int]
) -> None:
    one_arm: dict[str, Any] = {"ablate": {"components": ["none"]}, "floors": []}
    driver.run(small(**one_arm))
    # Trained a second time, under another id, with weights of its own.
    shutil.rmtree(driver.folder / "weights")
    with prepare_run(small(**one_arm, probes=MORE), driver.folder, retrain=True) as run:
        assert len(run.pending) == 1
        executor = driver._make_executor(run.datasets, ())
        run.execute(executor)
        executor.close()
        (second,) = run.finish().records
    assert trained == [4, 4]
    (third,) = driver.run(small(**one_arm, probes={"linear": {}})).records
    assert third.trained_by == second.trial.trial_id
    assert third.weights == second.weights


@pytest.mark.long
def test_the_index_says_which_file_is_of_which_arm_and_seed(driver: Driver, small: Callable[..., Sweep]) -> None:
    outcome = driver.run(small(seeds=2, floors=[]))
    with (driver.folder / "weights" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seed"], row["name"]) for row in rows] == [
        (record.trial.arm, str(record.trial.seed), name)
        for record in outcome.records
        for name in ("student", "teacher")
    ]
    assert {(driver.folder / "weights" / row["path"]).is_file() for row in rows} == {True}
    assert rows[0]["path"].startswith("none-seed-0-")
    found = load_model(driver.folder, arm="norm@all", seed=1, name="teacher").state_dict()
    (row,) = [row for row in rows if (row["arm"], row["seed"], row["name"]) == ("norm@all", "1", "teacher")]
    wanted = load_model(driver.folder / "weights" / row["path"]).state_dict()
    assert all((found[name] == value).all() for name, value in wanted.items())
