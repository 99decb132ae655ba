"""Photographs that are stored turned, in every source whose targets have positions, and in those whose have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import DATA_SOURCES, Dataset
from specvit.errors import DataError

SIDE = 16
SHOWN = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
SHOWN[:, SIDE // 2 :] = 200
SHOWN[: SIDE // 4] //= 2
STORED = np.rot90(SHOWN, 1)
"""What a camera that was held on its side stores, with the EXIF orientation 6."""
RIGHT_HALF = np.zeros((SIDE, SIDE), dtype=np.uint8)
RIGHT_HALF[:, SIDE // 2 :] = 1
SPLITS = ("train", "val")


def save(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(STORED + np.uint8(shade))).save(path, exif=exif)
    return path


def masks(root: Path) -> dict[str, Any]:
    for shade, split in enumerate(SPLITS):
        save(root / "images" / split / "a.png", shade)
        (root / "masks" / split).mkdir(parents=True)
        Image.fromarray(RIGHT_HALF).save(root / "masks" / split / "a.png")
    return {"root": str(root)}


def depth(root: Path) -> dict[str, Any]:
    for shade, split in enumerate(SPLITS):
        save(root / "images" / split / "a.png", shade)
        (root / "depth" / split).mkdir(parents=True)
        np.save(root / "depth" / split / "a.npy", RIGHT_HALF.astype(np.float32))
    return {"root": str(root)}


def coco(root: Path) -> dict[str, Any]:
    for shade, split in enumerate(SPLITS):
        save(root / f"{split}2017" / "a.png", shade)
        document = {
            "images": [{"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}],
            "categories": [{"id": 1, "name": "half"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [SIDE // 2, 0, SIDE // 2, SIDE]}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
    return {"root": str(root)}


def hugging_face(root: Path) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets")
    splits = {}
    for shade, split in enumerate(SPLITS):
        image = save(root / "files" / f"{split}.png", shade).read_bytes()
        Image.fromarray(RIGHT_HALF).save(root / "mask.png")
        rows = {"image": [{"bytes": image}], "mask": [{"bytes": (root / "mask.png").read_bytes()}]}
        features = datasets.Features(image=datasets.Image(decode=False), mask=datasets.Image(decode=False))
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(root / "saved"))
    return {"path": str(root / "saved"), "val_split": "val", "label_column": None, "mask_column": "mask"}


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "masks": masks,
    "depth": depth,
    "coco": coco,
    "hugging_face": hugging_face,
}


def load(source: str, fields: dict[str, Any], **more: Any) -> Dataset:
    return DATA_SOURCES[source](**fields, image_size=SIDE, **more).load()


@pytest.mark.parametrize("keep", ["arrays", "encoded"])
@pytest.mark.parametrize("source", MAKERS)
def test_photograph_that_is_stored_turned_waits_for_a_word_and_is_turned_with_it(
    source: str, keep: str, tmp_path: Path
) -> None:
    fields = MAKERS[source](tmp_path) | {"keep": keep}
    with pytest.raises(DataError, match=r"2 images cannot be used:(\n  the image .* the EXIF orientation 6, so .*){2}"):
        load(source, fields)
    shown = load(source, fields, orientation="shown")
    assert shown.train.images[:][0, 0].tolist() == SHOWN[..., 0].tolist()
    stored = load(source, fields, orientation="stored")
    assert stored.train.images[:][0, 0].tolist() == STORED[..., 0].tolist()


def test_labels_have_no_place_so_that_images_stay_as_they_are_stored(tmp_path: Path) -> None:
    for shade, (split, name) in enumerate((split, name) for split in SPLITS for name in "ab"):
        save(tmp_path / split / name / "1.png", shade)
    dataset = load("image_folder", {"root": str(tmp_path)})
    assert dataset.train.images[0, 0].tolist() == STORED[..., 0].tolist()
    turned = load("image_folder", {"root": str(tmp_path)}, orientation="shown")
    assert turned.train.images[0, 0].tolist() == SHOWN[..., 0].tolist()
