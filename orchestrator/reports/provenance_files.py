"""Where a table came from: the sweep file and the environment, written beside it.

What identifies a person's machine (host, user, paths) stays in the ledger; these files can be shared.
"""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from specvit.files.atomic import write_atomically

SWEEP_COPY_NAME = "sweep.yaml"
ENVIRONMENT_NAME = "environment.json"


def write_provenance(folder: Path, info: SweepInfo, provenance: Provenance) -> None:
    """Write the sweep file's text and the environment of a run.

    Args:
        folder: The folder of the sweep's results.
        info: The sweep.
        provenance: Of the run that computed the newest trials.
    """
    program, *arguments = provenance.argv or ("specsweep",)
    environment = {
        "command": " ".join([Path(program).name, *map(_without_folder, arguments)]),
        "started_at": provenance.started_at,
        "git_sha": provenance.git_sha,
        "git_dirty": provenance.git_dirty,
        "versions": dict(provenance.versions),
        "platform": provenance.platform,
        "cpu": provenance.cpu,
        "num_cores": provenance.num_cores,
        "memory_gib": provenance.memory_gib,
        "gpus": list(provenance.gpus),
    }
    write_atomically(folder / SWEEP_COPY_NAME, info.text)
    write_atomically(folder / ENVIRONMENT_NAME, json.dumps(environment, indent=2) + "\n")


def _without_folder(argument: str) -> str:
    """Cut an absolute path down to its last part; relative ones say nothing of the machine."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if value.startswith("/") else argument
