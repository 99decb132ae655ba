"""Results, checkpoints and data that came from strangers: nothing in them is executed, and nothing else is touched.

What other tests show already, and this file does not repeat:

* sweep files that construct objects, names that leave the results folder, markup: ``test_sweep_files.py``;
* pickles in place of a training state: ``tests/orchestrator/test_resume.py``; of a model's checkpoint:
  ``tests/specvit/test_checkpoints.py``; of depth maps, decoded caches, entries of WebDataset shards and files of
  Hugging Face data sets: ``test_depth.py``, ``test_decoded_cache.py``, ``test_webdataset.py`` and
  ``test_hugging_face*.py`` in ``tests/specvit/data``;
* images with too many pixels, names that leave a data set's folder: ``test_image_files.py``, ``test_coco.py``,
  ``test_nyuv2.py``, ``test_presets.py``, ``test_paths.py`` there;
* what a command's file may hold: ``tests/orchestrator/storage/test_command_inbox.py``;
  a mirror's pointer that names other files: ``tests/orchestrator/storage/test_ledger_mirror.py``; files for clusters:
  ``tests/orchestrator/execution/ray_cluster/test_cluster_files.py``;
* the dashboard's address, asked of a running Ray: ``tests/orchestrator/execution/ray_cluster/test_executor.py``.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from orchestrator.cli.app import main
from orchestrator.ledger.checksums import create_checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.storage.folder_lock import LockedError, hold_lock
from orchestrator.storage.ledger_mirror import Pointer
from orchestrator.storage.remote_folder import RemoteError
from orchestrator.storage.remote_lock import Holder
from orchestrator.trials.events import Failed, Logged
from specvit.data import DATA_SOURCES
from specvit.data.reading.tar_shards import index_shards
from specvit.errors import DataError

REPOSITORY = Path(__file__).parents[2]
HANGS_AFTER_S = 600
"""What waits for a pipe or a lock does so for ever; any command takes seconds, on a busy machine a minute."""
SWEEP = {
    "question": "Is it safe?",
    "data": {"source": "scenes", "num_train": 16, "num_val": 8},
    "objective": {"recipe": "dinov2_cpu", "steps": 2, "batch_size": 4, "num_locals": 0},
    "probes": {"knn": {}},
    "rungs": {"count": 1, "num_images": 8},
    "seeds": 1,
    "ablate": {"components": ["none"]},
    "floors": [],
    "keep_weights": True,
}
"""One trial of a second."""

HOSTILE = "[red]x[/red] \x1b[31m\x1b]0;title\x07 \x9b2J | `touch mark` <script>f()</script> \u202e $\\frac{$ [a](b)"
LOOKS: tuple[tuple[str, ...], ...] = (
    *(("status",), ("table",), ("logs",), ("logs", "@"), ("events",), ("curves",)),
    *(("table", "--format", form) for form in ("md", "csv", "json")),
)
"""Commands that look at results; ``@`` stands for the trial's id."""

Command = Callable[..., subprocess.CompletedProcess[str]]


class HungError(BaseException):
    """Signal a command that does not end; no handler of ``Exception`` may catch it."""


class Exploit:
    """Make a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Interrupt what waits for ever."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise HungError(f"no end after {HANGS_AFTER_S} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(HANGS_AFTER_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, in ``tmp_path``, and make sure that it ends as a command should."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["specsweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        ended = subprocess.CompletedProcess(arguments, end.value.code, *capsys.readouterr())
        assert ended.returncode in (0, 2, 3, 4), ended.stderr
        assert "Traceback" not in ended.stderr
        if ended.returncode:
            assert ended.stderr.startswith(("specsweep: ", "tiny.yaml: ")), ended.stderr
            assert ended.stderr.count("\n") == 1
        return ended

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the sweep once, by the real command; return the folder that holds its file and ``results``."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(json.dumps(SWEEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["specsweep", "run", "tiny.yaml", "--executor", "local"])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the sweep's results, as a stranger may have sent them; its file lies beside ``results``."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results" / "tiny"


@pytest.fixture
def unrun(results: Path) -> Path:
    """Return the folder without its ledger, so that a run has the trial to do."""
    (results / "ledger.sqlite").unlink()
    return results


@pytest.fixture
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of the user's, elsewhere, of which nothing may change."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("thesis.tex", "notes.json", f"{'a' * 64}.safetensors"):
        (folder / name).write_text(f"{name}: years of work")

    def content() -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")}

    before = content()
    yield folder
    assert content() == before


def run_sweep(command: Command) -> subprocess.CompletedProcess[str]:
    return command("run", "tiny.yaml", "--executor", "local")


def look(command: Command, results: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run every command that looks at results."""
    # Not as any of our connections: this one looks at nothing beside the file.
    address = f"{(results / 'ledger.sqlite').as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            (trial_id,) = connection.execute("SELECT trial_id FROM trials").fetchone()
    except (sqlite3.Error, TypeError):
        trial_id = "none"
    asked = [(look[0], results, *(str(trial_id) if part == "@" else part for part in look[1:])) for look in LOOKS]
    asked += [("export", "optuna", results, f"{os.urandom(4).hex()}.db"), ("plan", "tiny.yaml")]
    return [command(*arguments) for arguments in asked]


def forge(path: Path, *statements: str, sealed: bool = True) -> None:
    """Change a ledger as a stranger can, who knows how checksums are made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
        if sealed:
            connection.execute("DELETE FROM checksums")
            create_checksums(connection)


# The lock


@pytest.mark.parametrize("is_there", [True, False], ids=["a link", "a link to nothing"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_is_not_emptied(
    is_there: bool, command: Command, results: Path, victims: Path
) -> None:
    (results / "lock").unlink()
    (results / "lock").symlink_to(victims / ("thesis.tex" if is_there else "new.txt"))
    ended = run_sweep(command)
    assert (ended.returncode, "lock: must not be a link" in ended.stderr) == (3, True)
    look(command, results)


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_a_lock_that_is_no_file_is_refused_and_nobody_waits_for_it(kind: str, command: Command, results: Path) -> None:
    (results / "lock").unlink()
    match kind:
        case "pipe":
            os.mkfifo(results / "lock")
        case "folder":
            (results / "lock").mkdir()
        case _:
            os.mknod(results / "lock", 0o140644)
    assert run_sweep(command).returncode == 3
    assert command("status", results).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        json.dumps({"pid": HOSTILE, "host": f"a\nspecsweep: all is well\n{HOSTILE}", "since": "x" * 1_000_000}),
        json.dumps({"pid": [1], "host": "a\nspecsweep: all is well", "since": {"x": HOSTILE}}),
        "\x00\xff",
    ],
    ids=["deep", "long", "other types", "bytes"],
)
def test_what_a_lock_says_of_its_holder_is_one_harmless_message(text: str, command: Command, results: Path) -> None:
    with hold_lock(results):
        (results / "lock").write_text(text)
        ended = run_sweep(command)
    assert ended.returncode == 3
    assert not set("\x1b\x9b\u202e") & set(ended.stderr)
    assert len(ended.stderr) < 1000


# Folders and files that a run writes to and deletes from


@pytest.mark.parametrize("name", ["commands", "checkpoints", "weights"])
def test_a_folder_of_results_that_is_a_link_is_refused_and_what_lies_behind_it_stays(
    name: str, command: Command, results: Path, victims: Path
) -> None:
    shutil.rmtree(results / name, ignore_errors=True)
    (results / name).symlink_to(victims)
    ended = run_sweep(command)
    assert (ended.returncode, f"{name}: must not be a link" in ended.stderr) == (2, True)
    look(command, results)


def test_a_command_is_not_sent_through_a_link(command: Command, results: Path, victims: Path) -> None:
    (results / "commands").symlink_to(victims)
    with hold_lock(results):
        assert command("cancel", results).returncode == 2


def test_commands_that_are_links_pipes_or_huge_are_not_obeyed_and_harm_nothing(
    command: Command, unrun: Path, victims: Path
) -> None:
    (unrun / "commands").mkdir()
    (unrun / "commands" / "1.json").symlink_to(victims / "notes.json")
    (unrun / "commands" / "2.json").symlink_to("/dev/zero")
    os.mkfifo(unrun / "commands" / "3.json")
    with (unrun / "commands" / "4.json").open("wb") as file:
        file.truncate(1 << 36)  # takes no room on the disk, and all of the memory
    assert run_sweep(command).returncode == 0


def test_files_of_results_that_are_links_are_replaced_not_followed(
    command: Command, unrun: Path, victims: Path
) -> None:
    names = ("table.md", "table.csv", "curves.csv", "curves.png", "sweep.yaml", "environment.json")
    for name in names:
        (unrun / name).unlink()
        (unrun / name).symlink_to(victims / "thesis.tex")
        # The name under which it is written first can be foreseen too.
        (unrun / f".{name}.{os.getpid()}").symlink_to(victims / "thesis.tex")
    assert run_sweep(command).returncode == 0
    assert not any((unrun / name).is_symlink() for name in names)
    assert json.loads((unrun / "environment.json").read_text())["command"].startswith("specsweep run")


def test_diagnostics_that_are_a_link_are_replaced_not_followed(
    command: Command, results: Path, victims: Path
) -> None:
    trial = "(SELECT trial_id FROM trials)"
    forge(results / "ledger.sqlite", f"INSERT INTO diagnostics VALUES ({trial}, 1, 0, 'norm1.in', 'cls_norm', 1.5)")
    (results / "diagnostics.csv").symlink_to(victims / "thesis.tex")
    assert command("curves", results).returncode == 0
    assert (results / "diagnostics.csv").read_text().endswith(",0,norm1.in,cls_norm,1.5\n")


def state_file(unrun: Path) -> Path:
    (weights,) = (unrun / "weights").iterdir()
    path = unrun / "checkpoints" / f"{weights.name.split('.')[0]}.safetensors"
    path.parent.mkdir()
    return path


def _pickled(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Exploit(mark)))


def _huge_header(path: Path, _: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _deep_header(path: Path, _: Path) -> None:
    header = b'{"__metadata__":{"specvit_training_state":"' + b"[" * 200_000 + b'"}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _huge_tensor(path: Path, _: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_pickled, _huge_header, _deep_header, _huge_tensor, _pipe, _endless])
def test_a_training_state_that_is_no_such_file_is_not_used_and_training_begins_anew(
    make: Callable[[Path, Path], None], command: Command, unrun: Path, made: Path, tmp_path: Path
) -> None:
    make(state_file(unrun), tmp_path / "mark")
    assert run_sweep(command).returncode == 0
    with Ledger.read(unrun / "ledger.sqlite") as ledger, Ledger.read(made / "results/tiny/ledger.sqlite") as whole:
        assert ledger.records()[0].metrics == whole.records()[0].metrics
        assert ledger.records()[0].num_attempts == 1
    assert not (tmp_path / "mark").exists()


def test_a_training_state_that_is_a_link_is_replaced_and_deleted_not_what_it_leads_to(
    command: Command, unrun: Path, victims: Path
) -> None:
    path = state_file(unrun)
    path.symlink_to(victims / "thesis.tex")
    assert run_sweep(command).returncode == 0
    assert not path.exists()


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.bin", "evil.safetensors"])
def test_a_model_checkpoint_that_is_a_pickle_is_refused_and_not_executed(
    name: str, command: Command, unrun: Path, tmp_path: Path
) -> None:
    _pickled(tmp_path / name, tmp_path / "mark")
    pickle.loads((tmp_path / name).read_bytes())  # noqa: S301
    (tmp_path / "mark").unlink()  # it would be executed, if it were unpickled
    asked = [(verb, "tiny.yaml", "--set", f"model.checkpoint={name}") for verb in ("plan", "run")]
    codes = [command(*arguments).returncode for arguments in (*asked, ("diagnose", name, "--data", "scenes"))]
    assert codes == [2, 2, 2]
    assert not (tmp_path / "mark").exists()


# The ledger


@pytest.mark.parametrize("kind", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("target", ["thesis.tex", "new.sqlite"])
def test_a_ledger_or_a_file_beside_it_that_is_a_link_is_not_written_to(
    kind: str, target: str, command: Command, results: Path, victims: Path
) -> None:
    path = results / f"ledger.sqlite{kind}"
    path.unlink(missing_ok=True)
    path.symlink_to(victims / target)
    assert run_sweep(command).returncode == 2
    for ended in look(command, results):
        assert ended.returncode == 2 or ended.args[0] == "plan"


@pytest.mark.parametrize("kind", ["", "-wal", "-shm", "-journal"])
def test_a_ledger_or_a_file_beside_it_that_is_a_pipe_is_refused_and_nobody_waits_for_it(
    kind: str, command: Command, results: Path
) -> None:
    path = results / f"ledger.sqlite{kind}"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert run_sweep(command).returncode == 2
    assert command("status", results).returncode == 2


def hot_journal(super_journal: Path) -> bytes:
    """Make a rollback journal that is to be played back, and names a file to be deleted after that.

    Source: SQLite's file format, section 3, and ``pager.c``: readSuperJournal, pager_delsuper.
    """
    name = str(super_journal).encode()
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 0, 7, 3, 512, 4096)
    lock_page = struct.pack(">I", (1 << 30) // 4096 + 1)
    trailer = name + struct.pack(">2I", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    return header.ljust(512, b"\0") + lock_page + trailer


def test_sqlite_deletes_the_file_that_a_journal_names(tmp_path: Path) -> None:
    """What the next test's journal would do, where nobody looks out for it."""
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        connection.execute("CREATE TABLE x (y)")
    (tmp_path / "victim").write_text("years of work")
    (tmp_path / "x.sqlite-journal").write_bytes(hot_journal(tmp_path / "victim"))
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        connection.execute("SELECT * FROM sqlite_schema").fetchall()
    assert not (tmp_path / "victim").exists()


def test_a_rollback_journal_beside_a_ledger_is_not_played_back(
    command: Command, results: Path, victims: Path
) -> None:
    (results / "ledger.sqlite-journal").write_bytes(hot_journal(victims / "thesis.tex"))
    assert "-journal: is no file of a ledger" in run_sweep(command).stderr
    assert all(ended.returncode == 2 for ended in look(command, results) if ended.args[0] != "plan")


ENDLESS = "WITH RECURSIVE e(x) AS (SELECT 1 UNION ALL SELECT x FROM e) SELECT x FROM e"
SQL = {
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE attempts SET metrics = '{\"knn_top1\": 99}'; END",),
    "trigger that loads a library": (
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT load_extension('./evil.so'); END",
    ),
    "view in the place of a table": ("DROP TABLE skipped", f"CREATE VIEW skipped AS {ENDLESS}"),
    "endless view in the place of ours": ("DROP VIEW newest_attempts", f"CREATE VIEW newest_attempts AS {ENDLESS}"),
    "generated column": ("ALTER TABLE runs ADD COLUMN bomb AS (zeroblob(1000000000))",),
    "virtual table": ("DROP TABLE skipped", "CREATE VIRTUAL TABLE skipped USING fts5(trial_id, reason)"),
}


@pytest.mark.parametrize("kind", SQL)
def test_sql_in_a_ledger_is_refused(kind: str, command: Command, results: Path, tmp_path: Path) -> None:
    # The checksum of a table that never ends cannot be made; the table is refused before checksums are looked at.
    forge(results / "ledger.sqlite", *SQL[kind], sealed=kind != "view in the place of a table")
    before = (results / "ledger.sqlite").read_bytes()
    codes = {ended.returncode for ended in (*look(command, results), run_sweep(command)) if ended.args[0] != "plan"}
    assert codes == {2}
    assert (results / "ledger.sqlite").read_bytes() == before


def test_functions_that_could_do_harm_are_not_to_be_called_from_a_file(results: Path) -> None:
    forge(results / "ledger.sqlite", "CREATE VIEW mine AS SELECT load_extension('./evil.so')")
    for opened in (Ledger.read, Ledger.open):
        with opened(results / "ledger.sqlite") as ledger, ledger.snapshot() as connection:
            assert connection.execute("PRAGMA trusted_schema").fetchone()[0] == 0
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("SELECT * FROM mine")


def test_a_ledger_of_schema_1_that_is_made_of_views_is_refused(command: Command, results: Path) -> None:
    forge(
        results / "ledger.sqlite", "DROP TABLE checksums", "DROP TABLE trials", f"CREATE VIEW trials AS {ENDLESS}",
        "PRAGMA user_version = 1", sealed=False,
    )
    assert {ended.returncode for ended in look(command, results) if ended.args[0] != "plan"} == {2}
    assert run_sweep(command).returncode == 2


VALUES = {
    "trials": {
        "label": ["x'00ff'", "NULL"], "seed": ["'text'"], "position": ["'first'"], "role": ["'[red]king'"],
        "num_parameters": ["'many'"], "extra_parameters_percent": ["9e999", "'x'"],
        "config": ["'{'", "'[]'", "'{\"rungs\": 3}'", "'{\"rungs\": {\"probes\": [[1]]}}'", "DEEP"],
    },
    "attempts": {
        "metrics": ["'[1]'", "'{\"a\": \"50\"}'", "'{\"a\": {}}'", "'{\"a\": true}'", "DEEP", "BIG"],
        "share": ["'{\"cpus\": 1e999}'", "'3'", "DEEP"], "submitted_at": ["'yesterday'", "'2026-02-31T00:00:00+00:00'"],
        "ended_at": ["'\x1b[31m'"], "seconds": ["'x'", "9e999"], "steps": ["'x'", "1e99"], "cause": ["'sabotage'"],
        "attempt": ["'first'"], "state": ["'on fire'"], "gpus": ["'x'"], "held_s": ["9e999"],
    },
    "reports": {"metrics": ["'{}}'", "'{\"a\": []}'", "BIG"], "step": ["'x'"], "reported_at": ["x'00'"]},
    "sweep": {"metrics": ["'{}'", "'[1]'", "DEEP"], "seeds": ["'[\"x\"]'", "'[true]'"], "name": ["x'ff'"]},
    "runs": {"provenance": ["'{}'", "'[]'", "'{\"argv\": 1}'", "DEEP"]},
}
BOMBS = {"DEEP": "'" + "[" * 100_000 + "'", "BIG": "'{\"knn_top1\": " + "9" * 5000 + "}'"}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [(table, column, value) for table in VALUES for column in VALUES[table] for value in VALUES[table][column]],
)
def test_a_value_that_no_column_is_for_is_refused(
    table: str, column: str, value: str, command: Command, results: Path
) -> None:
    change = f"UPDATE {table} SET {column} = {BOMBS.get(value, value)}"
    with closing(sqlite3.connect(results / "ledger.sqlite")) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    loose = _with_sql(table, sql.replace(" NOT NULL", ""), 1000)
    # In the end the table's SQL is ours again, which alone is accepted.
    bring_back = _with_sql(table, sql, 1001)
    forge(results / "ledger.sqlite", "PRAGMA ignore_check_constraints = ON", *loose, change, *bring_back)
    looks: tuple[tuple[str | Path, ...], ...] = (("export", "optuna", results, "x.db"),)
    if column != "config":  # which nothing else reads
        looks += (("events", results), ("table", results), ("run", "tiny.yaml", "--executor", "local"))
    if column != "config" and (table, column) != ("reports", "metrics"):
        looks += (("status", results),)
    for arguments in looks:
        ended = command(*arguments)
        assert ended.returncode == 2
        assert "are not those of schema" not in ended.stderr  # it is refused for the value
        assert "\x1b" not in ended.stderr


def _with_sql(table: str, sql: str, version: int) -> tuple[str, ...]:
    """Give a table another SQL, as someone who writes a file can."""
    quoted = sql.replace("'", "''")
    return (
        f"UPDATE sqlite_schema SET sql = '{quoted}' WHERE name = '{table}'",
        f"PRAGMA schema_version = {version}",
    )


# Labels and other texts


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


def test_an_error_that_quotes_a_text_is_one_harmless_message(labelled: Path, command: Command) -> None:
    for arguments in (("prune", labelled, "no such arm"), ("run", "tiny.yaml", "--executor", "local")):
        ended = command(*arguments)
        assert ended.returncode == 2
        assert not set("\x1b\x9b\x07\u202e") & set(ended.stderr)


def test_a_note_of_a_view_that_is_a_pipe_is_not_waited_for(results: Path, command: Command) -> None:
    os.mkfifo(results / "viewed.json")
    assert command("status", results).returncode == 0


# Results at URLs


@pytest.mark.parametrize(
    "values",
    [
        {"generation": "1", "sha256": "0" * 64},
        {"generation": True, "sha256": "0" * 64},
        {"generation": 1, "sha256": ["0" * 64]},
        {"generation": 1, "sha256": "0" * 61 + "/.."},
        "[" * 100_000,
    ],
    ids=["text", "bool", "list", "path", "deep"],
)
def test_a_pointer_that_names_no_snapshot_is_refused(values: dict[str, Any] | str) -> None:
    text = values if isinstance(values, str) else json.dumps({"host": HOSTILE, "pid": 1, "at": ""} | values)
    with pytest.raises(RemoteError, match="does not say where the ledger is"):
        Pointer.parse(text.encode(), place="store")


@pytest.mark.parametrize(
    "change",
    [{"pid": HOSTILE}, {"host": HOSTILE}, {"since": "a\nb"}, {"period_s": 10**400}, {"period_s": "nan"}, {"beat": []}],
    ids=str,
)
def test_a_lock_at_a_url_that_says_what_no_driver_says_names_nobody(change: dict[str, Any]) -> None:
    values = {"token": "t", "host": "h", "pid": 1, "since": "s"}
    assert Holder.parse(json.dumps(values).encode()) is not None
    assert Holder.parse(json.dumps(values | change).encode()) is None
    assert Holder.parse(b"[" * 100_000) is None


# Data


def test_members_of_a_shard_that_lead_elsewhere_are_passed_over_and_nothing_is_unpacked(
    tmp_path: Path, victims: Path
) -> None:
    shard = tmp_path / "train-0.tar"
    with tarfile.open(shard, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, str(victims / "thesis.tex")
            tar.addfile(member)
        for name in (f"{victims}/thesis.png", "../../escaped.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    found = index_shards([shard], kinds=frozenset({"png"}), what="train")
    # Members are bytes at a place of the shard, under whatever name.
    assert [sample.read("png") for sample in found] == [b"evil"] * 2
    assert list(tmp_path.iterdir()) == [shard]


@pytest.mark.parametrize("make", [_pipe, _endless])
def test_an_image_or_a_depth_map_that_is_no_file_is_refused_and_nobody_waits_for_it(
    make: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    for source, folder, name in (("image_folder", "a", "y.png"), ("depth", "depth", "x.npy")):
        root = tmp_path / source
        for split in ("train", "val"):
            places = [root / split / "a"] if source == "image_folder" else [root / "images" / split]
            for place in places:
                place.mkdir(parents=True)
                Image.new("RGB", (8, 8), "red" if split == "val" else "blue").save(place / "x.png")
        bad = root / "train" / folder / name if source == "image_folder" else root / folder / "train" / name
        bad.parent.mkdir(parents=True, exist_ok=True)
        make(bad, tmp_path)
        if source == "depth":
            (root / folder / "val").mkdir()
            Image.new("I;16", (8, 8), 1000).save(root / folder / "val" / "x.png")
        with pytest.raises(DataError, match=f"{name}': Not a regular file"):
            DATA_SOURCES[source](root=str(root), image_size=32).load()


# Ray


@pytest.mark.parametrize("address", [None, "ray.example:6379"])
def test_our_own_dashboard_is_told_to_listen_to_this_machine_alone_and_the_token_stays(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.execution.ray_cluster import connection

    given: dict[str, Any] = {}

    def init(**options: Any) -> SimpleNamespace:
        given.update(options, mode=os.environ.get("RAY_AUTH_MODE"))
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr(connection.ray, "init", init)
    monkeypatch.setattr(connection, "check_reachable", lambda _: None)
    for mode in (None, "token"):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        connection.connect(address)
        assert given["mode"] in (None, "token")
        assert os.environ.get("RAY_AUTH_MODE") == mode
        # A cluster that is up already has settled where its dashboard listens.
        assert given.get("dashboard_host") == ("127.0.0.1" if address is None else None)


# The sources

SOURCES = [path for package in ("orchestrator", "specvit") for path in sorted((REPOSITORY / package).rglob("*.py"))]
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads"),
    *("dill.load", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "shelve.open", "pd.read_pickle"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "jsonpickle.decode", "torch.hub.load", "tarfile.extractall"),
}


def _calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {str(word.arg): ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_source_calls_what_could_execute_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, words in _calls(ast.parse(text)):
        assert name not in FORBIDDEN_CALLS
        assert not name.endswith((".extractall", ".enable_load_extension", ".load_extension"))
        if name == "torch.load":
            assert words["weights_only"] == "True"
        if name in ("np.load", "np.lib.format.read_array"):
            assert words["allow_pickle"] == "False"
        assert words.get("shell", "False") == "False"
        assert words.get("allow_pickle", "False") == "False"
        assert words.get("trust_remote_code", "False") == "False"
    assert "0.0.0.0" not in text


def test_no_source_sets_rays_authentication() -> None:
    """It is looked at, and taken back to what it was, in one place."""
    found = [
        ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.Subscript) and "'RAY_AUTH_MODE'" in ast.unparse(node)
    ]
    assert sorted(found) == ["os.environ.get('RAY_AUTH_MODE')", "os.environ.pop('RAY_AUTH_MODE', None)"]


def test_a_lock_that_another_process_holds_is_a_locked_error(results: Path) -> None:
    with hold_lock(results), pytest.raises(LockedError, match="is in use by process"):
        hold_lock(results).__enter__()
