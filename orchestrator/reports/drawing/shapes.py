"""What a drawing is made of. Places are in its units, y downwards; how something looks is the name of a style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Shape = Literal["up", "down", "square", "circle", "diamond", "left", "right"]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """A line through points; ``style`` as of ``styles.STYLES``, like that of all others."""

    points: tuple[Point, ...]
    style: str


@dataclass(frozen=True)
class Area:
    """The inside of a polygon."""

    points: tuple[Point, ...]
    style: str


@dataclass(frozen=True)
class Mark:
    """A mark whose centre is ``at``.

    Attributes:
        shape: Its shape, which tells what it means where there are no colours.
        at: Its centre.
        radius: Half of its width, about.
        style: As of ``Line``.
    """

    shape: Shape
    at: Point
    radius: float
    style: str


@dataclass(frozen=True)
class Label:
    """A line of text.

    Attributes:
        text: What is shown.
        at: Where its base line begins, has its middle or ends.
        style: As of ``Line``.
        anchor: Which of these it is.
        full: The whole text, where only the beginning is shown; empty where all of it is.
    """

    text: str
    at: Point
    style: str
    anchor: Anchor = "start"
    full: str = ""


@dataclass(frozen=True)
class Drawing:
    """A drawing.

    Attributes:
        width: In its unit: pixels of a page, points of a paper.
        height: Likewise.
        em: Size of its text, likewise.
        items: What is drawn, the lowest first.
        title: What it shows, for those who do not see it.
    """

    width: float
    height: float
    em: float
    items: tuple[Line | Area | Mark | Label, ...]
    title: str


def outline(mark: Mark) -> tuple[Point, ...]:
    """Return the corners of a mark, none of a circle; marks of one radius look equally large."""
    x, y = mark.at
    r = mark.radius
    corners: dict[str, tuple[Point, ...]] = {
        "up": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "down": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
        "left": ((-1.2, 0), (0.8, -1.1), (0.8, 1.1)),
        "right": ((1.2, 0), (-0.8, -1.1), (-0.8, 1.1)),
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "circle": (),
    }
    return tuple((x + r * dx, y + r * dy) for dx, dy in corners[mark.shape])
