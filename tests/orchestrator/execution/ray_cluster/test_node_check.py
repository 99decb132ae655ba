from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator
import specvit
from orchestrator.execution.ray_cluster import node_check
from orchestrator.execution.ray_cluster.node_check import (
    NodeReport,
    NodeRequirements,
    code_digest,
    inspect_node,
    library_versions,
    mismatch,
)
from specvit.data import DATA_SOURCES, Dataset, DataSource, Split
from specvit.errors import DataError

WANTED = NodeRequirements(code="abc", versions={"torch": "2.9", "timm": "1.0"})
SAME = NodeReport(host="node7", code="abc", versions=WANTED.versions, cannot_read=(), sees_path=True)
EMPTY = Split(images=np.zeros((0, 3, 4, 4), np.uint8))
DATA = Dataset(train=EMPTY, val=EMPTY, class_names=(), mask_names=(), fingerprint="")


def test_a_node_like_the_driver_lacks_nothing() -> None:
    assert mismatch(WANTED, SAME) == ""
    assert mismatch(WANTED, replace(SAME, versions={**WANTED.versions, "more": "1"})) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"versions": {"torch": "2.8", "timm": "1.0"}}, "node7 has torch 2.8, but the driver 2.9"),
        ({"versions": {"torch": "2.9"}}, "node7 has timm None, but the driver 1.0"),
        ({"code": "def"}, "node7 has other code of specsweep than the driver; install the same there"),
        (
            {"cannot_read": ("photos: no such folder", "depth: no such file")},
            "node7 cannot read data: photos: no such folder; depth: no such file",
        ),
        ({"fault": "cuda:1: no"}, "node7 cannot compute: cuda:1: no"),
        # Other libraries come with other code, as a rule: the former is told.
        ({"code": "def", "versions": {"torch": "2.8", "timm": "1.0"}}, "node7 has torch 2.8, but the driver 2.9"),
    ],
)
def test_what_a_node_lacks_is_told_with_its_name(changes: Mapping[str, Any], message: str) -> None:
    assert mismatch(WANTED, replace(SAME, **changes)) == message


def test_packages_that_add_parts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "plugin_versions", lambda: {"vit-orientation": "1.0"})
    found = replace(SAME, versions=library_versions())
    monkeypatch.setattr(node_check, "plugin_versions", lambda: {"vit-orientation": "1.1"})
    wanted = replace(WANTED, versions=library_versions())
    assert mismatch(wanted, found) == "node7 has vit-orientation 1.0, but the driver 1.1"


def test_this_machine_lacks_nothing_that_this_process_has() -> None:
    source = DATA_SOURCES["scenes"]()
    fetched: list[Any] = []

    def fetch(reference: Any) -> Dataset:
        fetched.append(reference)
        return DATA

    wanted = NodeRequirements.of_this_code()
    found = inspect_node(wanted, {source: "reference"}, fetch=fetch)
    assert fetched == ["reference"]
    assert (found.host, found.cannot_read, found.sees_path) == (socket.gethostname(), (), True)
    assert mismatch(wanted, found) == ""


def test_data_that_cannot_be_read_are_told_with_their_source() -> None:
    def fetch(reference: Any) -> Dataset:
        raise DataError(f"no {reference}")

    sources: dict[DataSource, Any] = {DATA_SOURCES["scenes"](): "folder"}
    assert inspect_node(NodeRequirements.of_this_code(), sources, fetch=fetch).cannot_read == ("scenes: no folder",)


def test_a_node_says_whether_it_sees_the_results(tmp_path: Path) -> None:
    def sees(path: Path) -> bool:
        return inspect_node(NodeRequirements.of_this_code(path), {}, fetch=lambda _: DATA).sees_path

    assert sees(tmp_path)
    assert not sees(tmp_path / "absent")


def test_the_versions_are_those_of_the_libraries_that_decide_numbers() -> None:
    versions = library_versions()
    assert {"torch", "timm"} <= versions.keys()
    assert all(version == metadata.version(name) for name, version in versions.items())


def test_a_node_that_cannot_write_or_compute_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault() -> str:
        return inspect_node(NodeRequirements.of_this_code(), {}, fetch=lambda _: DATA).fault

    assert fault() == ""
    with monkeypatch.context() as patch:
        patch.setattr("specvit.device.find_fault", lambda *, with_gpus: f"no driver, {with_gpus}")
        assert fault() == "no driver, False"
    monkeypatch.setattr("tempfile.tempdir", "/dev/full")
    assert fault().startswith("temporary files cannot be written")


def digest_at(root: Path) -> str:
    code = "from orchestrator.execution.ray_cluster.node_check import code_digest; print(code_digest())"
    command, environment = [sys.executable, "-c", code], {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_digest_of_the_code_is_the_same_elsewhere_and_another_after_any_change(tmp_path: Path) -> None:
    for package in (specvit, orchestrator):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_at(tmp_path) == code_digest()
    path = tmp_path / "specvit" / "data" / "base.py"
    path.write_text(path.read_text() + "# another\n")
    changed = digest_at(tmp_path)
    assert changed != code_digest()
    path.rename(path.with_name("other.py"))
    (tmp_path / "specvit" / "data" / "base.py").write_text("from specvit.data.other import *\n")
    assert digest_at(tmp_path) not in (changed, code_digest())
