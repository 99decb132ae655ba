"""Configurations that are read again from ledgers, and what trials of one training know of each other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_core import to_json

from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.identity import evaluation_ids, training_id
from orchestrator.trials.stored import KeptTraining, StoredResult, find_kept, read_config
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig
from specvit.data.sources.image_folder import ImageFolder
from specvit.kept_weights import WeightsFile

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.mark.parametrize("schema", [2, 3, 4, 5, 7])
def test_every_configuration_of_an_older_ledger_is_read_as_the_trial_that_it_was(schema: int) -> None:
    path = ASSETS / f"ledger_schema_{schema}.sqlite"
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        rows = connection.execute("SELECT trial_id, config FROM trials").fetchall()
    assert len(rows) == 54
    assert all(read_config(json.loads(text), trial_id) is not None for trial_id, text in rows)


def test_a_setting_that_was_not_there_yet_has_the_value_of_before_and_not_todays_default(
    trials: tuple[Trial, ...],
) -> None:
    stored = json.loads(to_json(trials[0].config))
    for section, name in (("objective", "koleo_radius"), ("treatment", "own_lr"), ("objective", "optimizer")):
        del stored[section][name]
    assert read_config(stored, trials[0].trial_id) == trials[0].config


def test_what_is_not_the_trial_that_it_says_is_none(trials: tuple[Trial, ...]) -> None:
    stored = json.loads(to_json(trials[0].config))
    assert read_config(stored, trials[1].trial_id) is None
    assert read_config(stored | {"seed": "many"}, trials[0].trial_id) is None
    assert read_config({}, trials[0].trial_id) is None


def test_a_training_is_the_same_whatever_is_asked_of_it(
    trials: tuple[Trial, ...], make_sweep: Callable[..., Sweep]
) -> None:
    others = expand(
        make_sweep(
            probes={"knn": {"ks": [5]}, "linear": {}}, rungs={"count": 1}, diagnostics=True, question="Another one?"
        )
    )
    assert [training_id(trial.config) for trial in others] == [training_id(trial.config) for trial in trials]
    assert not {trial.trial_id for trial in others} & {trial.trial_id for trial in trials}
    assert len({training_id(trial.config) for trial in trials}) == len(trials)
    knn = [evaluation_ids(each[0].config)["knn"] for each in (trials, others)]
    assert knn[0] != knn[1]


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"recipe": "dinov2_cpu", "steps": 5, "batch_size": 8}},
        {"model": {"scale": "nano", "high_norm": "registers:1"}},
        {"data": {"source": "scenes", "num_train": 65, "num_val": 32}},
        {"seeds": [2, 3]},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_what_changes_a_training_changes_its_address(
    trials: tuple[Trial, ...], make_sweep: Callable[..., Sweep], sections: dict[str, object]
) -> None:
    others = {training_id(trial.config) for trial in expand(make_sweep(**sections)) if trial.role != "floor"}
    assert not others & {training_id(trial.config) for trial in trials}


def result_of(config: TrialConfig, name: str, *, data: str = "d", sha256: str = "", **metrics: float) -> StoredResult:
    weights = (WeightsFile(f"{name}/backbone.safetensors", sha256, is_probed=True),) if sha256 else ()
    return StoredResult(name, name, config, (data,), {"loss": 1.0, **metrics}, weights=weights)


@pytest.fixture
def asked(make_sweep: Callable[..., Sweep]) -> Callable[..., TrialConfig]:
    """Return the baseline's configuration with some probes."""
    return lambda *names: expand(make_sweep(probes={name: {} for name in names}))[0].config


def found(config: TrialConfig, *results: StoredResult, data: str | None = None) -> KeptTraining | None:
    return find_kept(config, results, {} if data is None else {config.data: data})


def missing(kept: KeptTraining | None) -> list[str]:
    assert kept is not None
    return [] if kept.missing is None else [probe.name for probe in kept.missing.probes]


def test_what_is_known_is_taken_and_what_is_missing_is_named(asked: Callable[..., TrialConfig]) -> None:
    kept = found(asked("knn", "linear"), result_of(asked("knn"), "a", knn_top1=50.0))
    assert missing(kept) == ["linear"]
    assert kept is not None
    assert kept.metrics == {"knn_top1": 50.0, "loss": 1.0}
    fewer = found(asked("knn"), result_of(asked("knn", "linear"), "a", knn_top1=50.0, linear_top1=60.0))
    assert fewer is not None
    assert (missing(fewer), fewer.metrics) == ([], {"knn_top1": 50.0, "loss": 1.0})


def test_another_setting_of_a_probe_is_another_evaluation(
    asked: Callable[..., TrialConfig], make_sweep: Callable[..., Sweep]
) -> None:
    other = expand(make_sweep(probes={"knn": {"ks": [5]}}))[0].config
    assert missing(found(asked("knn"), result_of(other, "a", knn_top1=50.0))) == ["knn"]


def test_results_from_other_data_are_of_another_training(asked: Callable[..., TrialConfig]) -> None:
    result = result_of(asked("knn"), "a", data="d", knn_top1=50.0)
    assert found(asked("knn"), result, data="other") is None
    assert missing(found(asked("knn"), result, data="d")) == []


def test_numbers_of_two_backbones_are_not_put_together(asked: Callable[..., TrialConfig]) -> None:
    first = result_of(asked("knn"), "a", sha256="1", knn_top1=50.0)
    second = result_of(asked("linear"), "b", sha256="2", linear_top1=60.0)
    kept = found(asked("knn", "linear"), first, second)
    assert len(missing(kept)) == 1
    # Of one backbone, whichever of its trials asked.
    same = result_of(asked("linear"), "b", sha256="1", linear_top1=60.0)
    whole = found(asked("knn", "linear"), first, same)
    assert whole is not None
    assert (whole.missing, whole.metrics) == (None, {"knn_top1": 50.0, "loss": 1.0, "linear_top1": 60.0})


def test_of_files_that_were_left_out_the_largest_number_is_known_where_data_may_have_such(
    asked: Callable[..., TrialConfig],
) -> None:
    few = result_of(asked("knn"), "a", sha256="1", knn_top1=50.0, skipped_images=2.0)
    more = result_of(asked("linear"), "b", sha256="1", linear_top1=60.0, skipped_images=5.0)
    config = asked("knn", "linear")
    data = ImageFolder(root="/x", keep="encoded", on_bad_image="skip")
    for each, expected in ((config, {}), (replace(config, data=data), {"skipped_images": 5.0})):
        kept = find_kept(each, [few, more], {})
        assert kept is not None
        assert {name: value for name, value in kept.metrics.items() if name == "skipped_images"} == expected


def test_a_backbone_that_was_kept_comes_before_one_that_was_not(asked: Callable[..., TrialConfig]) -> None:
    lost = result_of(asked("knn", "linear"), "a", knn_top1=50.0, linear_top1=60.0)
    there = result_of(asked("knn"), "b", sha256="2", knn_top1=51.0)
    kept = found(asked("knn", "linear", "segmentation"), lost, there)
    assert kept is not None
    assert (kept.source, kept.metrics["knn_top1"]) == ("b", 51.0)
    # But nothing is evaluated again that is known whole.
    complete = found(asked("knn", "linear"), lost, there)
    assert complete is not None
    assert complete.source == "a"


def test_diagnostics_are_missing_where_they_were_not_asked_for(asked: Callable[..., TrialConfig]) -> None:
    config = replace(asked("knn"), diagnostics=True)
    kept = found(config, result_of(asked("knn"), "a", knn_top1=50.0))
    assert kept is not None
    assert kept.missing is not None
    assert (kept.missing.probes, kept.missing.diagnostics) == ((), True)
