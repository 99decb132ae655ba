from __future__ import annotations

from pathlib import Path

from specvit.files.checksum import sha256_of


def test_checksum_is_that_of_fips_180(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
