"""What plan, status, table, shares and schema show, and of which sweep."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from orchestrator.cli.app import main
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.trials.resources import ResourceFloor

from ....measured_columns import MEASURED
from .commands import Ended, FinishedSweep, in_a_process


def test_characters_that_the_terminal_lacks_are_printed_as_their_codes(
    write_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "argv", ["specsweep", "plan", str(write_sweep(tmp_path, question="é or 画?"))])
    with redirect_stdout(terminal), pytest.raises(SystemExit) as end:
        main()
    terminal.flush()
    assert end.value.code == 0
    assert b"\\xe9 or \\u753b?" in terminal.buffer.getvalue()  # type: ignore[attr-defined]


def test_an_override_takes_the_place_of_the_file(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    planned = json.loads(cli("plan", "tiny.yaml", "--json", "--set", "seeds=[7]", "--set", "floors=[]").out)
    assert planned["seeds"] == [7]
    assert [arm["arm"] for arm in planned["arms"]] == ["none", "norm@all"]


def test_a_plan_of_a_finished_sweep_has_nothing_to_run(finished: FinishedSweep, cli: Callable[..., Ended]) -> None:
    ended = cli("plan", str(finished.file), "--results", str(finished.results), "--slots", "4")
    assert ended.code == 0
    assert "8 trials, 0 to run" in ended.out
    assert "nothing to run" in ended.out
    planned = json.loads(
        cli("plan", str(finished.file), "--results", str(finished.results), "--slots", "4", "--json").out
    )
    assert (planned["pending"], planned["slots"], planned["forecast_seconds"]) == (0, 4, 0.0)


@pytest.mark.parametrize("by", ["file", "name", "folder"])
def test_a_sweep_is_found_by_its_file_its_name_and_its_folder(
    by: str, finished: FinishedSweep, cli: Callable[..., Ended]
) -> None:
    target = {"file": str(finished.file), "name": "tiny", "folder": str(finished.results / "tiny")}[by]
    ended = cli("status", target, "--results", str(finished.results))
    assert ended.code == 0
    header, counts = ended.out.splitlines()[2:4]
    # Where nothing is to be counted, the cell is empty: 8 done of 8 trials.
    assert header.split() == ["group", "waiting", "running", "done", "pruned", "failed", "trials"]
    assert counts.split() == ["all", "8", "8"]


def test_without_a_ledger_the_tables_are_made_of_the_trials(
    finished: FinishedSweep, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished.results / "tiny", tmp_path / "results" / "studies" / "tiny")
    with_ledger = [cli("table", str(folder), "--format", form).out for form in ("text", "md", "csv", "json")]
    named = [cli("table", f"{folder}/trials.csv", "--format", form).out for form in ("text", "md", "csv", "json")]
    (folder / "ledger.sqlite").unlink()
    found = [cli("table", "studies/tiny", "--format", form).out for form in ("text", "md", "csv", "json")]
    assert with_ledger == named == found
    (folder / "sweep.json").unlink()
    ended = cli("table", "results/studies/tiny")
    message = "results/studies/tiny/sweep.json: is missing; without a ledger, tables are made of it"
    assert (ended.code, ended.err) == (2, f"specsweep: {message}\n")


def test_the_table_comes_in_every_format(finished: FinishedSweep, cli: Callable[..., Ended]) -> None:
    def table(*options: str) -> str:
        ended = cli("table", "tiny", "--results", str(finished.results), *options)
        assert (ended.code, ended.err) == (0, "")
        assert "\x1b" not in ended.out
        return ended.out

    csv = pd.read_csv(io.StringIO(table("--format", "csv"))).drop(columns=MEASURED)
    assert_frame_equal(csv, finished.table(), check_exact=True)
    assert table("--format", "md").strip() == (finished.results / "tiny" / "table.md").read_text().strip()
    assert "norm@all" in json.dumps(json.loads(table("--format", "json")))
    assert table("--format", "text") == table()
    assert "norm@all" in table()
    assert r"\texttt{norm@all}" in table("--format", "latex")
    assert "<code>norm@all</code>" in table("--format", "html", "--sort", "arm")
    assert len(table("--format", "csv", "--arms", "norm*").splitlines()) == 3  # a head, the baseline, the arm
    ended = cli("table", "tiny", "--results", str(finished.results), "--arms", "norn@all")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("specsweep: --arms: no arm 'norn@all' (did you mean 'norm@all'?)")


def test_the_schema_is_json(cli: Callable[..., Ended]) -> None:
    ended = cli("schema")
    assert ended.code == 0
    schema = json.loads(ended.out)
    assert {"objective", "probes", "seeds", "ablate", "vary"} <= schema["properties"].keys()


def test_the_version_is_printed_without_importing_anything_heavy(tmp_path: Path) -> None:
    program = """
import atexit, sys
heavy = ("torch", "ray", "optuna", "pandas", "matplotlib", "timm")
atexit.register(lambda: print([name for name in heavy if name in sys.modules]))
from orchestrator.cli.app import main
main()
"""
    ended = in_a_process(tmp_path, sys.executable, "-c", program, "--version")
    assert (ended.code, ended.out, ended.err) == (0, "specsweep 0.1.0\n[]\n", "")


def test_a_file_that_has_changed_or_is_broken_still_leads_to_its_results(
    cli: Callable[..., Ended], finished: FinishedSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    file = tmp_path / "tiny.yaml"
    text = finished.file.read_text()
    file.write_text(text)
    assert cli("table", "tiny.yaml").err == ""
    for changed in (text + "\n", "objective: ["):
        file.write_text(changed)
        for command in ("table", "status"):
            ended = cli(command, "tiny.yaml")
            assert (ended.code, ended.err.count("\n")) == (0, 1)
            assert ended.err.startswith("specsweep: results/tiny: was run with another text than tiny.yaml has now")


def test_what_was_learned_of_shares_is_shown_and_forgotten_on_demand_while_no_run_holds_the_folder(
    cli: Callable[..., Ended], finished: FinishedSweep, tmp_path: Path
) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    shutil.copy(finished.file, tmp_path)
    folder = tmp_path / "results" / "tiny"
    assert cli("shares", "tiny").out == "no trial has been given more than the file says\n"
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        ledger.write_resource_floor("nano", ResourceFloor(0.5, 0.0, 4))
    learned = "nano: at least 0.5 GPUs a process, micro-batches of at most 4, since memory ran out\n"
    assert cli("shares", "tiny").out == learned
    assert cli("shares", "tiny.yaml").out == f"nano: 1 core, by the file\n{learned}"
    with hold_lock(folder):
        assert cli("shares", "tiny", "--reset").code == 3
    ended = cli("shares", "tiny", "--reset")
    assert (ended.code, ended.out.splitlines()[0]) == (0, learned.rstrip())
    assert cli("shares", "tiny").out == "no trial has been given more than the file says\n"
    assert cli("shares", "s3://bucket/tiny", "--reset").code == 2
