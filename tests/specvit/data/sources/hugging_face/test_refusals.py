"""What is not there, is damaged, does not serve or would run code is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from specvit.errors import DataError

from .small_images import COUNTS, encode, load, pixels


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
