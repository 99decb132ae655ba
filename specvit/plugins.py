"""Tables of parts (data sources, recipes, comparators, probes): our own, and those of other people's packages.

A package adds a part by an entry point that names its settings class, in the group of the table:

    [project.entry-points."specsweep.probes"]
    its_name = "its_package.its_module:ItsClass"

Entry points are loaded when a table is first looked at, and not when our modules are imported: the module of such a
part imports ours. For the same reason a field of settings that holds a part is validated by looking its name up.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, GetPydanticSchema, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from specvit.errors import ConfigError, PartError
from specvit.messages import did_you_mean

_GROUPS = "specsweep."
"""What the names of all groups of our entry points begin with."""


class Part(Protocol):
    """A settings class that sweep files call by its name."""

    name: ClassVar[str]


V = TypeVar("V")
T = TypeVar("T", bound=Part)


class LazyMapping(Mapping[str, V]):
    """A mapping that is made when it is first looked at."""

    def __init__(self, make: Callable[[], Mapping[str, V]]) -> None:
        """Store the function that makes it; if that raises, the next look tries again."""
        self._made = cache(make)

    def __getitem__(self, name: str) -> V:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


class PartTable(LazyMapping[type[T]]):
    """The parts of one kind, by name: our own in the order given, then those of other packages, sorted by name.

    Attributes:
        discriminator: The field that tells a part from the others of its kind; None where they stand under their names.
    """

    def __init__(
        self,
        base: type,
        own: Sequence[type[T]],
        *,
        group: str,
        package: str = "",
        discriminator: str | None = None,
        check: Callable[[type[T], Iterable[type[T]]], str | None] | None = None,
    ) -> None:
        """Store what the table is made of.

        Args:
            base: The class that every part derives from.
            own: Our own parts.
            group: The entry points by which other packages add parts.
            package: Our package whose ``__init__`` lists its parts in this table; empty = none does.
            discriminator: The field that holds a part's name; None = there is none.
            check: Returns what is wrong with a part beside those before it, or None.
        """
        super().__init__(self._load)
        self.discriminator = discriminator
        self._base, self._own, self._group, self._check = base, own, group, check
        self._package = package

    def read_name(self, value: object) -> object:
        """Return ``{discriminator: name}`` for a bare name, and anything else as it is.

        Raises:
            ConfigError: If it is no name of a part, or a mapping that names none.
        """
        kind, known = self.discriminator, f"known: {', '.join(self)}"
        if isinstance(value, str):
            if value not in self:
                raise ConfigError(f"unknown {kind}; {known}, not {value!r}{did_you_mean(value, list(self))}")
            return {kind: value}
        if isinstance(value, Mapping) and kind not in value:
            raise ConfigError(f"{kind} is required; {known}")
        return value

    def allow_names(self, schema: dict[str, Any]) -> None:
        """Extend the JSON schema of a part to its bare name, as ``read_name`` reads it."""
        schema["anyOf"] = [{"enum": list(self), "type": "string"}, dict(schema)]
        for key in schema.keys() - {"anyOf"}:
            del schema[key]

    def refuse_unlisted(self, name: str) -> None:
        """Look for a part that somebody has written in our package and not listed, and say so.

        Raises:
            PartError: If there is one of this name.
        """
        found = importlib.util.find_spec(self._package) if self._package else None
        for folder in (found and found.submodule_search_locations) or ():
            pattern = re.compile(rf"^    name\b.*= ['\"]{re.escape(name)}['\"]", re.MULTILINE)
            for file in sorted(Path(folder).rglob("*.py")):
                if pattern.search(file.read_text(encoding="utf-8", errors="replace")):
                    module = ".".join((self._package, *file.relative_to(folder).with_suffix("").parts))
                    raise PartError(self._why_unlisted(name, module))

    def _why_unlisted(self, name: str, module: str) -> str:
        try:
            values = vars(importlib.import_module(module)).values()
        except Exception as error:  # whatever the import of a file that is being written may raise
            return f"{module}: cannot be loaded: {_reason(error)}"
        for part in values:
            if isinstance(part, type) and part.__module__ == module and getattr(part, "name", None) == name:
                fault = self._fault(name, part) or (self._check and self._check(part, self.values()))
                return f"{module}.{part.__qualname__}: {fault or f'is not listed in {self._package}: add a line there'}"
        return f"{module}: has no class of the name {name!r}"

    def _load(self) -> dict[str, type[T]]:
        # No lock: threads that come here together load the same classes twice. With one, a thread that imports a
        # package's module could wait for another thread that waits for this very module.
        parts: dict[str, type[T]] = {}
        origins: dict[str, str] = {}

        def add(name: str, part: Any, origin: str) -> None:
            fault = f"the name is taken by {origins[name]}" if name in parts else self._fault(name, part)
            if fault is None and self._check is not None:
                fault = self._check(part, parts.values())
            if fault is not None:
                raise PartError(f"{origin}: {fault}")
            parts[name], origins[name] = part, origin

        for own in self._own:
            add(own.name, own, f"{own.__module__}.{own.__qualname__}")
        for entry in (entry for entry in _entry_points() if entry.group == self._group):
            origin = f"package {_package(entry)}, entry point {entry.name} = {entry.value!r} of {entry.group}"
            try:
                part = entry.load()
            except Exception as error:  # whatever the import of other people's code may raise
                raise PartError(f"{origin}: cannot be loaded: {_reason(error)}") from error
            add(entry.name, part, origin)
        return parts

    def _fault(self, name: str, part: Any) -> str | None:
        """Return what keeps a class from being a part of this table; None = nothing."""
        if not (isinstance(part, type) and issubclass(part, self._base)):
            return f"must be a class that derives from {self._base.__module__}.{self._base.__qualname__}, not {part!r}"
        fields = vars(part).get("__pydantic_fields__")
        if fields is None:
            return f"{part.__qualname__} must be decorated with specvit.settings.settings"
        if inspect.isabstract(part):
            return f"{part.__qualname__} must define {', '.join(sorted(vars(part)['__abstractmethods__']))}"
        constants = [key for key, kind in inspect.get_annotations(self._base).items() if "ClassVar" in str(kind)]
        missing = [key for key in constants if not hasattr(part, key)]
        if missing:
            return f"{part.__qualname__} must set {', '.join(missing)}"
        if part.name != name:  # type: ignore[attr-defined]
            return f"{part.__qualname__}.name must be {name!r}, not {part.name!r}"  # type: ignore[attr-defined]
        field = fields.get(self.discriminator)
        if self.discriminator and (field is None or (*get_args(field.annotation), field.default) != (name, name)):
            return f"{part.__qualname__} must have the field {self.discriminator}: Literal[{name!r}] = {name!r}"
        return None


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    """Return the entry points of all our groups, sorted by name; finding them takes some milliseconds."""
    found = metadata.entry_points()
    ours = (entry for group in found.groups if group.startswith(_GROUPS) for entry in found.select(group=group))
    return tuple(sorted(ours, key=lambda entry: (entry.name, _package(entry))))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _package(entry: metadata.EntryPoint) -> str:
    return "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def plugin_versions() -> dict[str, str]:
    """Return the versions of the other packages that add parts, by name."""
    packages = (entry.dist for entry in _entry_points())
    return {package.name: package.version for package in packages if package is not None}


class _Lookup(Generic[T]):
    """An annotation that validates by a table, and makes the schema for that when it is first needed."""

    def __init__(self, table: PartTable[T]) -> None:
        """Store the table."""
        self._table = table

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # pydantic adds the place of the field to what is wrong within.
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self._adapter.core_schema)

    def _validate(self, value: object) -> Any:
        for name in self._named(value):
            if isinstance(name, str) and name not in self._table:
                self._table.refuse_unlisted(name)
        return self._adapter.validate_python(value)

    def _named(self, value: object) -> Iterable[object]:
        """Return the names of parts that a value asks for."""
        raise NotImplementedError

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(Annotated[Any, GetPydanticSchema(lambda _, handler: self._schema(handler.generate_schema))])

    def _schema(self, of: Callable[[type[T]], CoreSchema]) -> CoreSchema:
        raise NotImplementedError


class OneOf(_Lookup[T]):
    """``Annotated[Base, OneOf(TABLE)]``: one part of a table, chosen by its discriminator."""

    def _schema(self, of: Callable[[type[T]], CoreSchema]) -> CoreSchema:
        choices = {name: of(part) for name, part in self._table.items()}
        return core_schema.tagged_union_schema(choices, discriminator=self._table.discriminator or "name")

    def _named(self, value: object) -> Iterable[object]:
        return (value.get(self._table.discriminator),) if isinstance(value, Mapping) else ()


class ByName(_Lookup[T]):
    """``Annotated[tuple[Base, ...], ByName(TABLE)]``: any parts of a table, in its order.

    They are written as a mapping of their names to their settings, of which null leaves a part out.
    """

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(lambda parts: {part.name: part for part in parts})
        return core_schema.no_info_plain_validator_function(self._validate, serialization=written)

    def _validate(self, value: object) -> tuple[T, ...]:
        given = {part.name: part for part in value} if isinstance(value, tuple) else value
        found = super()._validate(given)
        parts = tuple(found[name] for name in self._table if found.get(name) is not None)
        return value if parts == value else parts  # the same object, so that what shares it still shares it

    def _schema(self, of: Callable[[type[T]], CoreSchema]) -> CoreSchema:
        fields = {}
        for name, part in self._table.items():
            or_none = core_schema.with_default_schema(core_schema.nullable_schema(of(part)), default=None)
            fields[name] = core_schema.typed_dict_field(or_none, required=False)
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid")

    def _named(self, value: object) -> Iterable[object]:
        return value if isinstance(value, Mapping) else ()
