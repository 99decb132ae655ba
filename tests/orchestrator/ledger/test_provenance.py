from __future__ import annotations

import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.ledger.provenance import collect_provenance, find_changes, find_commit


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(root), *identity, *arguments]
    done = subprocess.run(command, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    for package in ("orchestrator", "specvit"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_provenance_holds_this_process_and_its_libraries() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    provenance = collect_provenance()
    assert before <= datetime.fromisoformat(provenance.started_at) <= datetime.now(UTC)
    assert provenance.host == socket.gethostname()
    assert provenance.argv == tuple(sys.argv)
    assert provenance.versions["python"] == platform.python_version()
    assert provenance.versions["torch"] == metadata.version("torch")
    assert provenance.versions["optuna"] == metadata.version("optuna")
    assert provenance.cpu
    assert provenance.num_cores >= 1


def test_provenance_imports_none_of_the_libraries_it_names() -> None:
    code = (
        "import sys; from orchestrator.ledger.provenance import collect_provenance; collect_provenance();"
        "print(sorted({'torch', 'ray', 'optuna', 'timm', 'numpy', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_provenance_without_git_and_gpu_tools_leaves_them_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    provenance = collect_provenance()
    assert (provenance.git_sha, provenance.git_dirty, provenance.gpus) == (None, None, ())


def test_commit_of_a_clean_checkout_is_its_head(checkout: Path) -> None:
    assert find_commit(checkout) == (_git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("changed", ["specvit/__init__.py", "specvit/new_probe.py"])
def test_commit_with_changed_or_new_code_is_dirty(checkout: Path, changed: str) -> None:
    (checkout / changed).write_text("x = 1\n")
    assert find_commit(checkout) == (_git(checkout, "rev-parse", "HEAD"), True)


def test_commit_with_new_files_elsewhere_is_clean(checkout: Path) -> None:
    (checkout / "results.txt").write_text("")
    assert find_commit(checkout)[1] is False


def test_commit_of_a_copy_inside_a_foreign_repository_is_none(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / "site-packages" / "orchestrator").mkdir(parents=True)
    (tmp_path / "site-packages" / "orchestrator" / "__init__.py").write_text("")
    assert find_commit(tmp_path / "site-packages") == (None, None)


def test_the_patch_makes_the_code_again_in_a_clone_and_leaves_the_index_alone(checkout: Path, tmp_path: Path) -> None:
    (checkout / "specvit" / "old.py").write_text("x = 1\n")
    (checkout / "specvit" / "table.bin").write_bytes(bytes(range(256)))
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "second")
    clone = tmp_path / "clone"
    _git(tmp_path, "clone", "-q", str(checkout), str(clone))
    for setting in ("diff.noprefix=true", "color.ui=always", "diff.external=false", "diff.renames=copies"):
        _git(checkout, "config", *setting.split("="))
    (checkout / "specvit" / "old.py").rename(checkout / "specvit" / "new module é.py")
    (checkout / "specvit" / "__init__.py").write_bytes(b"y = '\xff'\r\n")
    (checkout / "specvit" / "table.bin").write_bytes(bytes(range(255, -1, -1)))
    (checkout / "specvit" / ".env").write_text("TOKEN=secret\n")
    (checkout / "notes.txt").write_text("secret\n")
    _git(checkout, "add", "notes.txt")
    before = (checkout / ".git" / "index").read_bytes()
    patch = find_changes(checkout)
    assert (checkout / ".git" / "index").read_bytes() == before
    assert patch is not None
    assert b"secret" not in patch
    (tmp_path / "x.patch").write_bytes(b"A line of words.\n\n" + patch)
    _git(clone, "apply", str(tmp_path / "x.patch"))
    kept = {path.name: path.read_bytes() for path in (clone / "specvit").iterdir()}
    assert kept == {
        path.name: path.read_bytes() for path in (checkout / "specvit").iterdir() if path.name != ".env"
    }
    _git(checkout, "checkout", "-q", "--", "specvit")
    (checkout / "specvit" / "new module é.py").unlink()
    assert find_changes(checkout) == b""


def test_without_git_there_is_no_patch(tmp_path: Path) -> None:
    assert find_changes(tmp_path) is None
