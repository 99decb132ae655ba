"""Bundles that a stranger may have sent: refused with one message, and nothing is extracted, followed or unfolded."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bundle import files_of_folder, pack, read_bundle
from orchestrator.verify import verify
from specvit.errors import SpecsweepError

from ...long_run import IS_LONG
from ...orchestrator.hand_made_zip import make_zip, manifest_of
from .hostile_results import HOSTILE, Command

EXAMPLES = settings(max_examples=3_000 if IS_LONG else 40, deadline=None)
FILES = files_of_folder(Path(__file__).parents[3] / "results" / "studies" / "learning")
MEMBERS = [("MANIFEST", manifest_of(FILES)), *sorted(FILES.items())]
WHOLE = pack(FILES)


def with_size(size: int) -> bytes:
    """Return a zip whose first member says that it has another size than it has."""
    content = bytearray(make_zip(MEMBERS))
    directory = content.index(b"PK\x01\x02")
    content[directory + 20 : directory + 28] = struct.pack("<2L", size, size)
    return bytes(content)


def with_end(**changes: int) -> bytes:
    """Return a zip whose end says something else."""
    content = make_zip(MEMBERS)
    names = ("disk", "start", "here", "members", "size", "offset", "comment")
    values = dict(zip(names, struct.unpack("<4H2LH", content[-18:]), strict=True)) | changes
    return content[:-18] + struct.pack("<4H2LH", *values.values())


FORGED: dict[str, tuple[bytes, str]] = {
    "bomb": (
        make_zip([*MEMBERS, ("diagnostics.csv", bytes(1 << 22))], compression=zipfile.ZIP_DEFLATED),
        "member 'MANIFEST' must be neither compressed nor encrypted",
    ),
    "absolute path": (make_zip([*MEMBERS, ("/etc/passwd", b"x")]), "member '/etc/passwd' is no file of a bundle"),
    "parent": (make_zip([*MEMBERS, ("../table.md", b"x")]), "member '../table.md' is no file of a bundle"),
    "folder": (make_zip([*MEMBERS, ("x/", b"")]), "member 'x/' is no file of a bundle"),
    "drive": (make_zip([*MEMBERS, ("C:\\x", b"")]), "member 'C:\\\\x' is no file of a bundle"),
    "hostile name": (make_zip([*MEMBERS, (HOSTILE, b"")]), "is no file of a bundle"),
    "link": (
        make_zip([("table.md", b"/etc/passwd")], mode=stat.S_IFLNK | 0o777),
        "member 'table.md' is a link, a folder or the like, not a file",
    ),
    "device": (
        make_zip([("table.md", b"")], mode=stat.S_IFCHR | 0o666), "member 'table.md' is a link, a folder or the like"
    ),
    "no mode": (make_zip([("table.md", b"")], mode=0), "member 'table.md' is a link, a folder or the like"),
    "twice": (make_zip([*MEMBERS, ("table.md", b"other")]), "member 'table.md' is there twice"),
    "huge": (with_size((1 << 32) - 2), "member 'MANIFEST' must have at most 268435456 bytes"),
    "larger than it is": (with_size(1 << 20), "is damaged"),
    "patch elsewhere": (make_zip([("uncommitted/../.patch", b"")]), "'uncommitted/../.patch' is no file of a bundle"),
    "many": (make_zip([(f"{i}.csv", b"") for i in range(1000)]), "must have at most 111 members"),
    "directory of gigabytes": (with_end(size=(1 << 32) - 2), "must have at most 111 members"),
    "comment": (with_end(comment=9), "its end is another one"),
    "more than there is": (with_end(offset=1 << 31), "is damaged"),
    "64 bits": (WHOLE[:-22] + b"PK\x06\x07" + bytes(16) + WHOLE[-22:], "its end is another one"),
    "before it": (b"#!/bin/sh\n" + WHOLE, "is no bundle"),
    "behind it": (WHOLE + b"x", "its end is another one"),
    "in between": (WHOLE[:-22].replace(b"PK\x01\x02", b"xxPK\x01\x02", 1) + WHOLE[-22:], "is damaged"),
    "other time": (make_zip(MEMBERS, when=(2026, 1, 1, 0, 0, 0)), "is not as 'specsweep bundle' wrote it"),
    "other order": (make_zip(MEMBERS[::-1]), "is not as 'specsweep bundle' wrote it"),
    "no manifest": (make_zip(MEMBERS[1:]), "has no MANIFEST"),
    "later format": (
        make_zip([("MANIFEST", b"# specsweep bundle 2\n")]), "MANIFEST:1: must be '# specsweep bundle 1', the format"
    ),
    "manifest of control characters": (make_zip([("MANIFEST", HOSTILE.encode())]), "MANIFEST:1: must be "),
    "manifest of other files": (
        make_zip([("MANIFEST", MEMBERS[0][1] + b"0" * 64 + b"  ../x\n")]), "MANIFEST:10: must be a SHA-256 and a name"
    ),
    "empty": (b"", "is no bundle"),
    "no members": (make_zip([]), "is no bundle"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_bundle_is_refused_with_its_reason(kind: str, command: Command, tmp_path: Path) -> None:
    content, reason = FORGED[kind]
    (tmp_path / "sent.zip").write_bytes(content)
    ended = command("verify", "sent.zip")
    assert ended.returncode == 2
    assert ended.stderr.startswith("specsweep: sent.zip: ")
    assert reason in ended.stderr
    assert ended.stderr[:-1].isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["sent.zip"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(
    make: Callable[[Path], None], command: Command, tmp_path: Path
) -> None:
    make(tmp_path / "sent.zip")
    ended = command("verify", "sent.zip")
    assert ended.returncode == 2
    assert "cannot be read (Not a regular file)" in ended.stderr


@EXAMPLES
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed_without_being_found(
    tmp_path_factory: pytest.TempPathFactory, place: int, by: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    content = bytearray(WHOLE)
    content[place] ^= by
    path.write_bytes(content)
    with pytest.raises(SpecsweepError) as refused:
        read_bundle(path)
    assert str(refused.value).isprintable()


@EXAMPLES
@given(st.integers(0, len(WHOLE)), st.binary(max_size=40), st.integers(0, 400))
def test_damaged_bundles_are_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, added: bytes, removed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    content = WHOLE[:place] + added + WHOLE[place + removed :]
    path.write_bytes(content)
    if content == WHOLE:
        assert not verify(path).differences
        return
    with pytest.raises(SpecsweepError):
        read_bundle(path)
