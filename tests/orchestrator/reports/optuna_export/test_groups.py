"""Which studies there are, and of which metric."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from orchestrator.trials.records import Report, State, TrialRecord
from specvit.errors import SpecsweepError

from ..table_records import make_trial
from .studies import INFO, RUNGS, Make, done, loaded


def test_floors_are_no_trials_but_attributes_of_the_study(make: Make, tmp_path: Path) -> None:
    floors = [*done("random init", 20.0, 24.0, role="floor"), *done("raw pixels", 99.0, math.inf, role="floor")]
    (study,) = loaded(tmp_path, make([*done("none", 50.0, 52.0), *floors, *done("qkv@all", 60.0, 60.0)]))
    assert [trial.user_attrs["arm"] for trial in study.trials] == ["none", "none", "qkv@all", "qkv@all"]
    assert study.user_attrs["floor:random init"] == {
        "mean": 22.0,
        "std_over_seeds": pytest.approx(math.sqrt(8)),
        "num_seeds": 2,
        "by_seed": {"0": 20.0, "1": 24.0},
    }
    assert study.user_attrs["floor:raw pixels"] == {
        "no_value_because": "not all seeds of the arm have a value: knn_top1 of seed 1 is inf",
        "by_seed": {"0": 99.0, "1": "inf"},
    }


def test_controls_are_attributes_of_the_study_too(make: Make, tmp_path: Path) -> None:
    controls = done("repeat", 50.0, 51.0, role="control")
    (study,) = loaded(tmp_path, make([*done("none", 50.0, 52.0), *controls, *done("qkv@all", 60.0, 60.0)]))
    assert [trial.user_attrs["arm"] for trial in study.trials] == ["none", "none", "qkv@all", "qkv@all"]
    assert study.user_attrs["control:repeat"]["mean"] == 50.5


def test_every_group_is_a_study_and_a_smaller_error_is_better(make: Make, tmp_path: Path) -> None:
    errors = {
        "nano": {"none": (1.5, 2.5), "norm@all": (0.5, 4.5)},
        "micro": {"none": (9.0, 9.0), "qkv@all": (7.0, 8.0)},
    }
    records = [
        TrialRecord(make_trial(arm, seed, group=f"model.scale={scale}"), State.DONE, metrics={"depth_rmse": value})
        for scale, arms in errors.items()
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    records[0] = replace(records[0], reports=RUNGS)
    studies = loaded(tmp_path, make(records, metric="depth_rmse"))
    assert [study.study_name for study in studies] == ["tiny: model.scale=nano", "tiny: model.scale=micro"]
    assert {study.direction for study in studies} == {optuna.study.StudyDirection.MINIMIZE}
    assert [study.best_value for study in studies] == [2.0, 7.5]
    assert [study.best_trial.user_attrs["arm"] for study in studies] == ["none", "qkv@all"]
    assert [set(study.trials[0].params) for study in studies] == [{"norm"}, {"qkv"}]
    assert studies[0].trials[0].intermediate_values == {2: 3.0, 4: 2.0}


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
