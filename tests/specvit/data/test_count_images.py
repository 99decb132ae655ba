"""How many images a source has before they are read: as many as are read then, or it is not known."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import DATA_SOURCES, Counts, DataSource, file_source
from specvit.data.cache import folder_index
from specvit.data.reading.counting import Deadline
from specvit.data.sources.scenes import Scenes

SPLITS = {"train": 4, "val": 2}


def save(path: Path, shade: int, *, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 9, 3) if mode == "RGB" else (9, 9), shade, np.uint8)).save(path)


def image_folder(root: Path) -> None:
    for shade, (split, number) in enumerate((split, n) for split, most in SPLITS.items() for n in range(most)):
        save(root / split / "ab"[number % 2] / f"{number}.png", shade)
    (root / "train" / "a" / "note.txt").touch()


def pairs(root: Path, kind: str) -> None:
    for shade, (split, number) in enumerate((split, n) for split, most in SPLITS.items() for n in range(most)):
        save(root / "images" / split / f"{number}.png", shade)
        target = root / kind / split / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == "masks":
            save(target.with_suffix(".png"), 1, mode="L")
        else:
            np.save(target.with_suffix(".npy"), np.ones((9, 9), np.float32))


def coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for first, (split, most) in enumerate(SPLITS.items()):
        images = [{"id": n, "file_name": f"{n}.png", "width": 9, "height": 9} for n in range(most)]
        for image in images:
            save(root / f"{split}2017" / str(image["file_name"]), 9 * first + int(str(image["id"])))
        boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9]}]
        document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
        save(root / f"{split}2017" / "listed by none.png", 99)


def make(source: str, root: Path) -> None:
    if source in ("masks", "depth"):
        pairs(root, source)
    else:
        {"image_folder": image_folder, "coco": coco}[source](root)


def of(source: str, root: Path, **fields: Any) -> DataSource:
    return DATA_SOURCES[source](root=str(root), image_size=8, cache_folder=str(root.parent / "cache"), **fields)


@pytest.mark.parametrize("source", ["image_folder", "masks", "depth", "coco"])
def test_as_many_are_counted_as_are_read(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    assert of(source, root).count_images() is None
    make(source, root)
    counted, loaded = of(source, root).count_images(), of(source, root).load()
    classes = 2 if source == "image_folder" else None
    assert counted == Counts(len(loaded.train), len(loaded.val), classes) == Counts(4, 2, classes)
    assert of(source, root).known_counts() is None
    monkeypatch.setattr(file_source, "Deadline", partial(Deadline, -1.0))
    assert of(source, root).count_images() is None


def test_an_index_of_a_tree_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    image_folder(root)
    monkeypatch.setattr(folder_index, "LEAST_FILES", 1)
    for folder in (root, *root.rglob("*/")):
        os.utime(folder, (1e9, 1e9))
    of("image_folder", root, keep="encoded").load()
    monkeypatch.setattr(file_source, "Deadline", partial(Deadline, -1.0))
    assert of("image_folder", root, keep="encoded").count_images() == Counts(4, 2, 2)


def test_published_sets_and_scenes_are_known_without_a_look() -> None:
    assert DATA_SOURCES["imagenet"](root="nowhere").count_images() == Counts(1_281_167, 50_000, 1000)
    assert DATA_SOURCES["ade20k"](root="nowhere").count_images() == Counts(20_210, 2_000)
    scenes = Scenes(num_train=5, num_val=3)
    assert scenes.count_images() == Counts(5, 3, 8)
