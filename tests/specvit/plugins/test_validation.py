"""How settings are validated by a table of parts."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit.errors import PartError
from specvit.plugins import ByName, OneOf

from .shapes import Cube, Drawing, Installer, Shape, Shapes, Square, make_table


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
