"""Parts of other people's packages on the command line; the package in ``tests/plugins`` stands for all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ...waiting import run_to_end

PROJECT = Path(__file__).parents[2] / "plugins" / "orientation"
CODE = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-c", "from orchestrator.cli.app import main; main()"]
GRATINGS = {"source": "gratings", "num_train": 64, "num_val": 32}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder that is on the path of the commands."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def command(tmp_path: Path, site: Path) -> Command:
    """Return a function that runs a command, in ``tmp_path``."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_to_end([*PROGRAM, *arguments], cwd=tmp_path, env=environment)

    return run


@pytest.mark.long
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_probe_and_data_source_of_a_package_run_and_have_their_column(
    executor: str,
    command: Command,
    site: Path,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    install_plugin: Callable[[Path, Path], None],
) -> None:
    install_plugin(PROJECT, site)
    own = {**GRATINGS, "num_orientations": 4}
    write_sweep(tmp_path, data=GRATINGS, probes={"class_means": {"data": own}, "knn": {}}, seeds=1)
    ended = command("run", "tiny.yaml", "--executor", executor)
    assert ended.returncode == 0, ended.stderr
    results = tmp_path / "results" / "tiny"
    columns = "| kNN top-1 (%) ↑ | difference | class means top-1 (%) ↑ | difference |"
    assert columns in (results / "table.md").read_text()
    table = pd.read_csv(results / "table.csv")
    assert table["class_means_top1_mean"].between(0, 100).all()
    assert json.loads((results / "environment.json").read_text())["versions"]["vit-orientation"] == "1.0"


def test_plan_knows_the_parts_of_a_package_and_says_what_is_wrong_with_them(
    command: Command,
    site: Path,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    install_plugin: Callable[[Path, Path], None],
) -> None:
    write_sweep(tmp_path, data=GRATINGS, probes={"class_means": {}})
    without = command("plan", "tiny.yaml")
    assert without.returncode == 2
    known = "attentive, clustering, depth, detection, in_context, knn, linear, segmentation"
    assert f"unknown field; known: {known}" in without.stderr
    install_plugin(PROJECT, site)
    planned = command("plan", "tiny.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "8 trials" in planned.stdout
    wrong = command("plan", "tiny.yaml", "--set", "probes.class_mean=", "--set", "data.num_orientations=0")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        "--set data.num_orientations=0: data.num_orientations: must be greater than 0, not 0",
        "--set probes.class_mean=: probes.class_mean: unknown field; known: attentive, clustering, depth, detection, "
        "in_context, knn, linear, segmentation, class_means (did you mean 'class_means'?)",
    ]
    no_labels = command("plan", "tiny.yaml", "--set", "data={source: grating}")
    assert "unknown source; known: ade20k, " in no_labels.stderr
    assert "webdataset, gratings, not 'grating' (did you mean 'gratings'?)" in no_labels.stderr


def test_schema_holds_the_parts_of_a_package(
    command: Command, site: Path, install_plugin: Callable[[Path, Path], None]
) -> None:
    install_plugin(PROJECT, site)
    schema = json.loads(command("schema").stdout)
    mapping = schema["properties"]["data"]["anyOf"][0]["discriminator"]["mapping"]  # or null
    assert schema["$defs"][mapping["gratings"].rpartition("/")[2]]["properties"]["num_orientations"]["default"] == 8
    own = schema["$defs"]["ClassMeans"]["properties"]["data"]["anyOf"][0]
    assert own["discriminator"]["mapping"].keys() == mapping.keys()
    assert {"knn", "class_means"} <= schema["properties"]["probes"]["properties"].keys()


def break_project(folder: Path, old: str, new: str) -> Path:
    """Write the project anew with a change to its probe."""
    module = folder / "vit_orientation" / "class_means.py"
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new))
    return module


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('Metric("class_means_top1"', 'Metric("knn_top1"', "the metric 'knn_top1' is reported by probe 'knn' already"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("import annotations", "import annotation", "cannot be loaded: SyntaxError: future feature annotation"),
                ('Metric("class_means_top1"', 'Metric("loss"', "the metric 'loss' is reported by the recipes already"),
                ("top-1\"),)", 'top-1"))', "ClassMeans.metrics must be a tuple of at least one Metric, not Metric("),
                ('[str] = "class_means"', '[str] = "means"', "ClassMeans.name must be 'class_means', not 'means'"),
            )
        ),
    ],
)
def test_broken_package_ends_every_command_that_needs_its_table_with_one_message(
    old: str,
    new: str,
    fault: str,
    command: Command,
    site: Path,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    install_plugin: Callable[[Path, Path], None],
) -> None:
    install_plugin(PROJECT, site)
    break_project(site, old, new)
    write_sweep(tmp_path)
    start = (
        "specsweep: package vit-orientation 1.0, entry point class_means = 'vit_orientation.class_means:ClassMeans' "
        f"of specsweep.probes: {fault}"
    )
    for arguments in (["plan", "tiny.yaml"], ["schema"]):
        ended = command(*arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(start)
        assert ended.stderr.count("\n") == 1
    assert command("--help").returncode == 0


def test_row_of_the_components_that_overlaps_another_ends_a_command_with_one_message(
    command: Command, site: Path, tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    shutil.copytree(CODE / "specvit", site / "specvit", ignore=shutil.ignore_patterns("__pycache__"))
    table = site / "specvit" / "specialization" / "components.py"
    row = 'Component("kv", (Site("attn.qkv", inputs=1, outputs=2, first=1),)),\n        Component("proj"'
    table.write_text(table.read_text().replace('Component("proj"', row))
    write_sweep(tmp_path)
    ended = command("plan", "tiny.yaml")
    assert ended.returncode == 2
    assert ended.stderr.startswith("specsweep: component 'kv' of specvit/specialization/components.py: must not own")
    assert ended.stderr.count("\n") == 1
