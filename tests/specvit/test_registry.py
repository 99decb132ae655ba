"""Finding parts by putting a file into a folder."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from specvit.registry import discover

_BASE = "class Part:\n    name = 'base'\n"
_counter = itertools.count()

Packager = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packager]:
    """Return a function that writes a package of the given modules and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def write(**modules: str) -> str:
        name = f"parts_{next(_counter)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "base.py").write_text(_BASE)
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(f"from {name}.base import Part\n{source}")
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield write
    for loaded in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[loaded]


def _discover(name: str) -> dict[str, type]:
    return discover(name, importlib.import_module(f"{name}.base").Part, key="name")


def test_every_part_of_every_module_is_found_sorted_by_name(package: Packager) -> None:
    name = package(
        one="class B(Part):\n    name = 'beta'\nclass Z(Part):\n    name = 'zeta'\n",
        two="class A(Part):\n    name = 'alpha'\n",
    )
    found = _discover(name)
    assert list(found) == ["alpha", "beta", "zeta"]
    assert found["alpha"].__module__ == f"{name}.two"


def test_the_base_class_and_what_is_imported_are_not_parts(package: Packager) -> None:
    name = package(one="class A(Part):\n    name = 'a'\nclass Other:\n    name = 'other'\nNUMBER = 3\n")
    (Path(sys.path[0]) / name / "two.py").write_text(f"from {name}.one import A\n")
    assert list(_discover(name)) == ["a"]


def test_two_parts_of_one_name_are_refused_by_name(package: Packager) -> None:
    name = package(one="class A(Part):\n    name = 'same'\n", two="class B(Part):\n    name = 'same'\n")
    with pytest.raises(TypeError, match=f"two parts of {name} are called 'same'"):
        _discover(name)
