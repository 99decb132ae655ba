from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.optuna_export import GroupStudy, check_target, make_studies, write_studies
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

INFO = SweepInfo("tiny", "Why?", "", metrics=("knn_top1", "depth_rmse"), seeds=(0, 1))
BEGAN, ENDED = "2026-01-01T00:00:00.250+00:00", "2026-01-01T00:01:00.500+00:00"
RUNGS = (Report(2, {"knn_top1": 10.0, "depth_rmse": 3.0}), Report(4, {"knn_top1": 20.0, "depth_rmse": 2.0}))

Make = Callable[..., tuple[GroupStudy, ...]]


@pytest.fixture
def records(trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]) -> list[TrialRecord]:
    done = {"reports": RUNGS, "metrics": {"knn_top1": 30.0, "depth_rmse": 1.5}, "num_attempts": 2, "seconds": 9.0}
    return [
        record_of(trials[0], State.DONE, **done),
        record_of(trials[1], State.PRUNED, reports=RUNGS, num_attempts=1),
        record_of(trials[2], State.FAILED, num_attempts=3, error="boom", cause=Cause.GPU_MEMORY),
        record_of(trials[3], State.RUNNING, reports=RUNGS[:1], num_attempts=1),
        record_of(trials[4]),
        record_of(trials[5], State.SKIPPED, skip_reason="no GPU hours left"),
        record_of(trials[6], State.DONE, metrics={"knn_top1": math.nan}, reports=(Report(2, {"knn_top1": math.inf}),)),
        record_of(trials[7], State.DONE, metrics={"depth_rmse": 1.0}),
    ]


@pytest.fixture
def make(trials: tuple[Trial, ...]) -> Make:
    def make(records: list[TrialRecord], info: SweepInfo = INFO, **options: Any) -> tuple[GroupStudy, ...]:
        configs = {
            trial.trial_id: {
                "seed": trial.seed,
                "treatment": {"specialize": trial.arm},
                "rungs": {"probes": ["knn"]},
                "data": {"crop": [1, 2]},
            }
            for trial in trials
        }
        times = {trial.trial_id: (BEGAN, ENDED) for trial in trials}
        return make_studies(info, records, configs=configs, times=times, **options)

    return make


def loaded(folder: Path, studies: tuple[GroupStudy, ...]) -> list[optuna.Study]:
    path = folder / "out.db"
    write_studies(path, studies)
    storage = f"sqlite:///{path}"
    return [optuna.load_study(study_name=study.name, storage=storage) for study in studies]


def test_optuna_reads_back_states_values_and_rungs(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(records))
    assert (study.study_name, study.direction, study.metric_names) == (
        "tiny",
        optuna.study.StudyDirection.MAXIMIZE,
        ["knn_top1"],
    )
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.WAITING,
        TrialState.WAITING,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert [trial.value for trial in study.trials] == [30.0, 20.0, *[None] * 6]
    assert study.trials[0].intermediate_values == {2: 10.0, 4: 20.0}
    assert study.trials[3].intermediate_values == {2: 10.0}
    assert study.trials[6].intermediate_values == {2: math.inf}
    assert study.best_trial.user_attrs["label"] == records[0].trial.label


def test_what_optuna_has_no_place_for_becomes_user_attributes(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    (study,) = loaded(tmp_path, make(records))
    first, _, failed, _, _, left, nan, missing = (trial.user_attrs for trial in study.trials)
    assert first == {
        "trial_id": records[0].trial.trial_id,
        "label": records[0].trial.label,
        "group": "",
        "role": "baseline",
        "state": "done",
        "attempts": 2,
        "extra_parameters_percent": 0.0,
        "seconds": 9.0,
        "metric:knn_top1": 30.0,
        "metric:depth_rmse": 1.5,
    }
    assert (failed["error"], failed["cause"], failed["attempts"]) == ("boom", "gpu_memory", 3)
    assert (left["state"], left["left_out"]) == ("left out", "no GPU hours left")
    assert (nan["no_value_because"], nan["metric:knn_top1"]) == ("knn_top1 is nan", "nan")
    assert missing["no_value_because"] == "knn_top1 is missing"
    assert study.user_attrs["question"] == "Why?"


def test_everything_that_is_written_as_json_is_json(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    loaded(tmp_path, make(records))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    with sqlite3.connect(tmp_path / "out.db") as connection:
        texts = [row[0] for row in connection.execute("SELECT value_json FROM trial_user_attributes")]
    assert len(texts) > 8
    assert all(json.loads(text, parse_constant=refuse) is not None for text in texts)


def test_parameters_are_what_differs_within_the_group(
    make: Make, records: list[TrialRecord], tmp_path: Path, trials: tuple[Trial, ...]
) -> None:
    (study,) = loaded(tmp_path, make(records))
    assert [trial.params for trial in study.trials] == [
        {"arm": trial.arm, "seed": trial.seed, "role": trial.role, "treatment.specialize": trial.arm}
        for trial in trials
    ]
    distribution = study.trials[0].distributions["arm"]
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    assert set(distribution.choices) == {trial.arm for trial in trials}


def test_lists_and_values_of_several_kinds_are_told_apart_as_json(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    values: list[Any] = [1, True, 1.0, None]
    configs = {
        trial.trial_id: {"rungs": {"probes": []}, "data": {"x": value, "crop": [value]}}
        for trial, value in zip(trials, values, strict=False)
    }
    studies = make_studies(INFO, [record_of(trial) for trial in trials[:4]], configs=configs, times={})
    (study,) = loaded(tmp_path, studies)
    assert [trial.params["data.x"] for trial in study.trials] == ["1", "true", "1.0", None]
    assert [trial.params["data.crop"] for trial in study.trials] == ["[1]", "[true]", "[1.0]", "[null]"]


def test_times_are_those_of_the_attempt(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(records))
    done, running, waiting = (study.trials[index] for index in (0, 3, 4))
    assert done.datetime_start is not None
    assert done.datetime_complete is not None
    assert done.datetime_start.astimezone(UTC) == datetime.fromisoformat(BEGAN)
    assert done.datetime_complete.astimezone(UTC) == datetime.fromisoformat(ENDED)
    assert running.datetime_start == done.datetime_start
    assert (running.datetime_complete, waiting.datetime_start) == (None, None)


def test_every_group_is_a_study_and_a_smaller_error_is_better(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    records = [
        replace(record, trial=replace(record.trial, group=f"model.scale={scale}", group_id=scale))
        for record, scale in zip(records, ["nano"] * 4 + ["micro"] * 4, strict=True)
    ]
    studies = loaded(tmp_path, make(records, metric="depth_rmse"))
    assert [study.study_name for study in studies] == ["tiny: model.scale=nano", "tiny: model.scale=micro"]
    assert {study.direction for study in studies} == {optuna.study.StudyDirection.MINIMIZE}
    assert studies[0].best_value == 1.5
    assert studies[0].trials[1].intermediate_values == {2: 3.0, 4: 2.0}


def test_the_value_is_by_default_the_first_metric_of_the_first_rung_probe(
    make: Make, records: list[TrialRecord]
) -> None:
    info = replace(INFO, metrics=("depth_rmse", "knn_top1"))
    assert make(records, info)[0].metric == "knn_top1"
    assert make(records, replace(info, metrics=("depth_rmse",)), metric=None)[0].metric == "knn_top1"
    without_rungs = [replace(record, reports=()) for record in records]
    assert make(without_rungs, replace(info, metrics=("depth_rmse",)))[0].metric == "depth_rmse"


@pytest.mark.parametrize("metric", ["miou", "loss"])
def test_a_metric_that_no_probe_of_the_sweep_reports_is_refused(
    metric: str, make: Make, records: list[TrialRecord]
) -> None:
    records[0] = replace(records[0], reports=(Report(2, {"knn_top1": 10.0, "loss": 3.0}),))
    with pytest.raises(SpecsweepError, match=rf"^--metric: .* reports '{metric}'; they report knn_top1, depth_rmse$"):
        make(records, metric=metric)


def test_a_pruned_trial_has_the_value_of_its_last_finite_rung(make: Make, records: list[TrialRecord]) -> None:
    rungs = (Report(2, {"knn_top1": 5.0}), Report(4, {"knn_top1": math.nan}))
    (study,) = make([replace(records[1], reports=rungs), replace(records[1], reports=rungs[1:])])
    assert [trial.value for trial in study.trials] == [5.0, None]


def test_a_group_with_a_long_text_gets_a_name_that_fits_and_tells_it_apart(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    records = [
        replace(record, trial=replace(record.trial, group="x" * 600, group_id=str(index) * 64))
        for index, record in enumerate(records[:2])
    ]
    studies = loaded(tmp_path, make(records))
    names = [study.study_name for study in studies]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 512


def test_a_path_may_hold_what_means_something_in_a_url(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    write_studies(folder / "a?b%20 c.db", make(records))
    assert [entry.name for entry in folder.iterdir()] == ["a?b%20 c.db"]


def test_a_new_name_and_with_force_a_file_of_optunas_may_be_written(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "out.db"
    check_target(path, force=False)
    write_studies(path, make(records))
    check_target(path, force=True)
    with pytest.raises(SpecsweepError, match=r"out\.db: is there already; --force replaces it"):
        check_target(path, force=False)


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "sqlite"])
def test_what_is_no_file_of_optunas_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    match kind:
        case "text":
            path.write_text("precious")
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "sqlite":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE trials (x)")
    with pytest.raises(SpecsweepError, match="is no file of Optuna's"):
        check_target(path, force=True)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecsweepError, match=r"there is no folder .*absent"):
        check_target(tmp_path / "absent" / "out.db", force=False)
