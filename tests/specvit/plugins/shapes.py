"""Parts of a table for these tests, and the source of one that a package adds."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from specvit.plugins import ByName, OneOf, PartTable
from specvit.settings import PositiveInt, settings

GROUP = "specsweep.shapes"
counter = itertools.count()


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


def changed(old: str, new: str) -> str:
    assert old in TRIANGLE
    return TRIANGLE.replace(old, new)
