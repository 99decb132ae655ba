"""Images with boxes in COCO's format: miniature trees for every rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import DATA_SOURCES
from specvit.data.sources.coco import Coco
from specvit.errors import DataError

from ..apart import tell_apart

Document = dict[str, Any]
TRAIN, VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
PADDING = [0, 0, 0, 0, -1]


def _annotation(key: int, image: int, category: int, bbox: list[float], **fields: object) -> Document:
    return {
        "id": key,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": 1.0,
        "iscrowd": 0,
        "segmentation": [[0, 0, 1, 0, 1, 1]],
        **fields,
    }


def _document() -> Document:
    """Three images of 40x20 px, the second without an object; categories 18 and 3."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "c.png", "width": 40, "height": 20},
            {"id": 4, "file_name": "a.png", "width": 40, "height": 20},
            {"id": 7, "file_name": "deep/b.png"},
        ],
        "annotations": [
            _annotation(1, 9, 18, [20, 0, 20, 10]),
            _annotation(2, 4, 3, [0, 10, 40, 10]),
            _annotation(3, 9, 3, [10.2, 5.1, 9.9, 5.0]),
            _annotation(4, 9, 3, [0, 0, 40, 20], iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}),
            _annotation(5, 4, 18, [3, 3, 0.4, 9]),
        ],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 3, "name": "car"}],
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split, file in (("train2017", TRAIN), ("val2017", VAL)):
        (root / split / "deep").mkdir(parents=True)
        for number, name in enumerate(("a.png", "deep/b.png", "c.png")):
            Image.new("RGB", (40, 20), (10 * number, 200, 30)).save(root / split / name)
        (root / file).write_text(json.dumps(_document()))
    tell_apart(root)
    return root


def _edit(path: Path, change: Callable[[Document], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _with_box(bbox: list[Any]) -> Callable[[Document], object]:
    return lambda document: document["annotations"][0].update(bbox=bbox)


def _load_fails(root: Path, match: str, **fields: Any) -> None:
    with pytest.raises(DataError, match=match):
        Coco(root=str(root), image_size=8, **fields).load()


def test_coco_is_found_by_name_and_its_root_is_no_part_of_its_identity() -> None:
    assert DATA_SOURCES["coco"] is Coco
    assert Coco.path_fields == {"root", "cache", "cache_folder", "max_pixels", "max_shared", "workers"}
    assert Coco.targets == {"boxes"}


def test_tree_loads_images_by_id_and_boxes_in_pixels_of_the_square(tree: Path) -> None:
    dataset = Coco(root=str(tree), image_size=8).load()

    assert dataset.box_names == ("car", "dog")
    assert dataset.class_names == dataset.mask_names == ()
    for split in (dataset.train, dataset.val):
        assert split.targets == {"boxes"}
        assert split.images.shape == (3, 3, 8, 8)
        assert split.images.dtype == np.uint8
        assert split.images[:, 0, 0, 0].tolist() == [0, 10, 20]
        assert split.boxes is not None
        assert split.boxes.dtype == np.int16
        # x by 8/40, y by 8/20. The box of width 0.4 has no pixel left, the crowd is left out.
        assert split.boxes.tolist() == [
            [[0, 4, 8, 8, 0], PADDING],
            [PADDING, PADDING],
            [[4, 0, 8, 4, 1], [2, 2, 4, 4, 0]],
        ]


def test_names_of_files_and_folders_can_be_others(tree: Path) -> None:
    before = Coco(root=str(tree), image_size=8).load()
    (tree / "train2017").rename(tree / "left")
    (tree / TRAIN).rename(tree / "left.json")
    after = Coco(root=str(tree), image_size=8, train_images="left", train_annotations="left.json").load()
    np.testing.assert_array_equal(after.train.boxes, before.train.boxes)
    np.testing.assert_array_equal(after.train.images, before.train.images)


@pytest.mark.parametrize("path", ["", "/etc", "../other", "a/../../b"])
def test_names_that_leave_the_root_are_refused(path: str) -> None:
    with pytest.raises(ValidationError, match=r"must be a path within data\.root, not"):
        Coco(root="anywhere", val_images=path)


@pytest.mark.parametrize("name", [TRAIN, "annotations//instances_train2017.json"])
def test_one_file_of_annotations_for_both_splits_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="val_annotations must differ from train_annotations"):
        Coco(root="anywhere", val_annotations=name)


def test_one_file_of_annotations_under_two_names_is_refused(tree: Path) -> None:
    (tree / VAL).unlink()
    (tree / VAL).symlink_to(tree / TRAIN)
    _load_fails(tree, r"data\.train_annotations and .* must not share a file, as they do '.*instances_val2017\.json'")


def test_splits_of_one_folder_must_not_share_an_image(tree: Path) -> None:
    fields = {"val_images": "train2017"}
    _load_fails(tree, r"must not share images, but 3 of 3 .* which is '.*train2017/a\.png': metrics", **fields)

    def keep(document: Document, ids: set[int]) -> None:
        document["images"] = [image for image in document["images"] if image["id"] in ids]
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]

    _edit(tree / TRAIN, lambda d: keep(d, {4, 7}))
    _edit(tree / VAL, lambda d: keep(d, {9}))
    dataset = Coco(root=str(tree), image_size=8, **fields).load()
    assert (len(dataset.train), len(dataset.val)) == (2, 1)


def test_image_size_beyond_int16_is_refused() -> None:
    with pytest.raises(ValidationError, match="image_size must be at most 32767 for boxes, not 32768"):
        Coco(root="anywhere", image_size=32768)


def test_images_that_are_not_listed_are_not_read(tree: Path) -> None:
    before = Coco(root=str(tree), image_size=8).load()
    (tree / "train2017" / "broken.png").write_bytes(b"no image")
    assert Coco(root=str(tree), image_size=8).load().fingerprint == before.fingerprint


def test_fingerprint_depends_on_annotations_and_images_but_not_on_the_root(tree: Path) -> None:
    first = Coco(root=str(tree), image_size=8).load().fingerprint
    moved = tree.rename(tree.parent / "elsewhere")
    assert Coco(root=str(moved), image_size=8).load().fingerprint == first
    _edit(moved / VAL, lambda d: d["annotations"][0]["bbox"].reverse())
    second = Coco(root=str(moved), image_size=8).load().fingerprint
    Image.new("RGB", (40, 20)).save(moved / "val2017" / "c.png")
    assert len({first, second, Coco(root=str(moved), image_size=8).load().fingerprint}) == 3


def test_boxes_are_cut_off_at_the_edges_of_the_image(tree: Path) -> None:
    _edit(tree / TRAIN, lambda d: d["annotations"][0].update(bbox=[-5, -5, 1e308, 15]))
    boxes = Coco(root=str(tree), image_size=8).load().train.boxes
    assert boxes is not None
    assert boxes[2, 0].tolist() == [0, 0, 8, 4, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][2].update(image_id=5), r"annotations\[2\] \(id 3\): no image has the id 5"),
        (lambda d: d["annotations"][2].update(category_id=1), r"annotations\[2\] \(id 3\): no category has the id 1"),
        (_with_box([0, 0, -1, 4]), r"annotations\[0\] \(id 1\): bbox must have a width"),
        (_with_box([0, 0, 4, -0.5]), r"at least 0, not \[0, 0, 4, -0\.5\]"),
        (_with_box([0, 0, float("nan"), 4]), r"4 finite numbers .* not \[0, 0, nan, 4\]"),
        (_with_box([float("inf"), 0, 1, 4]), r"\(id 1\): bbox must be 4 finite numbers"),
        (_with_box([10**400, 0, 1, 4]), r"\(id 1\): bbox must be 4 finite numbers"),
        (_with_box([1, 2, 3]), r"4 finite numbers .* not \[1, 2, 3\]"),
        (_with_box([True, 2, 3, 4]), r"4 finite numbers .* not \[True, 2, 3, 4\]"),
        (lambda d: d["annotations"][0].pop("bbox"), r"\(id 1\): bbox must be 4 finite numbers .* not None"),
        (lambda d: d["annotations"][0].update(iscrowd=2), r"\(id 1\): iscrowd must be 0 or 1, not 2"),
        (lambda d: d["annotations"][0].update(image_id="9"), r"\(id 1\): image_id must be an integer, not '9'"),
        (lambda d: d["annotations"].append(3), r"annotations\[5\] must be an object, not 3"),
        (lambda d: d.pop("annotations"), "must be an object with the lists images, annotations and categories"),
        (lambda d: d.update(images={}), "categories; images is none"),
        (lambda d: d["images"].append({"id": 9, "file_name": "d.png"}), r"images\[3\] \(id 9\): id 9 is taken already"),
        (lambda d: d["images"].append({"id": 1, "file_name": "c.png"}), r"file_name 'c\.png' is listed already"),
        (lambda d: d["images"].append({"id": 1, "file_name": "../c.png"}), r"must be a path within .* not '\.\./c"),
        (lambda d: d["images"].append({"id": 1}), r"\(id 1\): file_name must be a path within"),
        (lambda d: d["images"].append({"file_name": "d.png"}), r"images\[3\]: id must be an integer, not None"),
        (lambda d: d["images"][0].update(width=0), r"width and height must be integers above 0, not \[0, 20\]"),
        (lambda d: d["images"][0].pop("width"), r"width and height must be integers above 0, not \[None, 20\]"),
        (lambda d: d["categories"].append({"id": 3, "name": "x"}), r"categories\[2\] \(id 3\): id 3 is taken already"),
        (lambda d: d["categories"][0].pop("name"), r"categories\[0\] \(id 18\): name must be a text, not None"),
        (lambda d: (d["images"].clear(), d["annotations"].clear()), "must list at least 1 image, not 0"),
        (lambda d: d["annotations"].clear(), r"must hold at least 1 box .* at data\.image_size 8"),
        (lambda d: [a.update(iscrowd=1) for a in d["annotations"]], "must hold at least 1 box .* crowds aside"),
    ],
)
@pytest.mark.parametrize("file", [TRAIN, VAL])
def test_broken_annotations_are_refused_by_file_and_place(
    tree: Path, file: str, change: Callable[[Document], object], message: str
) -> None:
    _edit(tree / file, change)
    _load_fails(tree, rf"the annotations '.*{Path(file).name}'.*{message}")


@pytest.mark.parametrize("text", ["{", "", "[1, 2", '{"images": [}', "\x00"])
def test_malformed_json_is_refused(tree: Path, text: str) -> None:
    (tree / VAL).write_text(text)
    _load_fails(tree, r"the annotations '.*instances_val2017\.json' must be JSON: ")


def test_json_that_is_not_text_is_refused(tree: Path) -> None:
    (tree / VAL).write_bytes(b'{"images": "\xff\xfe\xfa"}')
    _load_fails(tree, r"the annotations '.*instances_val2017\.json' must be JSON: ")


def test_list_in_place_of_an_object_is_refused(tree: Path) -> None:
    (tree / VAL).write_text("[]")
    _load_fails(tree, r"instances_val2017\.json': must be an object with the lists")


def test_missing_annotations_are_refused(tree: Path) -> None:
    (tree / TRAIN).unlink()
    _load_fails(tree, r"cannot read the annotations '.*instances_train2017\.json': No such file")


def test_missing_folder_and_missing_root_are_refused(tree: Path) -> None:
    _load_fails(tree, r"no folder '.*elsewhere': coco reads the images", val_images="elsewhere")
    _load_fails(tree / "nowhere", r"data\.root: no folder '.*nowhere'")


def test_missing_image_is_refused_before_any_is_decoded(tree: Path) -> None:
    (tree / "train2017" / "a.png").write_bytes(b"no image")
    (tree / "val2017" / "c.png").unlink()
    _load_fails(tree, r"1 of 3 images that '.*instances_val2017\.json' lists are missing in '.*val2017'; .* 'c\.png'")


def test_broken_image_is_refused(tree: Path) -> None:
    (tree / "train2017" / "a.png").write_bytes(b"no image")
    _load_fails(tree, r"cannot read the image '.*train2017/a\.png'")


def test_image_of_another_size_than_its_entry_is_refused(tree: Path) -> None:
    Image.new("RGB", (20, 40)).save(tree / "val2017" / "a.png")
    _load_fails(tree, r"val2017/a\.png' in '.*val2017\.json' must have the size of its image, 20x40, not 40x20")


def test_splits_with_other_categories_are_refused(tree: Path) -> None:
    _edit(tree / VAL, lambda d: d["categories"].append({"id": 1, "name": "cow"}))
    _load_fails(tree, r"'.*val2017\.json' and '.*train2017\.json' must list the same categories, but 'cow' \(id 1\)")


def test_a_cache_on_disk_gives_the_arrays_that_memory_does(tree: Path, tmp_path: Path) -> None:
    in_memory = Coco(root=str(tree), image_size=8).load()
    for _ in range(2):  # made, then found
        cached = Coco(root=str(tree), image_size=8, cache="disk", cache_folder=str(tmp_path / "cache")).load()
        assert cached.fingerprint == in_memory.fingerprint
        assert cached.box_names == in_memory.box_names
        for split, expected in ((cached.train, in_memory.train), (cached.val, in_memory.val)):
            assert isinstance(split.images, np.memmap)
            assert split.targets == expected.targets
            for name in ("images", *split.targets):
                np.testing.assert_array_equal(getattr(split, name), getattr(expected, name))
