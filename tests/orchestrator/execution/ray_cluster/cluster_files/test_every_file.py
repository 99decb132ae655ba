"""The example files for clusters and Grafana that come with the package: what holds for all of them."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from .files import CLUSTERS, DASHBOARD, ROOT, WITH_COMMENTS, commands_in, parse


def all_commands() -> list[Any]:
    commands = dict.fromkeys(command for path in WITH_COMMENTS for command in commands_in(path))
    return [pytest.param(command, id=command) for command in commands]


def test_every_file_is_carried_by_an_installed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["orchestrator"]
    names = [str(path.relative_to(ROOT / "orchestrator")) for path in CLUSTERS.iterdir() if path.is_file()]
    assert len(names) >= 4
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("path", WITH_COMMENTS, ids=lambda path: path.name)
def test_a_file_opens_with_its_question_command_and_what_was_validated(path: Path) -> None:
    lines = path.read_text().removeprefix("#!/usr/bin/env bash\n").splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert "?" in head.splitlines()[0]
    words = ("Needs", "Command", "Watch", "Stop", "Security", "Validated")
    assert [word for word in words if f"# {word}:" not in head] == []
    assert "Not run: no " in " ".join(head.replace("#", "").split())


@pytest.mark.parametrize("path", WITH_COMMENTS, ids=lambda path: path.name)
def test_a_file_shows_how_to_run_and_how_to_watch(path: Path) -> None:
    assert {command.split()[1] for command in commands_in(path)} == {"run", "status"}


@pytest.mark.parametrize("command", all_commands())
def test_a_command_line_is_one_that_the_program_takes(command: str) -> None:
    given = parse(command)
    assert Path(given["results"]) != Path("results") or "--results results" in command


@pytest.mark.parametrize("path", [*WITH_COMMENTS, DASHBOARD], ids=lambda path: path.name)
def test_nothing_listens_to_the_world_and_authentication_stays_on(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"0\.0\.0\.0|\bNodePort\b|\bLoadBalancer\b|kind: Ingress|enableIngress", text) == []
    assert set(re.findall(r"dashboard-host\W+([^\s'\"]+)", text)) <= {"127.0.0.1"}
    assert set(re.findall(r"RAY_AUTH_MODE\W+(\w+)", text)) <= {"token"}
    assert re.findall(r"(?i)RAY_AUTH_TOKEN['\"]?\s*[=:]", text) == []  # a token itself belongs into no file
