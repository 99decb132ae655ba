"""Image folders: miniature trees for every rule, CIFAR-10 for the real thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import DATA_SOURCES
from specvit.data.sources.image_folder import ImageFolder
from specvit.errors import DataError

from ..apart import tell_apart

COLOURS = {"cat": (200, 10, 20), "dog": (30, 210, 40)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make two classes of two images in both splits, each class of one colour."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in (1, 2):
                Image.new("RGB", (20, 12 + number), colour).save(root / split / name / f"{number}.png")
    tell_apart(root)
    return root


def _load_fails(root: Path, match: str) -> None:
    with pytest.raises(DataError, match=match):
        ImageFolder(root=str(root), image_size=8).load()


def test_image_folder_is_found_by_name_and_its_root_is_no_part_of_its_identity() -> None:
    assert DATA_SOURCES["image_folder"] is ImageFolder
    assert ImageFolder.path_fields == {"root", "cache", "cache_folder", "max_pixels", "max_shared", "workers"}


def test_tree_of_two_classes_loads_in_the_order_of_names(tree: Path) -> None:
    dataset = ImageFolder(root=str(tree), image_size=8).load()
    assert dataset.class_names == ("cat", "dog")
    assert dataset.mask_names == ()
    for split in (dataset.train, dataset.val):
        assert split.targets == {"labels"}
        assert split.images.shape == (4, 3, 8, 8)
        assert split.images.dtype == np.uint8
        assert split.labels is not None
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == [0, 0, 1, 1]
        for image, label in zip(split.images, split.labels, strict=True):
            colour = np.array(list(COLOURS.values())[label])[:, None, None]
            np.testing.assert_array_equal(image, np.broadcast_to(colour, (3, 8, 8)))


def test_files_that_are_no_images_are_passed_over(tree: Path) -> None:
    before = ImageFolder(root=str(tree), image_size=8).load()
    (tree / "notes.txt").touch()
    (tree / "train" / ".ipynb_checkpoints").mkdir()
    (tree / "train" / "Thumbs.db").touch()
    (tree / "train" / "cat" / ".DS_Store").touch()
    (tree / "val" / "dog" / "labels.txt").touch()
    after = ImageFolder(root=str(tree), image_size=8).load()
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.train.images, before.train.images)


def test_fingerprint_follows_contents_and_not_the_place(tree: Path, tmp_path: Path) -> None:
    first = ImageFolder(root=str(tree), image_size=8).load().fingerprint
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved)
    assert ImageFolder(root=str(moved), image_size=8).load().fingerprint == first
    Image.new("RGB", (20, 13), (0, 0, 0)).save(moved / "val" / "dog" / "1.png")
    assert ImageFolder(root=str(moved), image_size=8).load().fingerprint != first


def test_missing_root_is_refused(tmp_path: Path) -> None:
    _load_fails(tmp_path / "nowhere", r"data\.root: no folder '.*nowhere'")


def test_unset_root_is_refused() -> None:
    with pytest.raises(ValidationError, match="root"):
        ImageFolder()


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split_is_refused(split: str, tree: Path) -> None:
    shutil.rmtree(tree / split)
    _load_fails(tree, rf"no folder '.*set/{split}': image_folder reads ROOT/\{{train,val\}}/CLASS")


def test_split_without_class_folders_is_refused(tree: Path) -> None:
    for name in COLOURS:
        shutil.move(tree / "train" / name / "1.png", tree / "train" / f"{name}.png")
        shutil.rmtree(tree / "train" / name)
    _load_fails(tree, r"no class folders in '.*set/train'")


def test_split_without_images_is_refused(tree: Path) -> None:
    for path in (tree / "val").glob("*/*.png"):
        path.unlink()
    _load_fails(tree, r"no images in '.*set/val'")


def test_empty_class_is_refused(tree: Path) -> None:
    for path in (tree / "val" / "dog").iterdir():
        path.rename(path.with_suffix(".txt"))
    _load_fails(tree, r"no images in the class folder '.*val/dog'.*endings \.jpg, \.jpeg, \.png, \.webp, \.bmp")


def test_classes_that_differ_between_splits_are_refused(tree: Path) -> None:
    (tree / "val" / "dog").rename(tree / "val" / "wolf")
    _load_fails(tree, "only in train: dog; only in val: wolf")


def test_unreadable_image_is_refused(tree: Path) -> None:
    (tree / "val" / "cat" / "2.png").write_bytes(b"nothing")
    _load_fails(tree, r"cannot read the image '.*val/cat/2\.png': its content is not JPEG or PNG or WEBP or BMP")


def test_link_from_a_class_back_to_the_split_does_not_hang(tree: Path) -> None:
    (tree / "train" / "loop").symlink_to(tree / "train", target_is_directory=True)
    _load_fails(tree, r"no images in the class folder '.*train/loop'")


def test_cifar10_loads_unchanged_pixels_of_ten_classes(real_data: Path) -> None:
    root = real_data / "cifar10"
    if not root.is_dir():
        pytest.skip("no cifar10")
    dataset = ImageFolder(root=str(root), image_size=32).load()
    assert dataset.class_names == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    assert dataset.train.labels is not None
    assert dataset.val.labels is not None
    assert np.bincount(dataset.train.labels).tolist() == [500] * 10
    assert np.bincount(dataset.val.labels).tolist() == [100] * 10
    first = sorted((root / "train" / "airplane").iterdir())[0]
    np.testing.assert_array_equal(dataset.train.images[0], np.asarray(Image.open(first)).transpose(2, 0, 1))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_files_that_are_passed_over_are_counted_by_their_endings(cache: str, tree: Path, tmp_path: Path) -> None:
    for name in ("a.tif", "b.TIF", "c.tiff", "notes", ".hidden.tif"):
        (tree / "train" / "cat" / name).touch()
    (tree / "val" / "dog" / "a.tif").touch()
    (tree / "val" / "dog" / "more.png").mkdir()
    source = ImageFolder(root=str(tree), image_size=8, cache=cache, cache_folder=str(tmp_path / "cache"))
    assert source.load().passed_over == {".tif": 3, ".tiff": 1, "no ending": 1, "folder": 1}
