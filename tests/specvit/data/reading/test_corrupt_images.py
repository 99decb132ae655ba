"""A file that is cut off is named, whichever source of files finds it, in memory and on the way to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import DATA_SOURCES
from specvit.data.sources import imagenet
from specvit.errors import DataError

from ..apart import tell_apart

NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def save(path: Path) -> None:
    """Save noise; as indices where it is a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_mask = any(part in ("masks", "annotations", "gtFine", "SegmentationClass") for part in path.parts)
    Image.fromarray(NOISE[..., 0] % 20 if is_mask else NOISE).save(path)


def folders(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            save(root / split / name / "1.JPEG")
            save(root / split / name / "2.png")


def masks(root: Path) -> None:
    for split in ("train", "val"):
        save(root / "images" / split / "1.jpg")
        save(root / "masks" / split / "1.png")


def ade20k(root: Path) -> None:
    for split in ("training", "validation"):
        save(root / "images" / split / "1.jpg")
        save(root / "annotations" / split / "1.png")


def cityscapes(root: Path) -> None:
    for split in ("train", "val"):
        save(root / "leftImg8bit" / split / "ulm" / "1_leftImg8bit.png")
        save(root / "gtFine" / split / "ulm" / "1_gtFine_labelIds.png")


def voc(root: Path) -> None:
    for split in ("train", "val"):
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(f"{split}_1\n")
        save(root / "JPEGImages" / f"{split}_1.jpg")
        save(root / "SegmentationClass" / f"{split}_1.png")


CASES: list[tuple[str, Callable[[Path], None], str]] = [
    ("image_folder", folders, "train/a/1.JPEG"),
    ("image_folder", folders, "val/b/2.png"),
    ("imagenet", folders, "val/a/1.JPEG"),
    ("imagenet", folders, "train/b/2.png"),
    ("masks", masks, "images/train/1.jpg"),
    ("masks", masks, "masks/val/1.png"),
    ("ade20k", ade20k, "images/validation/1.jpg"),
    ("ade20k", ade20k, "annotations/training/1.png"),
    ("cityscapes", cityscapes, "leftImg8bit/val/ulm/1_leftImg8bit.png"),
    ("cityscapes", cityscapes, "gtFine/train/ulm/1_gtFine_labelIds.png"),
    ("voc", voc, "JPEGImages/val_1.jpg"),
    ("voc", voc, "SegmentationClass/train_1.png"),
]


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize(("source", "make", "file"), CASES, ids=[f"{source}-{file}" for source, _, file in CASES])
def test_a_file_that_is_cut_off_is_named(
    source: str, make: Callable[[Path], None], file: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 2)
    root = tmp_path / "set"
    make(root)
    tell_apart(root)
    fields: dict[str, Any] = {"root": str(root), "image_size": 8, "cache": cache, "cache_folder": str(tmp_path / "c")}
    if source == "imagenet":
        fields["keep"] = "arrays"
    assert len(DATA_SOURCES[source](**fields).load().val) > 0
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as error:
        DATA_SOURCES[source](**fields).load()
    assert str(error.value).startswith(f"cannot read the image '{root / file}': ")
