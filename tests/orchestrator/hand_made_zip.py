"""Zips written by hand: as bundles are, or with what no bundle has."""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
import zipfile
from collections.abc import Mapping, Sequence


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return "".join(["# specsweep bundle 1\n", *lines]).encode()


def make_zip(
    members: Sequence[tuple[str, bytes]],
    *,
    mode: int = stat.S_IFREG | 0o644,
    compression: int = zipfile.ZIP_STORED,
    when: tuple[int, int, int, int, int, int] = (1980, 1, 1, 0, 0, 0),
) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            member = zipfile.ZipInfo(name, when)
            member.create_system, member.external_attr, member.compress_type = 3, mode << 16, compression
            archive.writestr(member, content)
    return buffer.getvalue()
