"""Tables of parts: our own and those of installed packages, and how settings are validated by them."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit import plugins
from specvit.errors import PartError
from specvit.plugins import ByName, LazyMapping, OneOf, PartTable, plugin_versions
from specvit.settings import PositiveInt, settings

GROUP = "specsweep.shapes"
_counter = itertools.count()


@settings
class Shape(ABC):
    """The base of the parts of these tests."""

    name: ClassVar[str]
    sides: ClassVar[int]

    size: PositiveInt = 1

    @abstractmethod
    def area(self) -> float:
        """Return the area."""


@settings
class Square(Shape):
    """A part."""

    name: ClassVar[str] = "square"
    sides: ClassVar[int] = 4
    shape: Literal["square"] = "square"

    def area(self) -> float:
        return float(self.size**2)


@settings
class Cube(Square):
    """A part that derives from another one."""

    name: ClassVar[str] = "cube"
    shape: Literal["cube"] = "cube"  # type: ignore[assignment]


def make_table(*own: type[Shape], **changes: Any) -> PartTable[Shape]:
    return PartTable(Shape, own or (Square, Cube), **{"group": GROUP, "discriminator": "shape", **changes})


SHAPES = make_table()
AnyShape = Annotated[Shape, OneOf(SHAPES)]
Shapes = Annotated[tuple[Shape, ...], ByName(SHAPES)]


@settings
class Drawing:
    """Settings with parts in them."""

    main: AnyShape
    other: AnyShape | None = None
    listed: Shapes = ()


TRIANGLE = """\
from typing import ClassVar, Literal

from specvit.settings import settings
from {tests} import Shape


@settings
class Triangle(Shape):
    name: ClassVar[str] = "triangle"
    sides: ClassVar[int] = 3
    shape: Literal["triangle"] = "triangle"

    def area(self) -> float:
        return self.size**2 / 2
""".replace("{tests}", __name__)

Installer = Callable[..., str]


@pytest.fixture
def install(
    install_plugin: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installer]:
    """Return a function that installs a package of one module and returns the module's name."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    made: list[str] = []

    def install(source: str = TRIANGLE, *, entry: str = "triangle", value: str = "Triangle", package: str = "") -> str:
        module = f"shapes_{next(_counter)}"
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


def changed(old: str, new: str) -> str:
    assert old in TRIANGLE
    return TRIANGLE.replace(old, new)


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
    assert str(caught.value).startswith(start + fault.format(base=f"{__name__}.Shape"))
    assert "\n" not in str(caught.value)
    with pytest.raises(PartError):  # again, not half a table
        list(table)


def test_name_that_is_taken_is_refused_with_who_has_it(install: Installer) -> None:
    install(TRIANGLE, entry="square", package="vit-squares")
    with pytest.raises(PartError, match=f"package vit-squares 1.2, .*: the name is taken by {__name__}.Square$"):
        list(make_table())
    with pytest.raises(PartError, match=f"^{__name__}.Square: the name is taken by {__name__}.Square$"):
        list(make_table(Square, Cube, Square))


def test_name_that_two_packages_give_is_refused_with_both(install: Installer) -> None:
    install(package="vit-b")
    install(package="vit-a")
    with pytest.raises(PartError, match=r"^package vit-b 1.2, .*: the name is taken by package vit-a 1.2, entry point"):
        list(make_table())


def test_check_of_a_table_sees_each_part_beside_those_before_it(install: Installer) -> None:
    install(package="vit-shapes")
    seen: list[list[str]] = []

    def check(part: type[Shape], others: Iterable[type[Shape]]) -> str | None:
        seen.append([*(other.name for other in others), part.name])
        return "has too few sides" if part.sides < 4 else None

    with pytest.raises(PartError, match=r"^package vit-shapes 1.2, .*: has too few sides$"):
        list(make_table(check=check))
    assert seen == [["square"], ["square", "cube"], ["square", "cube", "triangle"]]


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
    package = f"shapes_{next(_counter)}"
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


def test_part_is_validated_by_its_name() -> None:
    drawing = TypeAdapter(Drawing).validate_python(
        {"main": {"shape": "cube", "size": 2}, "listed": {"cube": {}, "square": {"size": 3}}}
    )
    assert drawing == Drawing(main=Cube(size=2), listed=(Square(size=3), Cube()))
    assert [type(part) for part in drawing.listed] == [Square, Cube]


def test_parts_of_a_package_are_validated_like_our_own(install: Installer) -> None:
    install()
    table = make_table()
    one, several = TypeAdapter(Annotated[Shape, OneOf(table)]), TypeAdapter(Annotated[tuple, ByName(table)])
    triangle = one.validate_python({"shape": "triangle", "size": 3})
    assert (triangle, triangle.area()) == (table["triangle"](size=3), 4.5)
    assert several.validate_python({"triangle": {"size": 3}, "square": {}}) == (Square(), triangle)
    assert list(one.json_schema()["discriminator"]["mapping"]) == ["cube", "square", "triangle"]
    assert several.json_schema()["properties"].keys() == {"square", "cube", "triangle"}
    assert pickle.loads(pickle.dumps((triangle,))) == (triangle,)  # noqa: S301


def test_table_of_one_part_validates() -> None:
    table = make_table(Square)
    assert TypeAdapter(Annotated[Shape, OneOf(table)]).validate_python({"shape": "square"}) == Square()


@pytest.mark.parametrize(
    ("document", "kind", "place"),
    [
        ({"main": {"shape": "circle"}}, "union_tag_invalid", ("main",)),
        ({"main": {}}, "union_tag_not_found", ("main",)),
        ({"main": 3}, "model_attributes_type", ("main",)),
        ({"main": {"shape": "cube", "size": 0}}, "greater_than", ("main", "cube", "size")),
        ({"main": Cube(), "other": {"shape": "cube", "x": 0}}, "unexpected_keyword_argument", ("other", "cube", "x")),
        ({"main": Square(), "listed": {"circle": {}}}, "extra_forbidden", ("listed", "circle")),
        ({"main": Square(), "listed": {"cube": {"size": 0}}}, "greater_than", ("listed", "cube", "size")),
        ({"main": Square(), "listed": {"cube": 3}}, "dataclass_type", ("listed", "cube")),
        ({"main": Square(), "listed": ["cube"]}, "dict_type", ("listed",)),
    ],
)
def test_what_is_wrong_with_a_part_has_its_place(document: dict[str, Any], kind: str, place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Drawing).validate_python(document)
    assert [(error["type"], error["loc"]) for error in caught.value.errors()] == [(kind, place)]


def test_broken_package_is_told_when_a_part_is_validated_and_not_as_a_fault_of_it(install: Installer) -> None:
    install("raise RuntimeError\n", package="vit-shapes")
    adapter = TypeAdapter(Annotated[Shape, OneOf(make_table())])
    with pytest.raises(PartError, match="package vit-shapes"):
        adapter.validate_python({"shape": "square"})


def test_selected_parts_are_a_value() -> None:
    adapter: TypeAdapter[tuple[Shape, ...]] = TypeAdapter(Shapes)
    chosen = adapter.validate_python({"cube": {"size": 2}, "square": None})
    assert chosen == (Cube(size=2),)
    assert adapter.validate_python({}) == ()
    assert hash(chosen) == hash((Cube(size=2),))
    assert pickle.loads(pickle.dumps(chosen)) == chosen  # noqa: S301
    assert adapter.validate_python(chosen) is chosen
    assert adapter.validate_python((Cube(), Square())) == (Square(), Cube())
    assert adapter.validate_json(adapter.dump_json(chosen)) == chosen


def test_json_schema_is_that_of_a_union_of_the_parts() -> None:
    schema = TypeAdapter(Drawing).json_schema()
    refs = {"cube": "#/$defs/Cube", "square": "#/$defs/Square"}
    union = {
        "discriminator": {"mapping": refs, "propertyName": "shape"},
        "oneOf": [{"$ref": "#/$defs/Square"}, {"$ref": "#/$defs/Cube"}],
    }
    assert union.items() <= schema["properties"]["main"].items()
    assert schema["properties"]["other"]["anyOf"] == [union, {"type": "null"}]
    listed = schema["properties"]["listed"]
    assert listed["additionalProperties"] is False
    assert listed["properties"]["cube"]["anyOf"] == [{"$ref": "#/$defs/Cube"}, {"type": "null"}]


def test_importing_the_tables_reads_no_entry_points_and_no_torch() -> None:
    code = "import sys, specvit.config; from specvit import plugins as p; sys.exit(p._entry_points.cache_info().misses)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
