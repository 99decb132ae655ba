"""Data sets of the package ``datasets``, as it writes them itself: saved, Parquet, Arrow, image folders, streams."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import DATA_SOURCES, Dataset
from specvit.data.sources.hugging_face import HuggingFace
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

SIZE = 8
COUNTS = {"train": 6, "validation": 4}
NAMES = ["cat", "dog"]


def pixels(split: str, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng([len(split), number])
    return rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)


def encode(array: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def encoded(split: str, number: int) -> bytes:
    return encode(pixels(split, number))


def mask_of(split: str, number: int) -> bytes:
    return encode(pixels(split, number)[..., 0] % 5)


@pytest.fixture(scope="session")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import datasets with a cache of its own, and without the network."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("huggingface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield datasets
        datasets.enable_progress_bars()


@pytest.fixture
def tables(hf: Any) -> Any:
    """Make a DatasetDict with the columns image, label, name, mask and weight."""
    features = hf.Features(
        image=hf.Image(), label=hf.ClassLabel(names=NAMES), name=hf.Value("string"), mask=hf.Image(),
        weight=hf.Value("float32"),
    )  # fmt: skip

    def table(split: str, count: int) -> Any:
        columns = {
            "image": [{"bytes": encoded(split, i), "path": None} for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "name": [NAMES[i % 2] for i in range(count)],
            "mask": [{"bytes": mask_of(split, i), "path": None} for i in range(count)],
            "weight": [0.5] * count,
        }
        return hf.Dataset.from_dict(columns, features=features)

    return hf.DatasetDict({split: table(split, count) for split, count in COUNTS.items()})


@pytest.fixture
def saved(tables: Any, tmp_path: Path) -> Path:
    tables.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def parquet(tables: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split, table in tables.items():
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for split, folder in (("train", "train"), ("validation", "val")):
        for number in range(COUNTS[split]):
            path = root / folder / NAMES[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(split, number))
    return root


@pytest.fixture
def expected(image_folder: Path) -> Dataset:
    """Return what our own image folder makes of the same files: sorted by class."""
    return ImageFolder(root=str(image_folder), image_size=SIZE).load()


def load(path: Path | str, **fields: Any) -> Dataset:
    return HuggingFace(path=str(path), image_size=SIZE, **fields).load()


def by_class(split: Any) -> Any:
    return split.images[np.argsort(split.labels, kind="stable")]


def assert_expected(dataset: Dataset, expected: Dataset) -> None:
    assert dataset.class_names == ("cat", "dog")
    for found, wanted in ((dataset.train, expected.train), (dataset.val, expected.val)):
        assert found.targets == {"labels"}
        np.testing.assert_array_equal(by_class(found), wanted.images)
        assert found.labels is not None
        assert found.labels.dtype == np.int64
        np.testing.assert_array_equal(np.sort(found.labels), wanted.labels)


def test_source_is_found_by_name_and_reading_its_settings_imports_no_datasets() -> None:
    assert DATA_SOURCES["hugging_face"] is HuggingFace
    assert HuggingFace.path_fields == {"path", "streaming", "cache", "cache_folder", "max_pixels", "max_shared"}
    assert HuggingFace.extra == ("datasets", "huggingface")
    code = "import sys, specvit.data; sys.exit('datasets' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_saved_data_set_is_what_its_images_are_in_a_folder(saved: Path, expected: Dataset) -> None:
    dataset = load(saved)
    assert_expected(dataset, expected)
    assert dataset.train.labels is not None
    assert dataset.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert_expected(load(saved, label_column="name"), expected)


def test_a_folder_of_parquet_files_is_what_its_images_are_in_a_folder(parquet: Path, expected: Dataset) -> None:
    assert_expected(load(parquet), expected)


def test_a_folder_of_arrow_files_is_what_its_images_are_in_a_folder(
    saved: Path, tmp_path: Path, expected: Dataset
) -> None:
    (tmp_path / "arrow").mkdir()
    for split in COUNTS:
        shutil.copy(saved / split / "data-00000-of-00001.arrow", tmp_path / "arrow" / f"{split}.arrow")
    assert_expected(load(tmp_path / "arrow"), expected)


def test_a_folder_of_images_is_what_our_own_source_makes_of_it(image_folder: Path, expected: Dataset) -> None:
    assert_expected(load(image_folder), expected)


@pytest.mark.parametrize("tree", ["parquet", "image_folder"])
def test_a_stream_is_what_the_whole_is(tree: str, request: pytest.FixtureRequest, expected: Dataset) -> None:
    path: Path = request.getfixturevalue(tree)
    # More than there are: the stream ends before.
    streamed = load(path, streaming=True, num_train=100, num_val=100)
    assert_expected(streamed, expected)
    assert streamed.fingerprint == load(path).fingerprint


@pytest.mark.parametrize("streaming", [False, True])
def test_the_first_images_are_taken_where_a_number_is_given(parquet: Path, streaming: bool) -> None:
    dataset, whole = load(parquet, num_train=5, num_val=1, streaming=streaming), load(parquet)
    np.testing.assert_array_equal(dataset.train.images, whole.train.images[:5])
    np.testing.assert_array_equal(dataset.val.images, whole.val.images[:1])
    assert dataset.fingerprint != whole.fingerprint


def test_masks_are_what_the_source_masks_makes_of_the_same_files(saved: Path, tmp_path: Path) -> None:
    root = tmp_path / "masks"
    for split, folder in (("train", "train"), ("validation", "val")):
        for kind, content in (("images", encoded), ("masks", mask_of)):
            (root / kind / folder).mkdir(parents=True)
            for number in range(COUNTS[split]):
                (root / kind / folder / f"{number}.png").write_bytes(content(split, number))
    ours, theirs = Masks(root=str(root), image_size=SIZE).load(), load(saved, mask_column="mask")
    assert theirs.mask_names == ours.mask_names == tuple(f"class {index}" for index in range(5))
    for found, wanted in ((theirs.train, ours.train), (theirs.val, ours.val)):
        assert found.targets == {"labels", "masks"}
        np.testing.assert_array_equal(found.images, wanted.images)
        np.testing.assert_array_equal(found.masks, wanted.masks)
    named = load(saved, mask_column="mask", label_column=None, mask_names=tuple("abcde"))
    assert named.mask_names == tuple("abcde")
    assert (named.class_names, named.train.targets) == ((), {"masks"})
    with pytest.raises(DataError, match=r"mask of split 'train' .*row \d+ must hold indices below 4.*data\.mask_names"):
        load(saved, mask_column="mask", mask_names=tuple("abcd"))


def test_targets_follow_from_the_columns() -> None:
    assert HuggingFace(path="x").targets == {"labels"}
    assert HuggingFace(path="x", label_column=None).targets == frozenset()
    assert HuggingFace(path="x", mask_column="mask").targets == {"labels", "masks"}


@pytest.mark.parametrize("tree", ["saved", "parquet", "image_folder"])
@pytest.mark.parametrize("fields", [{}, {"streaming": True, "num_train": 5, "num_val": 9}], ids=["whole", "stream"])
def test_on_disk_it_is_what_it_is_in_memory(
    tree: str, fields: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(tree)
    memory = load(path, **fields)
    for _ in range(2):
        disk = load(path, cache="disk", cache_folder=str(tmp_path / "cache"), **fields)
        assert (disk.fingerprint, disk.class_names) == (memory.fingerprint, memory.class_names)
        assert isinstance(disk.train.images, np.memmap)
        for one, other in ((disk.train, memory.train), (disk.val, memory.val)):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_fingerprint_follows_images_and_classes(hf: Any, tables: Any, saved: Path, tmp_path: Path) -> None:
    first = load(saved).fingerprint
    assert load(shutil.move(saved, tmp_path / "moved")).fingerprint == first
    other = tables["validation"].select([0, 1, 3, 2])
    hf.DatasetDict(train=tables["train"], validation=other).save_to_disk(str(tmp_path / "other"))
    assert load(tmp_path / "other").fingerprint != first
    assert load(tmp_path / "moved", label_column=None).fingerprint != first


def test_a_truncated_image_is_refused_by_split_and_row(hf: Any, tables: Any, tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        content = encode(pixels("train", 2), kind)

        def cut(row: dict[str, Any], index: int, content: bytes = content) -> dict[str, Any]:
            return {"image": {"bytes": content[: len(content) // 2], "path": None}} if index == 2 else row

        broken = tables["train"].cast_column("image", hf.Image(decode=False)).map(cut, with_indices=True)
        folder = tmp_path / kind
        hf.DatasetDict(train=broken, validation=tables["validation"]).save_to_disk(str(folder))
        with pytest.raises(DataError, match=rf"cannot read the image \"split 'train' of '.*/{kind}', row 2\""):
            load(folder)


def test_a_truncated_file_of_a_folder_is_refused_by_split_and_row(image_folder: Path) -> None:
    path = image_folder / "val/dog/3.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot read the image \"split 'validation' of '.*images', row 3\""):
        load(image_folder)


def test_a_truncated_parquet_file_is_refused_by_path(parquet: Path) -> None:
    path = parquet / "train-00000-of-00001.parquet"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=rf"cannot (open|read) .*'{parquet}'"):
        load(parquet)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"image_column": "picture"}, r"data\.image_column: split 'train' of .* has no column 'picture', only image, "),
        ({"label_column": "fine"}, r"data\.label_column: .* no column 'fine'"),
        ({"mask_column": "seg"}, r"data\.mask_column: .* no column 'seg'"),
        ({"val_split": "test"}, r"no split 'test', only train, validation"),
        ({"image_column": "label"}, "row 0 must hold an encoded image, not int"),
        ({"label_column": "weight"}, r"the label of split 'train' of '.*', row 0 must be a class index.*not 0\.5"),
        ({"mask_column": "image"}, "must be an 8-bit PNG with one channel"),
    ],
)
def test_a_column_or_split_that_does_not_serve_is_refused(fields: dict[str, Any], rule: str, saved: Path) -> None:
    with pytest.raises(DataError, match=rule):
        load(saved, **fields)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_split_that_is_not_there_is_refused(parquet: Path, streaming: bool) -> None:
    with pytest.raises(DataError, match=r"cannot open '.*parquet': .*split.*\[.train., .validation.\]"):
        load(parquet, val_split="test", streaming=streaming, num_train=1, num_val=1)


def test_one_saved_split_alone_is_refused(tables: Any, tmp_path: Path) -> None:
    tables["train"].save_to_disk(str(tmp_path / "one"))
    with pytest.raises(DataError, match=r"'.*one' must hold two splits"):
        load(tmp_path / "one")


@pytest.mark.parametrize("path", ["./nothing", "/no/such/folder", "a/b/c", "~nobody-of-that-name/x"])
def test_a_folder_that_is_not_there_is_refused_and_not_looked_up(path: str, hf: Any) -> None:
    with pytest.raises(DataError, match=r"data\.path: "):
        load(path)


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_refused_and_the_current_folder_is_not_listed(path: str, hf: Any) -> None:
    with pytest.raises(DataError, match=rf"data\.path: no folder '{path}'"):
        load(path)


def test_a_name_on_the_hub_that_cannot_be_reached_is_refused(hf: Any) -> None:
    with pytest.raises(DataError, match=r"data\.path: cannot open 'nobody/nothing', which is no folder here: "):
        load("nobody/nothing")


class Exploit:
    """Make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["train.pkl", "train.pickle", "train.txt", "images.py", "train.csv", "train.h5"])
def test_other_files_than_those_of_images_are_refused_and_not_run(name: str, hf: Any, tmp_path: Path) -> None:
    harmed, folder = tmp_path / "harmed", tmp_path / "images"
    folder.mkdir()
    script = f"import os\nos.mkdir({str(harmed)!r})\n"
    content = script.encode() if name.endswith(".py") else pickle.dumps(Exploit(harmed))
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"data\.path: "):
        load(folder)
    assert not harmed.exists()


def test_entries_and_columns_that_would_run_code_are_not_run(hf: Any, tables: Any, saved: Path, tmp_path: Path) -> None:
    harmed = tmp_path / "harmed"
    content = pickle.dumps(Exploit(harmed))
    for name in ("_hashes.pkl", "state.pickle", "saved.py"):
        (saved / name).write_bytes(content)
    assert len(load(saved).train) == COUNTS["train"]
    row = {"image": {"bytes": content, "path": None}, "label": 0}
    table = hf.Dataset.from_list([row], features=hf.Features(image=hf.Image(), label=hf.Value("int64")))
    hf.DatasetDict(train=table, validation=table).save_to_disk(str(tmp_path / "bad"))
    with pytest.raises(DataError, match="content is not JPEG or PNG"):
        load(tmp_path / "bad")
    assert not harmed.exists()


def test_a_saved_description_that_is_damaged_is_refused(saved: Path) -> None:
    (saved / "train" / "state.json").write_text(json.dumps({"_data_files": 3}))
    with pytest.raises(DataError, match=r"data\.path: cannot open '.*saved'"):
        load(saved)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"streaming": True, "num_train": 5}, "streaming needs num_train and num_val"),
        ({"mask_names": ("a", "a")}, "mask_names must differ"),
        ({"mask_names": tuple(map(str, range(256)))}, "at most 255 classes, not 256"),
    ],
)
def test_settings_that_break_a_rule_are_refused(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        HuggingFace(path="x", **fields)


def test_without_the_package_one_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("specvit.data.base.find_spec", lambda _: None)
    source = HuggingFace(path=str(tmp_path))
    rule = r"data\.source 'hugging_face' needs the package 'datasets'.*: pip install \"specsweep\[huggingface\]\""
    for act in (source.check_installed, source.load):
        with pytest.raises(DataError, match=rule):
            act()
