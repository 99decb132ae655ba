"""The configuration of ``ray up``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .files import RAY_UP, ROOT, SLURM, commands_in, parse


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    """Return the launcher's configuration as Ray itself fills it out."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema")
    prepared: dict[str, Any] = util.prepare_config(yaml.safe_load(RAY_UP.read_text()))
    util.validate_config(prepared)
    return prepared


def test_ray_accepts_the_launchers_configuration(launcher: dict[str, Any]) -> None:
    head, workers = (launcher["available_node_types"][name] for name in ("head", "gpu_spot"))
    assert launcher["head_node_type"] == "head"
    assert head["max_workers"] == 0
    assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert workers["resources"]["GPU"] >= 1
    assert 1 <= workers["min_workers"] < workers["max_workers"] <= launcher["max_workers"]
    assert launcher["idle_timeout_minutes"] > 0


def test_the_launcher_installs_the_package_from_what_it_copies(launcher: dict[str, Any]) -> None:
    (folder,) = (remote for remote, local in launcher["file_mounts"].items() if local == ".")
    assert f"pip install {folder}" in launcher["setup_commands"]
    runs = [command for command in commands_in(RAY_UP) if command.split()[1] == "run"]
    sweeps = [Path(parse(command)["sweep_file"]) for command in runs]
    assert sweeps
    assert all((ROOT / sweep.relative_to(folder)).is_file() for sweep in sweeps)


def test_every_head_that_is_started_keeps_its_dashboard_to_itself(launcher: dict[str, Any]) -> None:
    script = re.sub(r"\\\n\s*", "", SLURM.read_text())
    heads = [
        command
        for command in (*launcher["head_start_ray_commands"], *script.splitlines())
        if "ray start --head" in command
    ]
    assert len(heads) == 2
    assert all("--dashboard-host=127.0.0.1" in command for command in heads)
