"""The sweep file and the environment beside a table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.provenance_files import write_provenance

INFO = SweepInfo(name="s", question="?", text="# mine\nseeds: 1\n", metrics=("miou",), seeds=(0,))


def _written(folder: Path, *argv: str) -> dict[str, object]:
    write_provenance(folder, INFO, dataclasses.replace(collect_provenance(), argv=argv))
    environment: dict[str, object] = json.loads((folder / "environment.json").read_text())
    return environment


def test_origin_holds_the_sweep_file_to_the_letter(tmp_path: Path) -> None:
    _written(tmp_path, "specsweep", "run", "s.yaml")
    assert (tmp_path / "sweep.yaml").read_text() == INFO.text


def test_origin_names_the_command_without_the_machines_folders(tmp_path: Path) -> None:
    argv = ("/home/me/bin/specsweep", "run", "sweeps/s.yaml", "--set", "data.root=/home/me/images")
    environment = _written(tmp_path, *argv)
    assert environment["command"] == "specsweep run sweeps/s.yaml --set data.root=images"


def test_origin_names_versions_and_hardware_but_no_host(tmp_path: Path) -> None:
    environment = _written(tmp_path, "specsweep")
    assert {"torch", "ray", "optuna", "timm", "python"} <= set(environment["versions"])  # type: ignore[call-overload]
    assert environment["num_cores"]
    assert "host" not in environment


def test_origin_written_twice_leaves_no_other_files(tmp_path: Path) -> None:
    _written(tmp_path, "specsweep")
    _written(tmp_path, "specsweep")
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.yaml", "environment.json"}
