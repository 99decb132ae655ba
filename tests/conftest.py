"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from .long_run import IS_LONG

# Before NumPy and torch are imported, here and in what tests start: several processes of tests share the cores, and
# threads that wait for a core spin.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

_ROOT = Path(__file__).parents[1]
_BESIDE_THE_REPOSITORY = _ROOT.parent / "shared" / "data"
_FAULTS = _ROOT / "tests" / "faults"
_STRAY_BEFORE = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real image sets (camvid/, cifar10/); without it the test is skipped."""
    folder = Path(os.environ.get("SPECSWEEP_DATA", _BESIDE_THE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}; set SPECSWEEP_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_parser() -> Iterator[None]:
    """Have Typer build its parsers once: for each command in this process anew, it takes as long as a small plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Have no curves drawn, which takes longer than a small sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.reports.curves.draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def install_plugin() -> Callable[[Path, Path], None]:
    """Return a function that installs a project of Python files into a folder for ``sys.path``, as pip would."""

    def install(project: Path, site: Path) -> None:
        about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        left_out = shutil.ignore_patterns("pyproject.toml", "__pycache__")
        shutil.copytree(project, site, ignore=left_out, dirs_exist_ok=True)
        info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
        groups = about["entry-points"].items()
        lines = [line for group, parts in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in parts.items()))]
        (info / "entry_points.txt").write_text("\n".join(lines))

    return install


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests of the short or the long run, and put the files with ``slow`` tests first."""

    def is_wanted(item: pytest.Item) -> bool:
        is_marked = item.get_closest_marker("long") is not None
        return is_marked == IS_LONG or (IS_LONG and _FAULTS in item.path.parents)

    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = filter(is_wanted, items)
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    num_all = Counter(item.path for item in items)
    items.sort(key=lambda item: (-num_slow[item.path], -num_all[item.path], item.path))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note which files git does not know before the tests run, and have Ctrl-C reach the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, and inherited by every process
        signal.signal(signal.SIGINT, signal.default_int_handler)
    session.config.stash[_STRAY_BEFORE] = _stray_files()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left files in the checkout: tests write to folders of their own."""
    if hasattr(session.config, "workerinput"):
        return  # one of several processes; the one that started them looks
    if left := sorted(_stray_files() - session.config.stash[_STRAY_BEFORE]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nthe tests left files in the checkout: {', '.join(left)}", red=True)


def _stray_files() -> set[str]:
    """Return the files of the checkout that git neither knows nor ignores; none outside of a checkout."""
    listing = ["git", "-C", str(_ROOT), "ls-files", "--others", "--exclude-standard"]
    try:
        return set(subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines())
    except (OSError, subprocess.CalledProcessError):
        return set()
