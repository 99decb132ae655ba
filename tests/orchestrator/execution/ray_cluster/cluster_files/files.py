"""The example files for clusters and Grafana, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli.app import app

ROOT = Path(__file__).parents[5]
CLUSTERS = ROOT / "orchestrator" / "clusters"
RAYJOB, RAY_UP, SLURM = CLUSTERS / "kuberay_rayjob.yaml", CLUSTERS / "ray_up.yaml", CLUSTERS / "slurm.sh"
DASHBOARD = CLUSTERS / "grafana_dashboard.json"
WITH_COMMENTS = (RAYJOB, RAY_UP, SLURM)


def commands_in(path: Path) -> list[str]:
    """Return the ``specsweep`` command lines of a file, those in its comments too."""
    text = re.sub(r"(?m)^#(?!!)", "", path.read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = (re.search(r"(?<!['\"`/\w.-])specsweep (?:run|status) [^`]*", line) for line in lines)
    return [re.split(r" [&|;#]|  ", match[0])[0].strip() for match in found if match]


def command_of(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[name]


def parse(command: str) -> dict[str, Any]:
    """Parse a command line as the program does, without running it; return what it takes from it."""
    _, name, *arguments = shlex.split(command)
    # What a script hands on is its caller's.
    context = command_of(name).make_context(name, [argument for argument in arguments if argument != "$@"])
    parameters: dict[str, Any] = context.params
    return parameters
