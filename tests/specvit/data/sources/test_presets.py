"""ADE20K, Cityscapes, VOC and ImageNet in miniature, laid out as their archives unpack."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from specvit.data import DATA_SOURCES
from specvit.data.encoded import EncodedImages
from specvit.data.sources import imagenet
from specvit.data.sources.ade20k import Ade20k
from specvit.data.sources.cityscapes import Cityscapes
from specvit.data.sources.imagenet import ImageNet
from specvit.data.sources.masks import Masks
from specvit.data.sources.voc import Voc
from specvit.errors import DataError

from ..reading.test_pixels import encode, photograph

SIZE = 8


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), (10, 200, 30)).save(path)
    path.write_bytes(path.read_bytes() + str(path).encode())  # another file each


def _mask(path: Path, *indices: int, palette: bool = False) -> None:
    """Write a mask whose columns hold the indices, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.tile(np.array(indices, dtype=np.uint8), (SIZE, 1)))
    if palette:
        mask.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
    mask.save(path)


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    for split in ("training", "validation"):
        _image(tmp_path / "images" / split / "ADE_1.jpg")
        _mask(tmp_path / "annotations" / split / "ADE_1.png", 0, 1, 2, 150, 150, 3, 4, 151)
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for split, city in (("train", "aachen"), ("train", "bonn"), ("val", "lindau")):
        stem = f"{city}/{city}_000000_000019"
        _image(tmp_path / "leftImg8bit" / split / f"{stem}_leftImg8bit.png")
        _mask(tmp_path / "gtFine" / split / f"{stem}_gtFine_labelIds.png", 0, 7, 8, 29, 33, 255, 11, 1)
        _mask(tmp_path / "gtFine" / split / f"{stem}_gtFine_instanceIds.png", *range(8))
    return tmp_path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for split, names in (("train", ["2007_1", "2007_3"]), ("val", ["2007_2"])):
        listing = tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{name}\n" for name in names))
        for name in names:
            _image(tmp_path / "JPEGImages" / f"{name}.jpg")
            _mask(tmp_path / "SegmentationClass" / f"{name}.png", 0, 1, 20, 255, 5, 6, 7, 8, palette=True)
    _image(tmp_path / "JPEGImages" / "2007_9.jpg")  # for detection only: no split names it
    return tmp_path


@pytest.mark.parametrize(
    ("tree", "source", "num_train", "num_classes", "first_row"),
    [
        ("ade20k", Ade20k, 1, 150, [255, 0, 1, 149, 149, 2, 3, 255]),
        ("cityscapes", Cityscapes, 2, 19, [255, 0, 1, 255, 18, 255, 2, 255]),
        ("voc", Voc, 2, 21, [0, 1, 20, 255, 5, 6, 7, 8]),
    ],
)
def test_a_preset_finds_its_files_and_maps_its_labels(
    tree: str, source: type[Masks], num_train: int, num_classes: int, first_row: list[int],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    root: Path = request.getfixturevalue(tree)
    assert DATA_SOURCES[tree] is source
    dataset = source(root=str(root), image_size=SIZE).load()
    assert (len(dataset.train), len(dataset.val)) == (num_train, 1)
    assert len(set(dataset.mask_names)) == num_classes
    assert dataset.val.masks is not None
    assert dataset.val.masks[0, 0].tolist() == first_row


def test_a_missing_mask_is_named(ade20k: Path) -> None:
    (ade20k / "annotations" / "validation" / "ADE_1.png").unlink()
    with pytest.raises(DataError, match=r"ADE_1\.jpg' has no mask '.*annotations/validation/ADE_1\.png'"):
        Ade20k(root=str(ade20k)).load()


def test_cityscapes_without_its_label_ids_or_images_is_refused(cityscapes: Path) -> None:
    (cityscapes / "gtFine/train/bonn/bonn_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"bonn_000000_000019_gtFine_labelIds\.png"):
        Cityscapes(root=str(cityscapes)).load()
    for path in (cityscapes / "leftImg8bit/train").glob("*/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"no images in .*cityscapes reads"):
        Cityscapes(root=str(cityscapes)).load()


@pytest.mark.parametrize("names", ["", "2007_7\n"])
def test_voc_lists_that_name_nothing_or_too_much_are_refused(voc: Path, names: str) -> None:
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text(names)
    with pytest.raises(DataError, match=r"val\.txt' names (no image|'2007_7', which has no image)"):
        Voc(root=str(voc)).load()
    (voc / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*val\.txt"):
        Voc(root=str(voc)).load()


@pytest.mark.parametrize("gone", ["JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png"])
def test_files_that_a_voc_list_names_may_be_gone_where_bad_images_are_skipped(voc: Path, gone: str) -> None:
    (voc / gone).unlink()
    with pytest.raises(DataError, match=r"train\.txt' names '2007_1', which has no (image|mask)"):
        Voc(root=str(voc), keep="encoded").load()
    images = Voc(root=str(voc), keep="encoded", on_bad_image="skip").load().train.images
    assert isinstance(images, EncodedImages)
    assert images.known_bad.keys() == {0}
    assert gone in images.known_bad[0]
    (voc / "SegmentationClass" / "2007_3.png").write_bytes(b"")
    with pytest.raises(DataError, match=rf"must hold a class; all .*; 2 of 2 images left out: cannot .*{gone}'"):
        Voc(root=str(voc), keep="encoded", on_bad_image="skip").load()


@pytest.mark.parametrize("name", ["../2007_1", "/2007_1", "x/../2007_1"])
def test_voc_lists_that_leave_the_folders_are_refused(name: str, voc: Path) -> None:
    for folder, copied, ending in (("JPEGImages", "2007_1", "jpg"), ("SegmentationClass", "2007_1", "png")):
        (voc / f"{copied}.{ending}").write_bytes((voc / folder / f"{copied}.{ending}").read_bytes())
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match=rf"val\.txt' must name images within '.*JPEGImages', not '{name}'"):
        Voc(root=str(voc)).load()


def test_imagenet_asks_for_all_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            _image(tmp_path / split / wnid / f"{wnid}_1.jpeg")
    with pytest.raises(DataError, match="must hold 1000 class folders, not 2"):
        ImageNet(root=str(tmp_path)).load()
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 2)
    dataset = ImageNet(root=str(tmp_path), image_size=SIZE).load()
    assert dataset.class_names == ("n01440764", "n01443537")
    assert isinstance(dataset.train.images, EncodedImages)
    assert ImageNet(root=str(tmp_path)).image_size == 224


WNIDS = ("n01440764", "n01443537", "n02000000")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the official archives of three classes; numbers of classes are not in the order of their names."""
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 3)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, wnid in enumerate(reversed(WNIDS)):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for image in (2, 1):
                    _add(tar, f"{wnid}_{image}.JPEG", encode(photograph(30 + image, 40, seed=10 * number + image)))
            _add(outer, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for image in range(1, 5):
            _add(tar, f"ILSVRC2012_val_{image:08}.JPEG", encode(photograph(40, 30 + image, seed=100 + image)))
    synsets = np.array(
        [(3, WNIDS[0], 0), (1, WNIDS[1], 0), (2, WNIDS[2], 0), (4, "n00001740", 3)],
        dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "U9"), ("num_children", "i4")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        _add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        _add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", b"2\n3\n1\n3\n")
    return tmp_path


def test_the_official_archives_of_imagenet_are_read_where_they_lie(archives: Path) -> None:
    dataset = ImageNet(root=str(archives), image_size=SIZE).load()
    assert dataset.class_names == WNIDS
    assert dataset.train.labels is not None
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.val.labels is not None
    assert dataset.val.labels.tolist() == [0, 0, 1, 2]
    assert isinstance(dataset.train.images, EncodedImages)
    assert isinstance(dataset.val.images, EncodedImages)
    # The class of the last name lies first in the archive, and its images in another order.
    assert dataset.train.images.places.read(0) == encode(photograph(31, 40, seed=21))
    assert dataset.train.images.places.name(0).endswith("n01440764.tar: n01440764_1.JPEG")
    val = [encode(photograph(40, 30 + image, seed=100 + image)) for image in (2, 4, 3, 1)]
    assert [dataset.val.images.places.read(image) for image in range(4)] == val


def test_archives_of_imagenet_that_are_incomplete_are_refused(archives: Path) -> None:
    with pytest.raises(DataError, match=r"data.keep must be 'encoded' for the archives"):
        ImageNet(root=str(archives), keep="arrays").load()
    path = archives / "ILSVRC2012_img_val.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ILSVRC2012_img_val.tar"):
        ImageNet(root=str(archives)).load()
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(DataError, match=r"no file '.*devkit_t12.tar.gz': imagenet reads"):
        ImageNet(root=str(archives)).load()
