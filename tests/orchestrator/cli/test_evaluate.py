"""The command that runs more probes on what a sweep has trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.sweep.adding import with_probes
from orchestrator.sweep.problems import SweepFileError
from orchestrator.trials.records import State


@pytest.fixture
def file(tmp_path: Path, write_sweep: Callable[..., Path]) -> Path:
    return write_sweep(tmp_path, seeds=1, floors=[], ablate={"components": ["none"]}, rungs={"count": 1})


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_probe_is_added_in_the_folder_of_the_sweep_with_settings_from_the_command_line(
    file: Path, tmp_path: Path
) -> None:
    here = ("--results", tmp_path / "results", "--executor", "local")
    invoke("run", file, *here)
    text = invoke("evaluate", file, "--probe", "clustering", "--set", "probes.clustering.num_train=48", *here)
    assert "1 trial to be evaluated only: trained before" in text
    assert f"to keep these columns in later runs of {file}, add to its probes: clustering: {{}}" in text
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tiny"]
    with Ledger.read(tmp_path / "results" / "tiny" / LEDGER_NAME) as ledger:
        (record,) = ledger.records()
    assert (record.state, record.added_later) == (State.DONE, {"clustering_miou", "clustering_nmi"})
    # The table says it in each of its forms.
    table = invoke("table", tmp_path / "results" / "tiny", "--format", "md")
    assert "Added later, evaluated on kept weights: clustering mIoU, clustering NMI." in table
    made = json.loads(invoke("table", tmp_path / "results" / "tiny", "--format", "json"))
    assert made["added_later"] == ["clustering_miou", "clustering_nmi"]
    assert made["tables"][0]["primary"] == "knn_top1"  # as before


def test_what_is_trained_not_yet_is_left_waiting(file: Path, tmp_path: Path) -> None:
    invoke("evaluate", file, "--probe", "clustering", "--results", tmp_path / "results", "--executor", "local")
    with Ledger.read(tmp_path / "results" / "tiny" / LEDGER_NAME) as ledger:
        assert [record.state for record in ledger.records()] == [State.WAITING]


def test_probes_that_cannot_be_added_are_named(file: Path) -> None:
    with pytest.raises(SweepFileError, match=r"clusterin: there is no such probe \(did you mean 'clustering'\?"):
        with_probes(file, ["clusterin"], [])
    with pytest.raises(SweepFileError, match="--probe knn: the file holds it already"):
        with_probes(file, ["knn"], [])


def test_the_name_is_that_which_the_sweep_has_without_the_probe(file: Path) -> None:
    assert with_probes(file, ["depth"], ["objective.steps=2", "probes.depth.num_train=9"]) == [
        *("probes.depth={}", "objective.steps=2", "probes.depth.num_train=9", 'name="tiny-objective.steps-2"'),
    ]
    assert with_probes(file, ["depth"], ["name=mine"]) == ["probes.depth={}", "name=mine"]
