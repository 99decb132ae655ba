"""Results of a sweep as a stranger may have sent them, and a user's files of which nothing may change.

The tests of this folder show that nothing in results, checkpoints and data of strangers is executed, and that nothing
else is touched. What other tests show already, and these do not repeat:

* sweep files that construct objects, names that leave the results folder, markup: ``tests/faults/test_sweep_files.py``;
* pickles in place of a training state: ``tests/orchestrator/test_resume.py``; of a model's checkpoint:
  ``tests/specvit/checkpoints``; of depth maps, decoded caches, entries of WebDataset shards and files of
  Hugging Face data sets: ``test_depth.py``, ``test_decoded_cache.py``, ``test_webdataset.py``,
  ``test_hugging_face_files.py`` and ``hugging_face/test_refusals.py`` in ``tests/specvit/data``;
* images with too many pixels, names that leave a data set's folder: ``test_image_files.py``, ``test_coco.py``,
  ``test_nyuv2.py``, ``test_presets.py``, ``test_paths.py`` there;
* what a command's file may hold: ``tests/orchestrator/storage/test_command_inbox.py``;
  a mirror's pointer that names other files: ``tests/orchestrator/storage/test_ledger_mirror.py``; files for clusters:
  ``tests/orchestrator/execution/ray_cluster/cluster_files``;
* the dashboard's address, asked of a running Ray:
  ``tests/orchestrator/execution/ray_cluster/executor/test_executor.py``.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from orchestrator.cli.app import main

from .hostile_results import Command

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


class HungError(BaseException):
    """Signal a command that does not end; no handler of ``Exception`` may catch it."""


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


@pytest.fixture(scope="session")
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
