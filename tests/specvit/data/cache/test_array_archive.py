"""Archives of arrays: read as they were written, or not at all; nothing is unpickled, unpacked or waited for."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvit.data.cache.array_archive import DamagedError, read_archive, write_archive
from specvit.errors import DataError

ABOUT = {"names": ["a\udc80", "b"]}
ARRAY = np.arange(3, dtype=np.int16)


def read(path: Path) -> tuple[Any, list[int]]:
    with read_archive(path) as (about, arrays):
        return about, arrays["x"].tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "x.npz"
    write_archive(path, ABOUT, {"x": ARRAY})
    return path


def test_what_was_written_is_read_and_no_damage_of_a_byte_is(path: Path) -> None:
    wanted, whole = (ABOUT, [0, 1, 2]), path.read_bytes()
    assert read(path) == wanted
    claims = whole.index(b"PK\x01\x02") + 8  # where an entry says whether it is encrypted
    for place, flip in [*((place, (0x01, 0x08, 0xFF)[place % 3]) for place in range(0, len(whole), 7)), (claims, 0x01)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        with suppress(DamagedError):
            assert read(path) == wanted  # such as the times of entries, which say nothing


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def archive(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def bomb() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array("{}"), x=np.zeros(1_000_000))
    return content.getvalue()


def array_file(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Hostile()),
        archive(about=np.array([_Hostile()], dtype=object), x=ARRAY),
        archive(about=np.array("{}"), x=np.array([_Hostile()], dtype=object)),
        archive(about=np.array("[" * 100_000), x=ARRAY),
        archive(about=np.array("{}")),
        archive(x=ARRAY),
        bomb(),
        array_file(b"((("),
        array_file(b"{'descr': '<i4', 'fortran_order': False, 'shape': (" + b"9" * 30 + b",), }"),
        b"",
    ],
)
def test_what_others_put_there_is_not_read(content: bytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="cannot be used"):
        read(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_nothing_is_waited_for(path: Path) -> None:
    path.unlink()
    with pytest.raises(DamagedError, match="is not there"):
        read(path)
    os.mkfifo(path)
    with pytest.raises(DamagedError, match="Not a regular file"):
        read(path)
    write_archive(path, ABOUT, {"x": ARRAY})
    assert read(path) == (ABOUT, [0, 1, 2])


def test_what_users_are_told_is_no_damage(path: Path) -> None:
    with pytest.raises(DataError, match="no room"), read_archive(path):
        raise DataError("no room")


@pytest.mark.parametrize("name", ["made/x.npz/x.npz", "a\0b/x.npz", "a" * 300])
def test_where_it_cannot_be_written_nothing_is_kept(name: str, path: Path) -> None:
    write_archive(path.parent.parent / name, ABOUT, {"x": ARRAY})
    assert [entry.name for entry in path.parent.parent.iterdir()] == ["made"]
    with pytest.raises(DamagedError):
        read(path.parent.parent / name)
