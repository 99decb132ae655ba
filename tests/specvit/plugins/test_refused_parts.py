"""Parts of packages that are broken, have a name that is taken, or are not listed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit.errors import PartError
from specvit.plugins import ByName, OneOf

from .shapes import GROUP, TRIANGLE, Cube, Installer, Shape, Square, changed, counter, make_table

BROKEN: dict[str, tuple[str, str]] = {
    "missing_import": ("import absent\n", "cannot be loaded: ModuleNotFoundError: No module named 'absent'"),
    "raises": ("raise OSError('no\\nlibrary')\n", "cannot be loaded: OSError: no library"),
    "syntax": ("class:\n", "cannot be loaded: SyntaxError: invalid syntax"),
    "no_such_class": ("", "cannot be loaded: AttributeError: module 'shapes_"),
    "function": ("def Triangle(): ...\n", "must be a class that derives from {base}, not <function Triangle at"),
    "other_base": ("class Triangle: ...\n", "must be a class that derives from {base}, not <class 'shapes_"),
    "plain_class": (changed("@settings\n", ""), "Triangle must be decorated with specvit.settings.settings"),
    "abstract": (changed("area", "volume"), "Triangle must define area"),
    "no_constants": (
        changed('    name: ClassVar[str] = "triangle"\n    sides: ClassVar[int] = 3\n', ""),
        "Triangle must set name, sides",
    ),
    "other_name": (changed('str] = "triangle"', 'str] = "square"'), "Triangle.name must be 'triangle', not 'square'"),
    "no_discriminator": (
        changed('    shape: Literal["triangle"] = "triangle"\n', ""),
        "Triangle must have the field shape: Literal['triangle'] = 'triangle'",
    ),
    "no_default": (
        changed('Literal["triangle"] = "triangle"', 'Literal["triangle"]'),
        "Triangle must have the field shape: Literal['triangle'] = 'triangle'",
    ),
    "other_discriminator": (
        changed('Literal["triangle"] = "triangle"', 'Literal["square"] = "square"'),
        "Triangle must have the field shape: Literal['triangle'] = 'triangle'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_part_of_a_package_is_refused_by_name(case: str, install: Installer) -> None:
    source, fault = BROKEN[case]
    module = install(source, package="vit-shapes")
    table = make_table()
    with pytest.raises(PartError) as caught:
        list(table)
    start = f"package vit-shapes 1.2, entry point triangle = '{module}:Triangle' of {GROUP}: "
    assert str(caught.value).startswith(start + fault.format(base=f"{Shape.__module__}.Shape"))
    assert "\n" not in str(caught.value)
    with pytest.raises(PartError):  # again, not half a table
        list(table)


def test_name_that_is_taken_is_refused_with_who_has_it(install: Installer) -> None:
    install(TRIANGLE, entry="square", package="vit-squares")
    taken = f"{Square.__module__}.Square"
    with pytest.raises(PartError, match=rf"package vit-squares 1.2, .*: the name is taken by {taken}$"):
        list(make_table())
    with pytest.raises(PartError, match=f"^{taken}: the name is taken by {taken}$"):
        list(make_table(Square, Cube, Square))


def test_name_that_two_packages_give_is_refused_with_both(install: Installer) -> None:
    install(package="vit-b")
    install(package="vit-a")
    with pytest.raises(PartError, match=r"^package vit-b 1.2, .*: the name is taken by package vit-a 1.2, entry point"):
        list(make_table())


UNLISTED = {
    "not_listed": (TRIANGLE, "Triangle: is not listed in {package}: add a line there"),
    "bad": (changed("sides: ClassVar[int] = 3", "pass"), "Triangle must set sides"),
    "unusable": (TRIANGLE, "has too few sides"),
    "no_import": (f"import nothing_of_this_name\n{TRIANGLE}", "cannot be loaded: ModuleNotFoundError: No module"),
}


@pytest.mark.parametrize("case", UNLISTED)
@pytest.mark.parametrize("lookup", ["one", "several"])
def test_part_that_is_in_our_package_and_not_listed_is_told_when_it_is_asked_for(
    case: str, lookup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, fault = UNLISTED[case]
    package = f"shapes_{next(counter)}"
    for folder in (tmp_path / package, tmp_path / package / "round"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (tmp_path / package / "round" / "settings.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    check = {"unusable": lambda *_: "has too few sides"}.get(case)
    table = make_table(package=package)
    list(table)
    table._check = check
    one, several = TypeAdapter(Annotated[Shape, OneOf(table)]), TypeAdapter(Annotated[tuple, ByName(table)])
    adapter, value = (one, {"shape": "triangle"}) if lookup == "one" else (several, {"triangle": {}})
    with pytest.raises(PartError) as caught:
        adapter.validate_python(value)
    assert str(caught.value).startswith(f"{package}.round.settings")
    assert fault.format(package=package) in str(caught.value)


def test_part_that_nobody_wrote_is_an_unknown_field_whatever_its_name() -> None:
    table = make_table(package="specvit.probes")
    for name in ("triangle", "tri.angle", "../x", "", 3, None, "knn_"):
        with pytest.raises(ValidationError):
            TypeAdapter(Annotated[tuple, ByName(table)]).validate_python({name: {}})


def test_module_that_looks_into_the_table_while_it_is_imported_is_refused(install: Installer) -> None:
    source = f"import {__name__} as tests\nlist(tests.LOOKED_AT)\n{TRIANGLE}"
    install(source)
    with pytest.raises(PartError, match=r"cannot be loaded: PartError: .*partially initialized module"):
        list(LOOKED_AT)


LOOKED_AT = make_table()
