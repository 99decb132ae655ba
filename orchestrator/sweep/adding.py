"""Adding probes to a sweep file from the command line, in the results folder that the file has anyway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from orchestrator.sweep.extending import read_sweep_file
from orchestrator.sweep.naming import results_name
from orchestrator.sweep.problems import SweepFileError
from specvit.messages import did_you_mean
from specvit.probes import PROBES


def with_probes(path: Path, names: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return overrides with which a sweep file has more probes, and the name that it has without them.

    Args:
        path: The sweep file.
        names: The probes to add, at their defaults.
        overrides: Those of the command line; they may set fields of the added probes, and count after them.

    Raises:
        SweepFileError: If there is no such probe, the file holds it already, or the file cannot be read.
    """
    raw = read_sweep_file(path).value
    present = raw.get("probes")
    for name in names:
        if name not in PROBES:
            raise SweepFileError(f"--probe {name}: there is no such probe{did_you_mean(name, list(PROBES))}")
        if isinstance(present, dict) and present.get(name, False) is not False:
            rule = f"the file holds it already; 'specsweep run {path}' runs what is missing"
            raise SweepFileError(f"--probe {name}: {rule}")
    given = raw.get("name")
    rest = [text for text in overrides if not text.startswith("probes.")]
    base = results_name(path, given if isinstance(given, str) else None, rest)
    is_named = any(text.partition("=")[0].strip() == "name" for text in overrides)
    return [
        *(f"probes.{name}={{}}" for name in names),
        *overrides,
        *([] if is_named else [f"name={json.dumps(base)}"]),
    ]
