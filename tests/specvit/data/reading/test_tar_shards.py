"""Shards written by tarfile and by the webdataset package; damage of every kind."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from specvit.data.reading.tar_shards import expand_pattern, index_shards
from specvit.errors import DataError


def write_tar(path: Path, entries: Iterable[tuple[str, bytes]], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def index(path: Path, *kinds: str) -> dict[str, dict[str, bytes]]:
    samples = index_shards([path], kinds=frozenset(kinds), what="train")
    return {sample.key: {kind: sample.read(kind) for kind in sample.entries} for sample in samples}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    entries = [("1.jpg", b"x" * 700), ("1.cls", b"3"), ("2.jpg", b"y" * 90), ("2.cls", b"4")]
    return write_tar(tmp_path / "a.tar", entries)


def test_entries_of_one_key_are_one_sample_in_the_order_of_the_shard(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("b/10.seg.png", b"mask"), ("b/10.JPG", b"ten"), ("b/10.cls", b"1"), ("b/10.pickle", b"no"),
            ("a/9.jpg", b"nine"), ("a/9.cls", b"0"), ("._9.jpg", b"hidden"), ("README", b"no kind"),
            ("v1.0/7.jpg", b"seven"),
        ],
    )  # fmt: skip
    found = index(path, "jpg", "cls")
    assert list(found.items()) == [
        ("b/10", {"jpg": b"ten", "cls": b"1"}),
        ("a/9", {"jpg": b"nine", "cls": b"0"}),
        ("v1.0/7", {"jpg": b"seven"}),
    ]


def test_folders_and_links_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
            tar.addfile(info)
    assert index(tmp_path / "a.tar", "jpg") == {}


def test_shards_of_the_webdataset_package_are_read_as_it_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(12):
            name = f"{'long' * 40}/{number:04}" if number % 2 else f"{number:04}"
            writer.write({"__key__": name, "jpg": bytes([number]) * (number * 100), "cls": number})
    theirs = {
        sample["__key__"]: {"jpg": sample["jpg"], "cls": sample["cls"]}
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    }
    assert index(path, "jpg", "cls") == theirs
    assert len(theirs) == 12


def test_an_entry_of_no_wanted_kind_is_no_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("README.md", b"about"), ("1.jpg", b"x"), ("1.txt", b"a cat")])
    assert index(path, "jpg", "cls") == {"1": {"jpg": b"x"}}


def test_a_sparse_entry_is_refused_by_shard_and_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("1.jpg")
        info.size = 4
        info.pax_headers = {"GNU.sparse.map": "0,2,1000,2", "GNU.sparse.size": "1002"}
        tar.addfile(info, io.BytesIO(b"data"))
    with pytest.raises(DataError, match=r"the shard '.*a\.tar' must hold whole entries, not a sparse one, as '1\.jpg'"):
        index(tmp_path / "a.tar", "jpg")


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.jpg", b"y")])
    with pytest.raises(DataError, match=r"a\.tar' must hold '1\.jpg' once"):
        index(path, "jpg")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_shard_is_refused(mode: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"x")], mode=mode)
    with pytest.raises(DataError, match=r"cannot read the shard '.*a\.tar' as a tar file that is not compressed"):
        index(path, "jpg")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 4096])
def test_a_file_that_is_no_tar_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the shard '.*a\.tar'"):
        index(tmp_path / "a.tar", "jpg")


# Entry 1.jpg takes bytes 512 to 1536, 1.cls 2048 to 2560, 2.jpg 3072 to 3584, 2.cls 4096 to 4608.
@pytest.mark.parametrize("length", [100, 600, 1000, 1536, 1600, 2050, 2560, 2600, 3584, 4000, 4096, 4600, 4608])
def test_a_shard_that_is_cut_off_anywhere_is_refused(length: int, shard: Path) -> None:
    os.truncate(shard, length)
    with pytest.raises(DataError, match=r"cannot read the shard '.*a\.tar'"):
        index(shard, "jpg", "cls")


def test_a_shard_with_a_damaged_header_in_its_middle_is_refused(shard: Path) -> None:
    # tarfile takes such a header for the end, and would lose what follows.
    content = bytearray(shard.read_bytes())
    content[2560 + 150] ^= 0xFF  # in the checksum of 2.jpg
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar': it is damaged or cut off after byte 2560"):
        index(shard, "jpg", "cls")


def test_a_shard_that_shrinks_after_it_was_indexed_is_refused(shard: Path) -> None:
    sample = index_shards([shard], kinds=frozenset({"jpg"}), what="train")[1]
    os.truncate(shard, 3100)
    with pytest.raises(DataError, match=r"a\.tar: 2\.jpg': the shard is cut off"):
        sample.read("jpg")
    shard.unlink()
    with pytest.raises(DataError, match=r"a\.tar: 2\.jpg': No such file"):
        sample.read("jpg")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    for name in ("t-08", "t-09", "t-10", "t-11", "v-0"):
        (tmp_path / "s" / f"{name}.tar").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s/t-{08..11}.tar", ["t-08", "t-09", "t-10", "t-11"]),
        ("s/t-{0..1}{1..1}.tar", None),
        ("s/t-{1..1}{0..1}.tar", ["t-10", "t-11"]),
        ("s/t-*.tar", ["t-08", "t-09", "t-10", "t-11"]),
        ("s/t-1?.tar", ["t-10", "t-11"]),
        ("*/v-0.tar", ["v-0"]),
        ("s/v-0.tar", ["v-0"]),
    ],
)
def test_patterns_name_their_shards_in_order(pattern: str, names: list[str] | None, shards: Path) -> None:
    if names is None:
        with pytest.raises(DataError, match=r"data\.train: no shard '.*s/t-01\.tar'"):
            expand_pattern(shards, pattern, field="data.train")
        return
    found = expand_pattern(shards, pattern, field="data.train")
    assert [path.stem for path in found] == names


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("s/x-*.tar", r"data\.val: no shard in '.*' is called 's/x-\*\.tar'"),
        ("s/t-{08..12}.tar", r"data\.val: no shard '.*t-12\.tar'"),
        ("s", r"data\.val: no shard '.*s'"),
        ("s/a**b*.tar", r"data\.val: 's/a\*\*b\*\.tar' is no pattern of names: |data\.val: no shard in '.*' is called"),
        ("s/t-{11..08}.tar", "must not fall"),
        ("{0..99999}{0..9}.tar", "at most 100000 shards, not 1000000"),
        ("{0..99999999999999999999}.tar", "at most 100000 shards"),
    ],
)
def test_patterns_that_name_no_shard_are_refused(pattern: str, rule: str, shards: Path) -> None:
    with pytest.raises(DataError, match=rule):
        expand_pattern(shards, pattern, field="data.val")
