"""What the rows of a data set may make this package read, and which rows both splits may take."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import Dataset
from specvit.data.sources.hugging_face import HuggingFace
from specvit.errors import DataError

SIZE = 8
REFUSED = r"row 0 must hold an encoded image, or name a file of its own data set, not "


def encode(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decoded(*seeds: int) -> np.ndarray[Any, Any]:
    """Draw what images of the size that is asked for become: themselves."""
    images = [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for seed in seeds]
    return np.stack(images).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import datasets with a cache of its own, and without the network."""
    datasets = pytest.importorskip("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("huggingface"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield datasets


def load(path: Path, **fields: Any) -> Dataset:
    return HuggingFace(path=str(path), image_size=SIZE, **fields).load()


def write_rows(hf: Any, folder: Path, kind: str, path: str) -> Path:
    """Write both splits, the training image only named by its path."""
    features = hf.Features(image={"bytes": hf.Value("binary"), "path": hf.Value("string")}, label=hf.Value("int64"))
    images = {"train": {"bytes": None, "path": path}, "validation": {"bytes": encode(1), "path": "x"}}
    tables = {
        split: hf.Dataset.from_list([{"image": image, "label": 0}], features=features)
        for split, image in images.items()
    }
    if kind == "saved":
        hf.DatasetDict(tables).save_to_disk(str(folder))
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        for split, table in tables.items():
            table.to_parquet(str(folder / f"{split}.parquet"))
    return folder


@pytest.mark.parametrize("kind", ["saved", "parquet"])
@pytest.mark.parametrize(
    "path",
    ["{outside}/a.png", "file://{outside}/a.png", "local://{outside}/a.png", "../outside/a.png",
     "{folder}/../outside/a.png",
     "link.png", "https://localhost/a.png", "memory://a.png", "zip://a.png::{outside}/a.zip",
     "zip://a.png::zip://b.zip::{folder}/a.zip", "simplecache::file://{folder}/a.png", "", "a\0.png",
     "hf://datasets/nobody/nothing@main/a.png"],
)  # fmt: skip
def test_a_row_that_names_a_file_of_others_is_refused(path: str, kind: str, hf: Any, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    (outside / "a.png").write_bytes(encode(0))
    with zipfile.ZipFile(outside / "a.zip", "w") as archive:
        archive.writestr("a.png", encode(0))
    write_rows(hf, folder, kind, path.format(outside=outside, folder=folder))
    (folder / "link.png").symlink_to(outside / "a.png")
    with pytest.raises(DataError, match=f"split 'train' of '.*data', {REFUSED}"):
        load(folder)


@pytest.mark.parametrize("path", ["{folder}/a.png", "a.png", "deep/../a.png", "zip://b.png::{folder}/a.zip"])
def test_a_row_that_names_a_file_of_its_own_folder_is_read(path: str, hf: Any, tmp_path: Path) -> None:
    folder = write_rows(hf, tmp_path / "data", "saved", path.format(folder=tmp_path / "data"))
    (folder / "a.png").write_bytes(encode(0))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("b.png", encode(0))
    np.testing.assert_array_equal(load(folder).train.images, decoded(0))


@pytest.mark.parametrize(
    "path", ["a.png", "zip://c.png::a.zip", "zip://c.png::b.zip", "simplecache::/etc/hostname", "link::/etc/hostname"]
)
def test_a_row_that_names_a_missing_or_damaged_file_is_refused(path: str, hf: Any, tmp_path: Path) -> None:
    folder = write_rows(hf, tmp_path / "data", "saved", path)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("b.png", encode(0))
    (folder / "b.zip").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=rf"cannot read the image '{path}' of split 'train' of '.*', row 0: "):
        load(folder)


@pytest.mark.parametrize("fields", [{}, {"streaming": True, "num_train": 9, "num_val": 9}], ids=["whole", "stream"])
@pytest.mark.parametrize("form", ["files", "links", "linked_root", "archives"])
def test_image_folders_of_every_form_are_read(form: str, fields: dict[str, Any], hf: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "data"
    for split, seeds in (("train", (0, 1)), ("validation", (2, 3))):
        for number, seed in enumerate(seeds):
            # The package cannot tell the classes within archives from their folder.
            path = folder / split / ("a" if form == "archives" else "ab"[number]) / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            place = tmp_path / "elsewhere" / path.name if form == "links" else path
            place.write_bytes(encode(seed))
            if form == "links":
                path.symlink_to(place)
        if form == "archives":
            with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
                for path in sorted((folder / split).glob("*/*")):
                    archive.write(path, path.relative_to(folder / split))
                    path.unlink()
    if form == "linked_root":
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    dataset = load(folder, label_column=None if form == "archives" else "label", **fields)
    np.testing.assert_array_equal(dataset.train.images, decoded(0, 1))
    np.testing.assert_array_equal(dataset.val.images, decoded(2, 3))


def test_rows_of_the_hub_name_only_what_the_builder_fetched(
    hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specvit.data.extras import hugging_face_files as module

    monkeypatch.setattr(module.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    blob = tmp_path / "hub" / "datasets--a--b" / "blobs" / "1"
    other = tmp_path / "hub" / "datasets--a--c" / "1.png"
    link = tmp_path / "hub" / "datasets--a--b" / "snapshots" / "0" / "1.png"
    for path in (blob, other, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(b"blob")
    other.write_bytes(b"other")
    link.symlink_to(blob)
    of_images, of_rows = (module.files_of_hub("a/b", lists_images=lists) for lists in (True, False))
    assert of_images.read(str(link), "row") == b"blob"
    remote = "hf://datasets/a/b@0/train/1.png"
    for path in (str(link), str(blob), remote):
        with pytest.raises(DataError, match="row must hold an encoded image, or name a file of its own"):
            of_rows.read(path, "row")
    for path in (str(other), "/etc/hostname", "hf://datasets/a/bc@0/1.png", "hf://datasets/a/b@0/../c/1.png",
                 f"{remote}::hf://datasets/a/c@0/1.png"):  # fmt: skip
        with pytest.raises(DataError, match="row must hold an encoded image, or name a file of its own"):
            of_images.read(path, "row")
    asked: list[str] = []

    def fetch(path: str, mode: str) -> io.BytesIO:
        asked.append(f"{path} {mode}")
        return io.BytesIO(b"fetched")

    monkeypatch.setattr(module.fsspec, "open", fetch)
    assert of_images.read(remote, "row") == b"fetched"
    assert of_images.read("zip://1.png::hf://datasets/a/b@0/train.zip", "row") == b"fetched"
    assert asked == [f"{remote} rb", "zip://1.png::hf://datasets/a/b@0/train.zip rb"]


@pytest.mark.parametrize("column", ["image", "nested"])
def test_a_column_that_the_package_would_decode_itself_is_refused(column: str, hf: Any, tmp_path: Path) -> None:
    row = {"image": {"bytes": None, "path": "/etc/hostname"}, "nested": [{"bytes": None, "path": "/etc/hostname"}]}
    table = hf.Dataset.from_list([row], features=hf.Features(image=hf.Image(), nested=hf.List(hf.Image())))
    for split in ("train", "validation"):
        (tmp_path / "data").mkdir(exist_ok=True)
        table.to_parquet(str(tmp_path / "data" / f"{split}.parquet"))
    rule = rf"data\.label_column: split 'train' .* must hold class indices or names in '{column}', not (Image|List)"
    with pytest.raises(DataError, match=rule):
        load(tmp_path / "data", label_column=column)


@pytest.fixture
def numbered(hf: Any, tmp_path: Path) -> Path:
    """Write a split ``train`` of 6 images and a split ``test`` of 2."""
    (tmp_path / "data").mkdir()
    for split, seeds in (("train", range(6)), ("test", range(6, 8))):
        rows = [{"image": {"bytes": encode(seed), "path": None}, "label": 0} for seed in seeds]
        table = hf.Dataset.from_list(rows, features=hf.Features(image=hf.Image(), label=hf.Value("int64")))
        table.to_parquet(str(tmp_path / "data" / f"{split}.parquet"))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("train", "val", "limits"),
    [
        ("train", "train[:50%]", {}),
        ("train[:4]", "train[3:]", {}),
        ("train", "train+test", {}),
        ("all", "train[5:]", {}),
        ("train[-3:]", "train[50%:]", {}),
        ("train", "train[3:]", {"num_train": 4}),
        ("test+train", "train[1:]", {"num_train": 4}),
        ("train[2:]", "train", {"num_val": 3}),
    ],
)
def test_splits_that_share_rows_are_refused(train: str, val: str, limits: dict[str, int], numbered: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train_split and data\.val_split must not share rows, .*of 'train'"):
        load(numbered, train_split=train, val_split=val, **limits)


@pytest.mark.parametrize(
    ("train", "val", "limits", "seeds"),
    [
        ("train[:50%]", "train[50%:]", {}, ([0, 1, 2], [3, 4, 5])),
        ("train[:2]+test[:1]", "test[1:]+train[4:]", {}, ([0, 1, 6], [7, 4, 5])),
        ("train", "train[4:]", {"num_train": 4}, ([0, 1, 2, 3], [4, 5])),
        ("test+train", "train[2:]", {"num_train": 4}, ([6, 7, 0, 1], [2, 3, 4, 5])),
        ("train[3:]", "train", {"num_val": 3}, ([3, 4, 5], [0, 1, 2])),
    ],
)
def test_splits_that_share_no_row_are_read(
    train: str, val: str, limits: dict[str, int], seeds: tuple[list[int], list[int]], numbered: Path
) -> None:
    dataset = load(numbered, train_split=train, val_split=val, **limits)
    np.testing.assert_array_equal(dataset.train.images, decoded(*seeds[0]))
    np.testing.assert_array_equal(dataset.val.images, decoded(*seeds[1]))


def test_one_split_for_both_is_refused() -> None:
    with pytest.raises(ValidationError, match="val_split must differ from train_split, not be 'test' too"):
        HuggingFace(path="x", train_split="test", val_split="test")


def test_a_stream_finds_what_the_whole_decoded_and_other_limits_do_not(numbered: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for streaming in (True, False):
        limits = {"num_train": 3, "num_val": 2}
        load(numbered, val_split="test", streaming=streaming, cache="disk", cache_folder=str(cache), **limits)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    load(numbered, val_split="test", cache="disk", cache_folder=str(cache), num_train=2, num_val=2)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2
