"""The settings of trackers, which load without their packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.trackers import TRACKERS, MLflow, TensorBoard, TrackedRun, Trackio, WeightsAndBiases
from specvit.errors import ConfigError


def made_run(**fields: object) -> TrackedRun:
    known = {"key": "0123456789abcdef" * 2, "name": "n", "sweep": "x", "group": "", "arm": "none", "role": "arm"}
    return TrackedRun(**{**known, "seed": 3, "trial_id": "t", **fields})  # type: ignore[arg-type]


def test_the_table_lists_them() -> None:
    assert list(TRACKERS) == ["tensorboard", "mlflow", "wandb", "trackio"]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.trackers.base.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as error:
        TRACKERS[name]().check_installed()
    assert str(error.value) == (
        f"trackers: '{name}' needs the package '{name}', which is not installed: pip install \"specsweep[{name}]\""
    )


def test_a_folder_of_the_name_of_a_package_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(TensorBoard, "package", "no_such_package")
    with pytest.raises(ConfigError, match="is not installed"):
        TensorBoard().check_installed()


def test_stores_on_this_machine_lie_beside_the_ledger_or_where_the_file_says(tmp_path: Path) -> None:
    assert TensorBoard().folder_in(tmp_path) == tmp_path / "trackers" / "tensorboard"
    assert TensorBoard(folder="/elsewhere/tb").folder_in(tmp_path) == Path("/elsewhere/tb")
    assert TensorBoard(folder="~/tb").folder_in(tmp_path) == Path.home() / "tb"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "none-seed-3-01234567"),
        ({"group": "model.scale=nano", "arm": "norm@all"}, "model.scale=nano/norm@all-seed-3-01234567"),
        ({"arm": "../../x y\n"}, "x-y-seed-3-01234567"),
        ({"group": "..", "arm": "/"}, "seed-3-01234567"),
        ({"arm": "a" * 500}, f"{'a' * 100}-seed-3-01234567"),
    ],
)
def test_the_folder_of_a_run_is_plain_whatever_its_arm_is_called(fields: dict[str, object], path: str) -> None:
    assert made_run(**fields).path == Path(path)


def test_a_group_is_a_parameter_where_there_are_several() -> None:
    assert "group" not in made_run().parameters
    assert made_run(group="g", settings={"objective.lr": 0.1}).parameters["objective.lr"] == 0.1


def test_mlflow_takes_its_address_from_the_file_the_environment_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert MLflow().uri_for(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/x")
    assert MLflow().uri_for(tmp_path) == "https://me:secret@host/x"
    assert MLflow().destination(tmp_path, sweep="s") == "https://host/x"
    assert MLflow(uri="http://other").uri_for(tmp_path) == "http://other"


def test_mlflow_takes_no_password_in_the_file() -> None:
    with pytest.raises(ValueError, match="must hold no user or password") as error:
        MLflow(uri="https://me:secret@host/x")
    assert "https://me:secret" not in str(error.value).partition("[type=")[0]


def test_wandb_is_online_unless_the_file_or_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert WeightsAndBiases().destination(tmp_path, sweep="s") == "wandb project s"
    assert WeightsAndBiases(entity="e", project="p").destination(tmp_path, sweep="s") == "wandb project e/p"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WeightsAndBiases().destination(tmp_path, sweep="s") == f"wandb sync {tmp_path}/wandb/offline-run-*"
    assert WeightsAndBiases(mode="online").mode_now() == "online"


def test_trackio_stays_on_this_machine_unless_a_space_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    assert Trackio().destination(tmp_path, sweep="s") == f"TRACKIO_DIR={tmp_path} trackio show --project s"
    assert Trackio(space="me/space").destination(tmp_path, sweep="s") == "the Space me/space"
