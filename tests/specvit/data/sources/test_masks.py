"""Images with masks: miniature trees for every rule, CamVid for the real thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import DATA_SOURCES
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

from ..apart import tell_apart

SIZE = (24, 18)


def _save_mask(path: Path, values: tuple[int, int], size: tuple[int, int] = SIZE) -> None:
    """Write a mask whose left half holds the first value and whose right half the second."""
    mask = np.full(size[::-1], values[0], dtype=np.uint8)
    mask[:, size[0] // 2 :] = values[1]
    Image.fromarray(mask).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make two images with masks of the indices 0, 2 and 255 in both splits."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        Image.new("RGB", SIZE, (10, 200, 30)).save(root / "images" / split / "a.PNG")
        Image.new("RGB", SIZE, (90, 20, 130)).save(root / "images" / split / "b.bmp")
        _save_mask(root / "masks" / split / "a.png", (0, 2))
        _save_mask(root / "masks" / split / "b.png", (255, 2))
    tell_apart(root)
    return root


def _load_fails(root: Path, match: str, **fields: object) -> None:
    with pytest.raises(DataError, match=match):
        Masks(root=str(root), image_size=8, **fields).load()


def test_masks_are_found_by_name_and_their_root_is_no_part_of_their_identity() -> None:
    assert DATA_SOURCES["masks"] is Masks
    assert Masks.path_fields == {"root", "cache", "cache_folder", "max_pixels", "max_shared", "workers"}


def test_tree_of_two_images_loads_pairs_in_the_order_of_names(tree: Path) -> None:
    dataset = Masks(root=str(tree), image_size=8).load()
    assert dataset.class_names == ()
    assert dataset.mask_names == ("class 0", "class 1", "class 2")
    for split in (dataset.train, dataset.val):
        assert split.targets == {"masks"}
        assert split.images.shape == (2, 3, 8, 8)
        assert split.images.dtype == np.uint8
        assert split.masks is not None
        assert split.masks.dtype == np.uint8
        assert split.images[:, :, 0, 0].tolist() == [[10, 200, 30], [90, 20, 130]]
        # Squashed: both halves of 24x18 survive whole.
        assert split.masks.tolist() == [[[0] * 4 + [2] * 4] * 8, [[255] * 4 + [2] * 4] * 8]


def test_class_names_name_the_indices(tree: Path) -> None:
    names = ("sky", "road", "tree", "never seen")
    assert Masks(root=str(tree), image_size=8, class_names=names).load().mask_names == names


def test_index_beyond_the_class_names_is_refused(tree: Path) -> None:
    _load_fails(
        tree,
        r"the mask '.*masks/train/a\.png' must hold indices below 2, the number of data\.class_names, or 255, not 2",
        class_names=("sky", "road"),
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), "must differ from one another, not repeat 'a'"),
        (tuple(map(str, range(256))), "at most 255 classes, not 256"),
    ],
)
def test_class_names_that_cannot_name_indices_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Masks(root="anywhere", class_names=names)


def test_palette_mask_equals_greyscale_mask(tree: Path) -> None:
    before = Masks(root=str(tree), image_size=8).load()
    path = tree / "masks" / "train" / "a.png"
    indices = np.asarray(Image.open(path))
    palette = Image.fromarray(indices, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(path)
    after = Masks(root=str(tree), image_size=8).load()
    np.testing.assert_array_equal(after.train.masks, before.train.masks)
    assert after.fingerprint != before.fingerprint


def test_files_that_are_neither_images_nor_masks_are_passed_over(tree: Path) -> None:
    before = Masks(root=str(tree), image_size=8).load()
    (tree / "images" / "train" / ".DS_Store").touch()
    (tree / "images" / "train" / "a.txt").touch()
    (tree / "masks" / "val" / "Thumbs.db").touch()
    assert Masks(root=str(tree), image_size=8).load().fingerprint == before.fingerprint


def test_missing_root_is_refused(tmp_path: Path) -> None:
    _load_fails(tmp_path / "nowhere", r"data\.root: no folder '.*nowhere'")


@pytest.mark.parametrize("folder", ["images/train", "images/val", "masks/train", "masks/val"])
def test_missing_folder_is_refused(folder: str, tree: Path) -> None:
    shutil.rmtree(tree / folder)
    _load_fails(tree, rf"no folder '.*set/{folder}': masks reads ROOT/images")


def test_split_without_images_is_refused(tree: Path) -> None:
    for path in (tree / "images" / "val").iterdir():
        path.unlink()
    _load_fails(tree, r"no images in '.*images/val'")


def test_image_without_mask_is_refused(tree: Path) -> None:
    (tree / "masks" / "val" / "b.png").unlink()
    _load_fails(tree, r"the image '.*images/val/b\.bmp' has no mask '.*masks/val/b\.png'")


def test_mask_without_image_is_refused(tree: Path) -> None:
    (tree / "images" / "train" / "a.PNG").unlink()
    _load_fails(tree, r"the mask '.*masks/train/a\.png' has no image '.*images/train/a'\.\*")


def test_two_images_of_one_mask_are_refused(tree: Path) -> None:
    Image.new("RGB", SIZE).save(tree / "images" / "train" / "a.bmp")
    _load_fails(tree, r"images/train/a\.PNG' and '.*images/train/a\.bmp' would share one mask")


def test_mask_of_another_size_is_refused_with_both_sizes(tree: Path) -> None:
    _save_mask(tree / "masks" / "val" / "b.png", (0, 1), size=(12, 18))
    _load_fails(tree, r"masks/val/b\.png' must have the size of its image, 24x18, not 12x18")


def test_colour_mask_is_refused(tree: Path) -> None:
    Image.new("RGB", SIZE).save(tree / "masks" / "val" / "b.png")
    _load_fails(tree, r"masks/val/b\.png' must be an 8-bit PNG with one channel .* not mode 'RGB'")


def test_jpeg_under_the_name_of_a_mask_is_refused(tree: Path) -> None:
    Image.new("L", SIZE).save(tree / "masks" / "val" / "b.png", format="JPEG")
    _load_fails(tree, r"cannot read the image '.*masks/val/b\.png': its content is not PNG")


def test_truncated_image_is_refused(tree: Path) -> None:
    path = tree / "images" / "train" / "b.bmp"
    path.write_bytes(path.read_bytes()[:200])
    _load_fails(tree, r"cannot read the image '.*images/train/b\.bmp': ")


def test_split_without_a_labelled_pixel_is_refused(tree: Path) -> None:
    for name in ("a", "b"):
        _save_mask(tree / "masks" / "val" / f"{name}.png", (255, 255))
    _load_fails(tree, r"the masks in '.*masks/val' must hold a class; all pixels are ignored")


def test_camvid_loads_eleven_classes_and_ignored_pixels(real_data: Path) -> None:
    root = real_data / "camvid"
    if not root.is_dir():
        pytest.skip("no camvid")
    dataset = Masks(root=str(root), image_size=48).load()
    assert (len(dataset.train), len(dataset.val)) == (367, 101)
    assert dataset.mask_names == tuple(f"class {index}" for index in range(11))
    for split in (dataset.train, dataset.val):
        assert split.images.shape[1:] == (3, 48, 48)
        assert set(np.unique(split.masks)) == {*range(11), 255}


def test_zero_is_ignored_where_the_source_says_so_and_the_others_move_down(tree: Path) -> None:
    dataset = Masks(root=str(tree), image_size=8, ignore_zero=True).load()
    assert dataset.train.masks is not None
    assert dataset.train.masks.tolist() == [[[255] * 4 + [1] * 4] * 8, [[255] * 4 + [1] * 4] * 8]
    assert dataset.mask_names == ("class 0", "class 1")
    with pytest.raises(ValidationError, match="ignore_zero must be false for 'ade20k'"):
        DATA_SOURCES["ade20k"](root="anywhere", ignore_zero=True)
