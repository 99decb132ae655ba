"""A change of structure renames no trial and changes no table: what older code has written is read as it was meant."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from orchestrator.cli.app import main
from orchestrator.sweep.grid import expand, start_order
from orchestrator.sweep.loading import load_sweep

from .pinned_ledger import write_ledger

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parents[1] / "assets"
FORMATS = {"text": "txt", "md": "md", "csv": "csv", "json": "json"}


def shipped_ids() -> dict[str, dict[str, object]]:
    """Return for each shipped sweep the number of its trials, and of all ids, as they start, the first and a digest."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted((ROOT / "sweeps").rglob("*.yaml")):
        sweep = load_sweep(path)
        ids = [trial.trial_id for trial in start_order(sweep, expand(sweep))]
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        found[str(path.relative_to(ROOT))] = {"trials": len(ids), "first": ids[0], "digest": digest}
    return found


def print_table(folder: Path, form: str) -> str:
    """Return what ``specsweep table`` prints of the ledger in a folder."""
    printed = io.StringIO()
    argv = ["specsweep", "table", str(folder), "--format", form]
    with (
        patch.object(sys, "argv", argv),
        patch.dict(os.environ, COLUMNS="200"),
        redirect_stdout(printed),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == 0
    return printed.getvalue()


def test_ids_of_every_shipped_sweep_are_those_of_before() -> None:
    assert shipped_ids() == json.loads((ASSETS / "trial_ids.json").read_text())


@pytest.mark.parametrize("schema", [2, 3, 4, 5])
@pytest.mark.parametrize("form", FORMATS)
def test_tables_of_a_ledger_of_before_are_those_of_before(form: str, schema: int, tmp_path: Path) -> None:
    shutil.copy(ASSETS / f"ledger_schema_{schema}.sqlite", tmp_path / "ledger.sqlite")
    assert print_table(tmp_path, form) == (ASSETS / f"table.{FORMATS[form]}").read_text()


def test_tables_of_the_same_ledger_written_today_are_those_of_before(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger.sqlite")
    assert print_table(tmp_path, "csv") == (ASSETS / "table.csv").read_text()


def write() -> None:
    """Write the pins of ids and tables anew; the ledger stays, since it is what older code has written."""
    (ASSETS / "trial_ids.json").write_text(json.dumps(shipped_ids(), indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ASSETS / "ledger_schema_2.sqlite", Path(folder) / "ledger.sqlite")
        for form, ending in FORMATS.items():
            (ASSETS / f"table.{ending}").write_text(print_table(Path(folder), form))
