from __future__ import annotations

import itertools
import json
import math
import sqlite3
import statistics
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.optuna_export import GroupStudy, check_target, make_studies, write_studies
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from specvit.errors import SpecsweepError

from .table_records import make_trial

INFO = SweepInfo("tiny", "Why?", "", metrics=("knn_top1", "depth_rmse"), seeds=(0, 1))
BEGAN, ENDED = "2026-01-01T00:00:00.250+00:00", "2026-01-01T00:01:00.500+00:00"
RUNGS = (Report(2, {"knn_top1": 10.0, "depth_rmse": 3.0}), Report(4, {"knn_top1": 20.0, "depth_rmse": 2.0}))

Make = Callable[..., tuple[GroupStudy, ...]]


def made(arm: str, seed: int, state: State = State.WAITING, *, role: str = "arm", **known: Any) -> TrialRecord:
    return TrialRecord(make_trial(arm, seed, role=role), state, **known)


def done(arm: str, *values: float, role: str = "arm") -> list[TrialRecord]:
    """Make an arm whose seeds are done, each with a value."""
    return [
        made(arm, seed, State.DONE, role=role, metrics={"knn_top1": value}, reports=RUNGS)
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def records() -> list[TrialRecord]:
    first = {"reports": RUNGS, "metrics": {"knn_top1": 30.0, "depth_rmse": 1.5}, "num_attempts": 2, "seconds": 9.0}
    return [
        made("none", 0, State.DONE, role="baseline", **first),
        made("none", 1, State.DONE, role="baseline", metrics={"knn_top1": 32.0}),
        made("norm@all", 0, State.PRUNED, reports=RUNGS, num_attempts=1),
        made("norm@all", 1, State.FAILED, num_attempts=3, error="boom", cause=Cause.GPU_MEMORY),
        made("qkv@all", 0, State.RUNNING, reports=RUNGS[:1], num_attempts=1),
        made("qkv@all", 1),
        made("mlp@all", 0, State.SKIPPED, skip_reason="no GPU hours left"),
        made("mlp@all", 1, State.DONE, metrics={"knn_top1": math.nan}, reports=(Report(2, {"knn_top1": math.inf}),)),
        made("proj@all", 0, State.DONE, metrics={"depth_rmse": 1.0}),
    ]


@pytest.fixture
def make() -> Make:
    def make(records: list[TrialRecord], info: SweepInfo = INFO, **options: Any) -> tuple[GroupStudy, ...]:
        configs = {
            trial.trial_id: {
                "seed": trial.seed,
                "treatment": {"kind": "specialize", "specialize": "none" if trial.role == "floor" else trial.arm},
                "model": {"scale": "nano"},
                "rungs": {"probes": ["knn"]},
            }
            for trial in (record.trial for record in records)
        }
        times = dict.fromkeys(configs, (BEGAN, ENDED))
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


def test_there_is_a_parameter_for_each_component_and_none_for_arm_seed_or_role(
    make: Make, records: list[TrialRecord]
) -> None:
    (study,) = make(records)
    nowhere = dict.fromkeys(("norm", "qkv", "proj", "mlp"), "none")
    own = [{}, {}, *[{"norm": "all"}] * 2, *[{"qkv": "all"}] * 2, *[{"mlp": "all"}] * 2, {"proj": "all"}]
    assert [trial.params for trial in study.trials] == [nowhere | changed for changed in own]
    assert {trial.distributions["norm"] for trial in study.trials} == {
        optuna.distributions.CategoricalDistribution(("none", "all"))
    }


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


def factorial(**effects: float) -> list[TrialRecord]:
    """Make all arms of three components with their effects, and two floors; seeds differ, their means do not."""
    arms = [
        tuple(itertools.compress(("norm", "qkv", "mlp"), chosen))
        for chosen in itertools.product((False, True), repeat=3)
    ]
    records = done("raw pixels", 1.0, 2.0, 3.0, role="floor")
    for own in arms:
        value = 50 + sum(effects.get(name, 0.0) for name in own)
        records += done("+".join(f"{name}@all" for name in own) or "none", value, value + 1, value - 1)
    return records


def test_importances_of_a_factorial_are_those_of_its_axes(make: Make, tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(factorial(qkv=4.0)))
    assert get_param_importances(study) == pytest.approx({"norm": 0.0, "qkv": 1.0, "mlp": 0.0}, abs=0.02)


def test_importances_are_the_shares_of_the_variance_over_arms(make: Make) -> None:
    (group,) = make(factorial(norm=4.0, mlp=2.0))
    study = optuna.create_study(direction="maximize")
    study.add_trials(group.trials)
    importances = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    # Of two levels, half of the trials at each, the variance is (effect / 2)^2: 4 and 1.
    assert importances == pytest.approx({"norm": 0.8, "mlp": 0.2, "qkv": 0.0}, abs=0.05)


def test_times_are_those_of_the_attempt(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(records))
    ended, running, waiting = (study.trials[index] for index in (0, 4, 5))
    assert ended.datetime_start is not None
    assert ended.datetime_complete is not None
    assert ended.datetime_start.astimezone(UTC) == datetime.fromisoformat(BEGAN)
    assert ended.datetime_complete.astimezone(UTC) == datetime.fromisoformat(ENDED)
    assert running.datetime_start == ended.datetime_start
    assert (running.datetime_complete, waiting.datetime_start) == (None, None)


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


def test_a_pruned_trial_has_the_value_of_its_last_finite_rung(make: Make, records: list[TrialRecord]) -> None:
    rungs = (Report(2, {"knn_top1": 5.0}), Report(4, {"knn_top1": math.nan}))
    (study,) = make([replace(records[2], reports=rungs), replace(records[2], reports=rungs[1:])])
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


def test_a_path_may_hold_what_means_something_in_a_url(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
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
