"""The command line in this process, and a sweep that it has run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from orchestrator.cli.app import main

from ...made_up import made_up_trial
from .commands import Ended, FinishedSweep


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run a command in this process, in ``tmp_path``: faster, where no process is at stake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["specsweep", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> FinishedSweep:
    """Run the tiny sweep to its end, with made-up trials in place of training."""
    folder = tmp_path_factory.mktemp("finished")
    file = write_sweep(folder)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("specvit.trial.run_trial", made_up_trial)
        patch.delenv("COLUMNS", raising=False)
        patch.delenv("FORCE_COLOR", raising=False)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["specsweep", "run", "tiny.yaml", "--executor", "local"])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return FinishedSweep(folder, file, Ended(end.value.code, out.getvalue(), err.getvalue()))
