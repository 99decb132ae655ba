"""Hostile texts of a ledger, wherever they are shown."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Failed, Logged

from ...browser import CHROMIUM, open_browser
from .hostile_results import HOSTILE, Command, forge, look


@pytest.fixture
def labelled(results: Path) -> Path:
    """Write hostile text wherever a ledger holds text."""
    columns = {
        "trials": ("label", "arm", "group_name"), "sweep": ("question", "name"),
        "attempts": ("worker", "error", "traceback"), "logs": ("level", "text"),
    }
    path = results / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        trial_id = ledger.records()[0].trial.trial_id
    forge(path, "UPDATE attempts SET state = 'running', metrics = '{}'")
    with Ledger.open(path) as ledger:
        ledger.record(Logged(trial_id, 1, "WARNING", "text"))
        ledger.record(Failed(trial_id, 1, "error", "traceback", 1.0))
    text = HOSTILE.replace("'", "''")
    forge(path, *(f"UPDATE {table} SET {name} = '{text}'" for table in columns for name in columns[table]))
    return results


def test_texts_of_a_ledger_are_harmless_wherever_they_are_shown(labelled: Path, command: Command) -> None:
    shown = look(command, labelled)
    assert [ended.returncode for ended in shown] == [0] * len(shown)
    for ended in shown:
        assert not set("\x1b\x9b\x07\u202e") & set(ended.stderr)
        if ended.args[-1] != "csv" and ended.args[0] != "plan":
            assert not set("\x1b\x07") & set(ended.stdout), ended.args
        if ended.args[0] in ("status", "logs", "table") and "--format" not in ended.args:
            assert "[red]x[/red]" in ended.stdout
            assert not set("\x9b\u202e") & set(ended.stdout)
        if ended.args[0] == "events":
            labels = [json.loads(line)["label"] for line in ended.stdout.splitlines()]
            assert HOSTILE in labels
        if ended.args[-1] == "json":
            assert json.loads(ended.stdout)["tables"][0]["group"] == HOSTILE
    assert not Path("mark").exists()


def test_texts_in_markdown_are_neither_html_nor_cells_nor_links(labelled: Path, command: Command) -> None:
    text = command("table", labelled, "--format", "md").stdout
    prose = [line for line in text.splitlines() if line.startswith(("# ", "## ", r"\[red"))]
    assert len(prose) == 3  # name, question, group
    for line in prose:
        assert "<" not in line
        assert r"\[a\](b)" in line
        assert r"\`touch" in line
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
    assert all(line.count("`") % 2 == 0 for line in rows)


def test_a_csv_is_data_for_programs_and_harmless_on_a_terminal(
    labelled: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HOSTILE in command("table", labelled, "--format", "csv").stdout
    monkeypatch.setattr("orchestrator.cli.console.sys.stdout.isatty", lambda: True)
    assert not set("\x1b\x9b\x07\u202e") & set(command("table", labelled, "--format", "csv").stdout)


def test_a_report_is_harmless_text_to_whatever_shows_it(labelled: Path, command: Command) -> None:
    assert command("report", labelled).returncode == 0
    page = (labelled / "report.html").read_text()
    assert "&lt;script&gt;f()&lt;/script&gt;" in page
    assert "<script" not in page
    figures = [path.read_text() for path in (labelled / "figures").glob("*.svg")]
    assert figures
    for text in (page, *figures):
        assert not set("\x1b\x9b\x07\u202e\0") & set(text)
    for text in figures:
        ElementTree.fromstring(text)


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_report_of_a_strangers_ledger_runs_nothing_in_a_browser(
    labelled: Path, command: Command, tmp_path: Path
) -> None:
    attacks = ("<script>document.title=1</script>", '"><img src=x onerror=document.title=1>', "</style><svg onload=1>")
    for number, text in enumerate(attacks):
        columns = (("trials", "arm"), ("trials", "label"), ("sweep", "question"))
        sql = text.replace("'", "''")
        forge(labelled / "ledger.sqlite", *(f"UPDATE {table} SET {name} = '{sql}'" for table, name in columns))
        assert command("report", labelled, "--no-figures").returncode == 0
        with open_browser(tmp_path / str(number)) as browser:
            seen = browser.look_at(labelled / "report.html")
        assert (seen.errors, len(seen.requests)) == ((), 1)
        assert seen.title.startswith("[red]x[/red]")
        assert text in seen.text


def test_an_error_that_quotes_a_text_is_one_harmless_message(labelled: Path, command: Command) -> None:
    for arguments in (("prune", labelled, "no such arm"), ("run", "tiny.yaml", "--executor", "local")):
        ended = command(*arguments)
        assert ended.returncode == 2
        assert not set("\x1b\x9b\x07\u202e") & set(ended.stderr)


def test_a_sweep_that_is_named_like_a_path_writes_no_file_elsewhere(
    command: Command, results: Path, tmp_path: Path
) -> None:
    forge(results / "ledger.sqlite", "UPDATE sweep SET name = '../escaped'")
    for arguments in (("bundle", results), ("publish", results)):
        ended = command(*arguments)
        assert ended.returncode == 2
        assert "its sweep is named '../escaped', which is no name of a file" in ended.stderr
    assert not list(tmp_path.parent.glob("escaped*"))
    assert not list(tmp_path.glob("**/escaped*"))
