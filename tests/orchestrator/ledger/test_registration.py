from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.ledger.connection import connect_writer
from orchestrator.ledger.errors import LedgerError, translate_sqlite_errors
from orchestrator.ledger.registration import SweepInfo, read_registration, write_registration
from orchestrator.trials.trial import Role, Trial
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data import DATA_SOURCES
from specvit.recipes import RECIPES

INFO = SweepInfo("components", "Which?", "name: components\n", ("miou",), (0,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def make_trial(seed: int) -> Trial:
    config = TrialConfig(
        treatment=Treatment(specialize="norm@all"),
        model=ModelSettings(patch_size=8),
        data=DATA_SOURCES["scenes"](),
        objective=RECIPES["deit3"](steps=7),
        probes=(),
        rungs=RungSettings(),
        seed=seed,
    )
    return Trial("t", "g", "a", "", "norm@all", Role.ARM, "norm@all seed 3", seed, 1000, 2.5, config)


def test_configuration_is_stored_as_json_with_every_field(path: Path) -> None:
    connection = connect_writer(path)
    write_registration(connection, INFO, [make_trial(3)], path=path)
    config = json.loads(connection.execute("SELECT config FROM trials").fetchone()[0])
    assert set(config) == set(TrialConfig.__dataclass_fields__)
    told = {name: config["treatment"][name] for name in ("kind", "specialize", "init", "tokens", "comparator")}
    expected = {"kind": "specialize", "specialize": "norm@all", "init": "copy", "tokens": "cls", "comparator": None}
    assert told == expected
    assert (config["model"]["patch_size"], config["objective"]["steps"], config["seed"]) == (8, 7, 3)
    assert (config["objective"]["recipe"], config["data"]["source"]) == ("deit3", "scenes")


def test_registration_comes_back_as_given_and_the_newest_counts(path: Path) -> None:
    connection = connect_writer(path)
    write_registration(connection, INFO, [], path=path)
    edited = SweepInfo("components", "Which now?", "name: components\n# edited\n", ("knn_top1", "miou"), (0, 1))
    write_registration(connection, edited, [], path=path)
    assert read_registration(connection, path=path) == edited


def test_seed_that_the_file_cannot_hold_is_refused_as_an_error_of_the_ledger(path: Path) -> None:
    connection = connect_writer(path)
    with pytest.raises(LedgerError, match="too large"), translate_sqlite_errors(path):
        write_registration(connection, INFO, [make_trial(2**64)], path=path)


def test_a_declared_comparison_is_kept_and_of_older_sweeps_there_is_none(path: Path) -> None:
    connection = connect_writer(path)
    for comparison in ({}, {"model": "unblocked", "variance": "pooled"}):
        write_registration(connection, replace(INFO, comparison=comparison), [make_trial(3)], path=path)
        assert read_registration(connection, path=path).comparison == comparison
