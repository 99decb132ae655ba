"""Packages that are installed for a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from specvit import plugins

from .shapes import GROUP, TRIANGLE, Installer, counter


@pytest.fixture
def install(
    install_plugin: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installer]:
    """Return a function that installs a package of one module and returns the module's name."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    made: list[str] = []

    def install(source: str = TRIANGLE, *, entry: str = "triangle", value: str = "Triangle", package: str = "") -> str:
        module = f"shapes_{next(counter)}"
        package = package or module.replace("_", "-")
        project = tmp_path / module
        project.mkdir()
        (project / f"{module}.py").write_text(source)
        about = f'[project]\nname = "{package}"\nversion = "1.2"\n[project.entry-points."{GROUP}"]\n'
        (project / "pyproject.toml").write_text(f'{about}{entry} = "{module}:{value}"\n')
        install_plugin(project, site)
        plugins._entry_points.cache_clear()
        made.append(module)
        return module

    yield install
    plugins._entry_points.cache_clear()
    for module in made:
        sys.modules.pop(module, None)
