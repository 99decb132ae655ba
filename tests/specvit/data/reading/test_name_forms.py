"""Names that look the same: accents as macOS writes them (NFD) beside those of all others (NFC)."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specvit.data.reading.coco_annotations import read_annotations
from specvit.data.reading.image_files import existing_root
from specvit.data.reading.label_names import check_names, encode_labels
from specvit.data.reading.name_forms import check_forms, existing
from specvit.data.reading.tar_shards import expand_pattern
from specvit.data.sources.coco import Coco
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
RNG = np.random.default_rng(0)


def save(path: Path, *, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 9, (8, 8) if mask else (8, 8, 3), dtype=np.uint8)).save(path)


def test_path_is_spelt_as_on_the_disk(tmp_path: Path) -> None:
    save(tmp_path / NFD / f"{NFD}.png")
    assert existing(tmp_path / NFC / f"{NFC}.png") == tmp_path / NFD / f"{NFD}.png"
    assert existing(tmp_path / NFD) == tmp_path / NFD
    assert existing(tmp_path / "thé" / "a") == tmp_path / "thé" / "a"
    assert existing_root(str(tmp_path / NFC)) == tmp_path / NFD


def test_names_that_differ_by_their_form_alone_are_told_with_the_difference() -> None:
    check_forms((NFC, "cafe", "thé"), what="the folders")
    with pytest.raises(DataError, match=r"the folders 'caf\\xe9' and 'cafe\\u0301' differ by their Unicode form alone"):
        check_forms((NFC, NFD), what="the folders")


def test_class_folders_are_the_same_class_in_either_form(tmp_path: Path) -> None:
    for split, form in (("train", NFD), ("val", NFC)):
        for name in (form, "tea"):
            save(tmp_path / split / name / "1.png")
    dataset = ImageFolder(root=str(tmp_path), image_size=8).load()
    assert dataset.class_names == (NFC, "tea")
    assert dataset.val.labels is not None
    assert dataset.val.labels.tolist() == [0, 1]
    save(tmp_path / "train" / NFC / "1.png")
    with pytest.raises(DataError, match=r"'cafe\\u0301' and 'caf\\xe9' differ by their Unicode form alone: rename one"):
        ImageFolder(root=str(tmp_path), image_size=8).load()


def test_mask_belongs_to_its_image_in_either_form(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / "images" / split / f"{NFC}.png")
        save(tmp_path / "masks" / split / f"{NFD}.png", mask=True)
    assert len(Masks(root=str(tmp_path), image_size=8).load().train) == 1
    save(tmp_path / "images" / "train" / f"{NFD}.png")
    with pytest.raises(DataError, match="differ by their Unicode form alone"):
        Masks(root=str(tmp_path), image_size=8).load()


def test_annotations_name_files_and_categories_in_either_form(tmp_path: Path) -> None:
    for split, form in (("train", NFC), ("val", NFD)):
        save(tmp_path / f"{split}2017" / f"{NFD}.png")
        document = {
            "images": [{"id": 1, "file_name": f"{form}.png"}],
            "categories": [{"id": 1, "name": form}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8]}],
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
    assert Coco(root=str(tmp_path), image_size=8).load().box_names == (NFC,)
    assert read_annotations(tmp_path / "annotations" / "instances_val2017.json").categories == {1: NFC}


@pytest.mark.parametrize("pattern", [f"{NFC}-*.tar", f"{NFC}-{{0..0}}.tar"])
def test_shards_are_found_in_either_form(pattern: str, tmp_path: Path) -> None:
    (tmp_path / f"{NFD}-0.tar").touch()
    assert expand_pattern(tmp_path, pattern, field="data.train") == [tmp_path / f"{NFD}-0.tar"]


def test_labels_of_either_form_are_one_class() -> None:
    places = {"train": "a", "val": "b"}
    none: dict[str, tuple[str, ...]] = {"train": (), "val": ()}
    names, labels = encode_labels({"train": ["tea", NFD, NFC], "val": [NFC]}, names=none, places=places)
    assert (names, labels["train"].tolist(), labels["val"].tolist()) == ((NFC, "tea"), [1, 0, 0], [0])
    given = {"train": (NFC, "tea"), "val": (NFD, "tea")}
    assert encode_labels({"train": [1], "val": [0]}, names=given, places=places)[0] == (NFC, "tea")
    with pytest.raises(ValueError, match="must differ from one another"):
        check_names((NFC, NFD), field="class_names")
