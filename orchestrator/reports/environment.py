"""What a run ran on, as far as it may be shared: what identifies a person's machine (host, user, paths) is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.ledger.provenance import Provenance
from orchestrator.reports.per_trial.sweep_data import read_files
from specvit.errors import SpecsweepError

ENVIRONMENT_NAME = "environment.json"


def environment_of(provenance: Provenance) -> dict[str, Any]:
    """Return the command, the code with its digests, the versions and the machine of a run as JSON values."""
    arguments = provenance.argv[1:]  # the first is how Python was started
    return {
        "command": " ".join(["specsweep", *map(_without_folder, arguments)]),
        "started_at": provenance.started_at,
        "git_sha": provenance.git_sha,
        "git_dirty": provenance.git_dirty,
        "code": dict(provenance.code),
        "versions": dict(provenance.versions),
        "platform": provenance.platform,
        "cpu": provenance.cpu,
        "num_cores": provenance.num_cores,
        "memory_gib": provenance.memory_gib,
        "gpus": list(provenance.gpus),
    }


def read_environment(folder: Path) -> dict[str, Any]:
    """Read what ``environment_of`` returned from the file that holds it; empty if a folder has none.

    Raises:
        SpecsweepError: If it cannot be read, or is no JSON object; the text names it.
    """
    try:
        environment = json.loads(read_files(folder, (ENVIRONMENT_NAME,)).get(ENVIRONMENT_NAME, b"{}"))
    except (ValueError, RecursionError):
        environment = None
    if not isinstance(environment, dict):
        raise SpecsweepError(f"{folder / ENVIRONMENT_NAME}: must be a JSON object")
    return environment


def _without_folder(argument: str) -> str:
    """Cut an absolute path down to its last part; relative ones say nothing of the machine."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if value.startswith("/") else argument
