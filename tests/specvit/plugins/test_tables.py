"""Tables of parts: our own and those of installed packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

from specvit.errors import PartError
from specvit.plugins import LazyMapping, plugin_versions

from .shapes import TRIANGLE, Cube, Installer, Shape, Square, make_table


def test_lazy_mapping_is_made_at_the_first_look_and_once() -> None:
    made: list[int] = []
    mapping = LazyMapping(lambda: {"a": made.append(1)})
    assert made == []
    assert (list(mapping), len(mapping), "a" in mapping, "b" in mapping) == (["a"], 1, True, False)
    assert made == [1]


def test_table_without_packages_holds_our_own_parts_in_their_order() -> None:
    assert dict(make_table()) == {"square": Square, "cube": Cube}
    assert list(make_table()) == ["square", "cube"]
    assert "triangle" not in make_table()


def test_table_adds_the_parts_of_packages_by_name_when_it_is_looked_at(install: Installer) -> None:
    table = make_table()
    others = [install(TRIANGLE.replace("riangle", name), entry=f"t{name}", value=f"T{name}") for name in ("wo", "hree")]
    assert not sys.modules.keys() & set(others)
    assert list(table) == ["square", "cube", "three", "two"]
    assert table["three"].__module__ == others[1]
    assert table["three"](size=4).area() == 8.0


def test_versions_of_packages_that_add_parts_are_known_without_an_import(install: Installer) -> None:
    module = install("raise RuntimeError\n", package="vit-shapes")
    assert plugin_versions() == {"vit-shapes": "1.2"}
    assert module not in sys.modules


def test_check_of_a_table_sees_each_part_beside_those_before_it(install: Installer) -> None:
    install(package="vit-shapes")
    seen: list[list[str]] = []

    def check(part: type[Shape], others: Iterable[type[Shape]]) -> str | None:
        seen.append([*(other.name for other in others), part.name])
        return "has too few sides" if part.sides < 4 else None

    with pytest.raises(PartError, match=r"^package vit-shapes 1.2, .*: has too few sides$"):
        list(make_table(check=check))
    assert seen == [["square"], ["square", "cube"], ["square", "cube", "triangle"]]


def test_importing_the_tables_reads_no_entry_points_and_no_torch() -> None:
    code = "import sys, specvit.config; from specvit import plugins as p; sys.exit(p._entry_points.cache_info().misses)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
