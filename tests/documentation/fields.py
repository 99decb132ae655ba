"""The reference of the sweep file, as Markdown, from its JSON schema: every section and field, type, default, range."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

Schema = Mapping[str, Any]

LEAST_KINDS = 4
"""From so many kinds of a section on, the fields that all of them but one have are told once."""
LONGEST_DEFAULT = 100
"""Characters beyond which a list that is a default is cut."""


class FieldReference:
    """Renders a schema; every definition has one place, which the types of other fields link to."""

    def __init__(self, schema: Schema, order: Sequence[str]) -> None:
        self._schema = schema
        self._order = order
        self._places: dict[str, str] = {}
        self._told: set[str] = set()
        self.render()  # finds the places that types link to

    def render(self) -> str:
        """Return the reference: the fields of the file, then a section for each that has fields of its own."""
        self._told = set()
        sections = {name: self._section(name, self._schema["properties"][name]) for name in self._order}
        top = "\n".join(self._fields(self._schema, linked=[name for name, text in sections.items() if text]))
        return "\n\n".join([f"## The file\n\n{top}", *filter(None, sections.values())]) + "\n"

    def _definition(self, node: Schema) -> Schema:
        return self._schema["$defs"][node["$ref"].rpartition("/")[2]]

    def _section(self, name: str, node: Schema) -> str:
        """Return what a field of the file has below itself; nothing for a plain value."""
        about = _prose(node.get("description", ""))
        if "$ref" in node:
            node = self._placed(node, f"`{name}`")
            lines = [about, "", *self._fields(node), *self._below(node, name)]
        else:
            lines = list(self._parts(node, name))
            if not lines:
                return ""
            lines = [about, "", *lines]
        return "\n".join([f"## `{name}`", "", *lines])

    def _placed(self, node: Schema, title: str) -> Schema:
        """Note the heading under which a definition is, and return the definition."""
        self._told.add(node["$ref"])
        self._places.setdefault(node["$ref"], _slug(title))
        return self._definition(node)

    def _below(self, definition: Schema, path: str) -> Iterator[str]:
        for name, node in definition["properties"].items():
            yield from self._parts(node, f"{path}.{name}")

    def _parts(self, node: Schema, path: str) -> Iterator[str]:
        """Yield the sections of the definitions below a field that have no place so far."""
        if "discriminator" in node:
            kind = node["discriminator"]["propertyName"]
            mapping = node["discriminator"]["mapping"]
            if not set(mapping.values()) <= self._told:
                titles = {f"`{kind}: {value}`": {"$ref": ref} for value, ref in mapping.items()}
                yield from self._kinds(titles, kind, path)
        elif set(node.get("properties", ())) and all("anyOf" in each for each in node["properties"].values()):
            titles = {f"`{path}.{name}`": each["anyOf"][0] for name, each in node["properties"].items()}
            yield from self._kinds(titles, None, path)
        else:
            inner = {
                f"An entry of `{path}`": [node.get("items")],
                f"A value of `{path}`": [node.get("additionalProperties")],
                f"`{path}` as a mapping": [*node.get("anyOf", ()), *node.get("oneOf", ())],
            }
            for title, nodes in inner.items():
                for each in filter(lambda each: isinstance(each, dict), nodes):
                    if "$ref" not in each:
                        yield from self._parts(each, path)
                    elif each["$ref"] not in self._told:
                        definition = self._placed(each, title)
                        about = _prose(definition.get("description", ""))
                        yield from (f"### {title}", "", about, "", *self._fields(definition))

    def _kinds(self, titles: Mapping[str, Schema], discriminator: str | None, path: str) -> Iterator[str]:
        """Yield the kinds of a section; what nearly all have comes first, presets tell their differences alone."""
        kinds = {title: self._placed(node, title) for title, node in titles.items()}
        shared = _shared(list(kinds.values()), discriminator)
        varying = {name for name, node in shared.items() if "default" not in node}
        yield from ("Kinds: " + ", ".join(f"[{title}](#{_slug(title)})" for title in kinds) + ".", "")
        if shared:
            yield from (f"### Every kind of `{path}`", "", _lacking(kinds, shared), "")
            yield from self._fields({"properties": shared}, varying=varying)
        for title, kind in kinds.items():
            yield from (f"### {title}", "", _prose(kind.get("description", "")), "")
            base = _base_of(title, kind, kinds)
            if base:
                yield from (f"The fields of [{base}](#{_slug(base)}), with other defaults:", "")
                yield from _defaults(kind["properties"], kinds[base]["properties"])
                continue
            own = {name: node for name, node in kind["properties"].items() if name not in {*shared, discriminator}}
            yield from self._fields({"properties": own, "required": kind.get("required", ())})
            here = {name: node for name, node in kind["properties"].items() if name in varying}
            if here:
                yield from ("Its defaults for the fields of every kind:", "", *_defaults(here, {}))

    def _fields(
        self, definition: Schema, *, linked: Collection[str] = (), varying: Collection[str] = ()
    ) -> Iterator[str]:
        """Yield a list of definitions: the field, its type and default, its text; neighbours that are alike as one."""
        names = self._order if definition is self._schema else definition["properties"]
        required = definition.get("required", ())
        told = [
            (f"`{name}`", self._about(name, definition["properties"][name], name in required, name in varying, linked))
            for name in names
        ]
        for text, alike in groupby(told, lambda each: each[1]):
            first, *rest = text.split("\n")
            yield from (", ".join(name for name, _ in alike), f":   {first}")
            yield from (*(f"    {line}".rstrip() for line in rest), "")

    def _about(self, name: str, node: Schema, required: bool, varies: bool, linked: Collection[str]) -> str:
        kind = f"[section](#{name})" if name in linked else self._type(node)
        default = "default by kind" if varies else _default(node, required)
        return f"*{', '.join(filter(None, (kind, default)))}*\n\n{_prose(node.get('description', ''))}".rstrip()

    def _type(self, node: Schema) -> str:
        """Return a type and its range in words."""
        if "$ref" in node:
            place = self._places.get(node["$ref"])
            return f"[mapping](#{place})" if place else "mapping"
        if "discriminator" in node:
            return f"mapping with a `{node['discriminator']['propertyName']}`"
        if "const" in node or "enum" in node:
            return _either([f"`{_value(value)}`" for value in node.get("enum", [node.get("const")])])
        options = [each for each in (*node.get("anyOf", ()), *node.get("oneOf", ())) if each.get("type") != "null"]
        if options:
            return _either(list(dict.fromkeys(map(self._type, options))))
        match node.get("type"):
            case "array" if "prefixItems" in node:
                items = list(map(self._type, node["prefixItems"]))
                return f"list of {len(items)}: {' and '.join(dict.fromkeys(items))}"
            case "array":
                least = f", {node['minItems']} or more" if node.get("minItems", 0) > 1 else ""
                return f"list of {self._type(node.get('items', {}))}{least}"
            case "object":
                values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
                return f"mapping to {self._type(next(filter(None, values), {}))}"
            case "integer" | "number" as kind:
                return f"{kind} {_range(node)}".strip()
            case "string":
                return "text"
            case "boolean":
                return "`true` or `false`"
        return "any value"


def _shared(kinds: Sequence[Schema], discriminator: str | None) -> dict[str, Schema]:
    """Return the fields that all kinds but one have, with a default where that is the same for all."""
    if len(kinds) < LEAST_KINDS:
        return {}
    shared = {}
    for name in dict.fromkeys(name for kind in kinds for name in kind["properties"] if name != discriminator):
        nodes = [kind["properties"][name] for kind in kinds if name in kind["properties"]]
        alike = {json.dumps({key: node[key] for key in sorted(node) if key != "default"}) for node in nodes}
        if len(nodes) >= len(kinds) - 1 and len(alike) == 1:
            one_default = len({json.dumps(node.get("default", "..")) for node in nodes}) == 1
            shared[name] = {key: value for key, value in nodes[0].items() if one_default or key != "default"}
    return shared


def _lacking(kinds: Mapping[str, Schema], shared: Mapping[str, Schema]) -> str:
    """Return which kind lacks some of the shared fields."""
    for title, kind in kinds.items():
        lacks = [f"`{name}`" for name in shared if name not in kind["properties"]]
        if lacks:
            return f"All but {title} have these fields; that one lacks {', '.join(lacks)}."
    return "All kinds have these fields."


def _base_of(title: str, kind: Schema, kinds: Mapping[str, Schema]) -> str | None:
    """Return the kind that a preset is of: one whose name it begins with, with the same fields."""
    for other, definition in kinds.items():
        if title.startswith(f"{other[:-1]}_") and definition["properties"].keys() == kind["properties"].keys():
            return other
    return None


def _defaults(properties: Mapping[str, Schema], others: Mapping[str, Schema]) -> tuple[str, str]:
    shown = [
        f"`{name}: {_value(node['default'])}`"
        for name, node in properties.items()
        if "const" not in node and "default" in node and node["default"] != others.get(name, {}).get("default", "..")
    ]
    return f"{', '.join(shown)}.", ""


def _default(node: Schema, required: bool) -> str:
    if required:
        return "required"
    if "const" in node:
        return ""
    if node.get("default") is None:
        return "optional"
    text = _value(node["default"])
    if len(text) > LONGEST_DEFAULT and isinstance(node["default"], list):
        return f"default: {len(node['default'])} values from `{_value(node['default'][0])}` on"
    return f"default `{text}`"


def _range(node: Schema) -> str:
    """Return the range of a number: ``>= 1``, ``from 0 to 1``."""
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if node["type"] == "integer" and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f"from {_value(low)} to {_value(high)}"
    bounds = {">": above, "≥": low, "<": below, "≤": high}
    return " and ".join(f"{sign} {_value(bound)}" for sign, bound in bounds.items() if bound is not None)


def _value(value: object) -> str:
    """Return a value as YAML has it on one line."""
    if isinstance(value, float) and value.is_integer() and value >= 1000:
        value = int(value)
    return value if isinstance(value, str) and value else json.dumps(value)


def _either(options: Sequence[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _prose(text: str) -> str:
    """Return a docstring as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", text.strip())


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
