"""ADE20K (Zhou et al. 2017), the scene parsing benchmark of 150 classes, as its archive unpacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from specvit.data.pair_source import match_by_name
from specvit.data.sources.masks import Masks
from specvit.settings import settings

_LAYOUT = "ade20k reads ROOT/images/{training,validation}/*.jpg with ROOT/annotations/{training,validation}/*.png"
_FOLDERS = {"train": "training", "val": "validation"}


@settings
class Ade20k(Masks):
    """Read ADEChallengeData2016: ``root/images/{training,validation}``, masks in ``root/annotations``.

    Index 0 (other) is ignored, 1 to 150 become classes 0 to 149.
    """

    name: ClassVar[str] = "ade20k"
    source: Literal["ade20k"] = "ade20k"  # type: ignore[assignment]
    label_map: ClassVar[Mapping[int, int] | None] = {index: index - 1 for index in range(1, 151)}
    class_names: tuple[str, ...] = tuple(f"class {index}" for index in range(150))
    """Names of the 150 classes, in the order of objectInfo150.txt."""

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return the sizes of the published splits."""
        return 20_210, 2_000

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its mask."""
        folder = _FOLDERS[split]
        return match_by_name(root / "images" / folder, root / "annotations" / folder, rule=_LAYOUT)
