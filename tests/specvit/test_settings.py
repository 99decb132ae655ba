from __future__ import annotations

from pydantic import TypeAdapter

from specvit.data import DATA_SOURCES
from specvit.settings import PositiveInt, settings


@settings
class _Circle:
    radius: PositiveInt = 1
    """Radius, in pixels;
    at least one."""
    filled: bool = False


@settings
class _Ring(_Circle):
    width: PositiveInt = 1
    """Width of the line."""


def test_schema_holds_the_text_under_own_and_inherited_fields() -> None:
    fields = TypeAdapter(_Ring).json_schema()["properties"]
    assert {name: field.get("description") for name, field in fields.items()} == {
        "radius": "Radius, in pixels;\nat least one.",
        "filled": None,
        "width": "Width of the line.",
    }


def test_every_field_of_a_data_source_is_described() -> None:
    for source in DATA_SOURCES.values():
        fields = TypeAdapter(source).json_schema()["properties"]
        assert [name for name, field in fields.items() if "description" not in field] in ([], ["source"])
