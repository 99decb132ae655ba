"""What Optuna reads back of each trial: its state, its value, its rungs and its attributes."""

from __future__ import annotations

import json
import math
import sqlite3
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.trials.records import Report, State, TrialRecord

from .studies import BEGAN, ENDED, Make, done, loaded, made


def test_optuna_reads_back_states_values_and_rungs(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(records))
    assert (study.study_name, study.direction, study.metric_names) == (
        "tiny",
        optuna.study.StudyDirection.MAXIMIZE,
        ["knn_top1"],
    )
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.WAITING,
        TrialState.WAITING,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert [trial.value for trial in study.trials] == [31.0, 31.0, 20.0, *[None] * 6]  # 31 = (30 + 32) / 2
    assert study.trials[0].intermediate_values == {2: 10.0, 4: 20.0}
    assert study.trials[4].intermediate_values == {2: 10.0}
    assert study.trials[7].intermediate_values == {2: math.inf}
    assert study.best_trial.user_attrs["label"] == records[0].trial.label


def test_what_optuna_has_no_place_for_becomes_user_attributes(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    (study,) = loaded(tmp_path, make(records))
    first, _, _, failed, _, _, left, nan, missing = (trial.user_attrs for trial in study.trials)
    assert first == {
        "trial_id": records[0].trial.trial_id,
        "label": "none seed 0",
        "group": "",
        "arm": "none",
        "seed": 0,
        "role": "baseline",
        "state": "done",
        "attempts": 2,
        "extra_parameters_percent": 2.5,
        "seconds": 9.0,
        "metric:knn_top1": 30.0,
        "metric:depth_rmse": 1.5,
        "num_seeds": 2,
        "std_over_seeds": pytest.approx(statistics.stdev([30.0, 32.0])),
    }
    assert (failed["error"], failed["cause"], failed["attempts"]) == ("boom", "gpu_memory", 3)
    assert (left["state"], left["left_out"]) == ("left out", "no GPU hours left")
    assert nan["metric:knn_top1"] == "nan"
    assert nan["no_value_because"] == (
        "not all seeds of the arm have a value: seed 0 was left out, knn_top1 of seed 1 is nan"
    )
    assert missing["no_value_because"] == "not all seeds of the arm have a value: seed 0 has no knn_top1"
    assert [name for name, value in study.trials[2].user_attrs.items() if "seeds" in name] == []
    assert study.user_attrs["question"] == "Why?"


def test_everything_that_is_written_as_json_is_json(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    loaded(tmp_path, make(records))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    with sqlite3.connect(tmp_path / "out.db") as connection:
        texts = [row[0] for row in connection.execute("SELECT value_json FROM trial_user_attributes")]
    assert len(texts) > 8
    assert all(json.loads(text, parse_constant=refuse) is not None for text in texts)


def test_the_best_trial_is_one_of_the_best_arm_not_the_luckiest_seed(make: Make, tmp_path: Path) -> None:
    records = [*done("none", 50.0, 50.0, 50.0), *done("norm@all", 90.0, 10.0, 20.0), *done("qkv@all", 51.0, 60.0, 54.0)]
    (study,) = loaded(tmp_path, make(records))
    assert [trial.value for trial in study.trials] == pytest.approx([50.0] * 3 + [40.0] * 3 + [55.0] * 3)
    assert study.best_trial.user_attrs["arm"] == "qkv@all"
    assert study.best_trial.user_attrs["metric:knn_top1"] == 51.0
    assert study.best_trial.user_attrs["std_over_seeds"] == pytest.approx(math.sqrt((16 + 25 + 1) / 2))


LEFT = {
    "norm@all": ((State.PRUNED, State.PRUNED), TrialState.PRUNED, "seed 1 was pruned, seed 2 was pruned"),
    "qkv@all": ((State.PRUNED, State.FAILED), TrialState.FAIL, "seed 1 was pruned, seed 2 failed"),
    "mlp@all": ((State.WAITING, State.PRUNED), TrialState.PRUNED, "seed 1 is waiting, seed 2 was pruned"),
    "proj@all": ((State.RUNNING, State.PENDING), TrialState.RUNNING, "seed 1 is running, seed 2 is pending"),
    "fc1@all": ((State.DONE, State.SKIPPED), TrialState.FAIL, "seed 1 has no knn_top1, seed 2 was left out"),
    "fc2@all": ((State.SKIPPED, State.WAITING), TrialState.RUNNING, "seed 1 was left out, seed 2 is waiting"),
}
"""Arms whose seed 0 is done, to how the others stand, its state for Optuna, and what is said of the others."""


def test_the_lucky_seed_that_is_left_of_an_arm_has_no_value(make: Make, tmp_path: Path) -> None:
    records = done("none", 50.0, 52.0, 51.0)
    for arm, (others, _, _) in LEFT.items():
        records += [*done(arm, 99.0), *(made(arm, seed, state) for seed, state in enumerate(others, 1))]
    (study,) = loaded(tmp_path, make(records))
    lucky = {trial.user_attrs["arm"]: trial for trial in study.trials[3::3]}
    assert lucky.keys() == LEFT.keys()
    for arm, (_, state, why) in LEFT.items():
        trial = lucky[arm]
        assert (trial.state, trial.user_attrs["state"], trial.user_attrs["metric:knn_top1"]) == (state, "done", 99.0)
        assert trial.user_attrs["no_value_because"] == f"not all seeds of the arm have a value: {why}"
        # Its last rung, as of others that are pruned.
        assert trial.value == (20.0 if state is TrialState.PRUNED else None)
        assert trial.intermediate_values == {2: 10.0, 4: 20.0}
        assert (trial.datetime_complete is None) == (state is TrialState.RUNNING)
        assert "num_seeds" not in trial.user_attrs
    assert (study.best_trial.user_attrs["arm"], study.best_value) == ("none", 51.0)


def test_times_are_those_of_the_attempt(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(records))
    ended, running, waiting = (study.trials[index] for index in (0, 4, 5))
    assert ended.datetime_start is not None
    assert ended.datetime_complete is not None
    assert ended.datetime_start.astimezone(UTC) == datetime.fromisoformat(BEGAN)
    assert ended.datetime_complete.astimezone(UTC) == datetime.fromisoformat(ENDED)
    assert running.datetime_start == ended.datetime_start
    assert (running.datetime_complete, waiting.datetime_start) == (None, None)


def test_a_pruned_trial_has_the_value_of_its_last_finite_rung(make: Make, records: list[TrialRecord]) -> None:
    rungs = (Report(2, {"knn_top1": 5.0}), Report(4, {"knn_top1": math.nan}))
    (study,) = make([replace(records[2], reports=rungs), replace(records[2], reports=rungs[1:])])
    assert [trial.value for trial in study.trials] == [5.0, None]
