"""What ``bundle`` writes: a sweep's tables with all they follow from, in one file that can be checked.

A bundle is a zip of plain files and a manifest of their SHA-256, which ``sha256sum -c MANIFEST`` reads too. The same
results give the same bytes, wherever and whenever: names are sorted, times and permissions are fixed, and nothing is
compressed, since what compression makes depends on the library. So a bundle cannot unfold to more than it is either.
It is read where it lies; nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.reports.diagnostics import csv_file as diagnostics_csv
from orchestrator.reports.environment import ENVIRONMENT_NAME
from orchestrator.reports.per_trial import curves_csv, metrics_csv, sweep_json, trials_csv
from orchestrator.reports.per_trial.csv_rows import MAX_BYTES
from orchestrator.reports.per_trial.sweep_data import SWEEP_COPY_NAME, SweepData, read_files
from orchestrator.reports.rendering import interaction_text
from orchestrator.reports.result_files import render_environment, table_texts, trial_texts
from orchestrator.storage.uncommitted import FOLDER_NAME, MOST_PATCHES, read_patches
from specvit.errors import SpecsweepError
from specvit.files.atomic import replacing
from specvit.files.regular import read_regular
from specvit.messages import one_line

FORMAT = 1
"""Version of what is in a bundle, in the first line of its manifest."""

MANIFEST_NAME = "MANIFEST"
MADE = ("table.md", "table.csv", interaction_text.CSV_NAME)
"""Files that follow from the others."""

FILES = (
    *(*MADE, trials_csv.CSV_NAME, metrics_csv.CSV_NAME, curves_csv.CSV_NAME, diagnostics_csv.CSV_NAME),
    *(sweep_json.JSON_NAME, SWEEP_COPY_NAME, ENVIRONMENT_NAME),
)
"""All files that a bundle may have, beside patches of code that no commit has."""

NEEDED = (*MADE[:2], trials_csv.CSV_NAME, sweep_json.JSON_NAME, SWEEP_COPY_NAME, ENVIRONMENT_NAME)
"""Files that every bundle has."""

_HEADER = f"# specsweep bundle {FORMAT}"
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = stat.S_IFREG | 0o644
_MAX_BUNDLE_BYTES = 1 << 30
_MAX_DIRECTORY_BYTES = 1 << 14
"""Of the list of members at the end: twice what all files take."""
_END = struct.Struct("<4s4H2LH")
_END_64 = b"PK\x06\x07"
_PATCH = re.compile(rf"{FOLDER_NAME}/[0-9a-f]{{12}}\.patch")
_LINE = re.compile(rf"([0-9a-f]{{64}})  ([A-Za-z0-9_.]+|{_PATCH.pattern})")
_SHOWN = 60


def files_of_ledger(ledger: Ledger, location: str | Path | None = None) -> dict[str, bytes]:
    """Return what a bundle of a sweep holds, as its ledger stands.

    Args:
        ledger: Open for reading.
        location: Path or URL of the sweep's results, where patches are; None = where the ledger is.

    Raises:
        SpecsweepError: If no trial was begun yet.
    """
    data, provenance = SweepData.of_ledger(ledger, with_training_ids=True), ledger.newest_provenance()
    if provenance is None:
        raise SpecsweepError(f"{ledger.path.parent}: no trial was begun yet; there is nothing to bundle")
    texts = table_texts(data) | trial_texts(data)
    if any(record.reports for record in data.records):
        texts[curves_csv.CSV_NAME] = curves_csv.render_curves(data.records)
    if diagnostics := ledger.diagnostics():
        texts[diagnostics_csv.CSV_NAME] = diagnostics_csv.render_diagnostics(data.records, diagnostics)
    texts |= {SWEEP_COPY_NAME: data.info.text, ENVIRONMENT_NAME: render_environment(provenance)}
    return {name: text.encode() for name, text in texts.items()} | read_patches(location or ledger.path.parent)


def files_of_folder(folder: Path) -> dict[str, bytes]:
    """Return what a bundle of a published study holds, whose tables are taken as they are.

    Raises:
        SpecsweepError: If a file is missing or cannot be read.
    """
    files = read_files(folder, FILES)
    missing = [name for name in NEEDED if name not in files]
    if missing:
        raise SpecsweepError(f"{folder}: lacks {', '.join(missing)}")
    return files


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a bundle.

    Args:
        files: Content by name; names are of ``FILES``, or those of patches.
    """
    lines = [_HEADER, *(f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in sorted(files))]
    return _zip(("\n".join(lines) + "\n").encode(), files)


def _zip(manifest: bytes, files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((MANIFEST_NAME, manifest), *sorted(files.items())):
            member = zipfile.ZipInfo(name, _TIME)
            member.create_system, member.external_attr = _UNIX, _MODE << 16
            archive.writestr(member, content)
    return buffer.getvalue()


def write_bundle(path: Path, files: Mapping[str, bytes]) -> str:
    """Write a bundle; a reader finds the old one or the new one.

    Args:
        path: The file; a bundle that lies there is replaced.
        files: Content by name.

    Returns:
        Its SHA-256.

    Raises:
        SpecsweepError: If another file lies there, a file is too large, or it cannot be written.
    """
    content = pack(files)
    too_large = [name for name, each in files.items() if len(each) > MAX_BYTES]
    if too_large or len(content) > _MAX_BUNDLE_BYTES:
        raise SpecsweepError(f"{path}: not written: {(too_large or ['the bundle'])[0]} is too large to be read again")
    if path.exists() and not _is_bundle(path):
        raise SpecsweepError(f"{path}: is there already, and is no bundle; give another name by -o")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _is_bundle(path: Path) -> bool:
    """Return whether a file begins as a bundle does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(30 + len(MANIFEST_NAME))
    return start.startswith(b"PK\x03\x04") and start.endswith(MANIFEST_NAME.encode())


def read_bundle(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the files of a bundle, which may be a stranger's, and the SHA-256 of each that its manifest names.

    Raises:
        SpecsweepError: If it is no bundle, of another version, or too large; the text names file and member.
    """
    try:
        content = read_regular(path, most_bytes=_MAX_BUNDLE_BYTES)
    except OSError as error:
        raise SpecsweepError(f"{path}: cannot be read ({error.strerror})") from error
    _check_end(path, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(path, members)
            files = {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise SpecsweepError(f"{path}: is damaged ({one_line(str(error))[:_SHOWN]})") from error
    if MANIFEST_NAME not in files:
        raise SpecsweepError(f"{path}: has no {MANIFEST_NAME}; 'specsweep bundle' writes such files")
    manifest = files.pop(MANIFEST_NAME)
    digests = _read_manifest(path, manifest)
    if _zip(manifest, files) != content:
        raise SpecsweepError(
            f"{path}: is not as 'specsweep bundle' wrote it: it has other times, permissions or bytes than its files "
            "take"
        )
    return files, digests


def _check_end(path: Path, content: bytes) -> None:
    """Raise unless a file ends with a short list of members, before that is read."""
    if len(content) < _END.size or not content.startswith(b"PK\x03\x04"):
        raise SpecsweepError(f"{path}: is no bundle; 'specsweep bundle' writes such files")
    signature, *_, size, _, comment = _END.unpack(content[-_END.size :])
    if signature != b"PK\x05\x06" or comment or content[-_END.size - 20 :].startswith(_END_64):
        raise SpecsweepError(f"{path}: is not as 'specsweep bundle' wrote it: its end is another one")
    if size > _MAX_DIRECTORY_BYTES:
        raise SpecsweepError(f"{path}: must have at most {len(FILES) + MOST_PATCHES + 1} members")


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise unless all members are plain files of a bundle, each there once."""
    seen = set()
    for member in members:
        name, mode = member.filename, member.external_attr >> 16
        rule = None
        if name in seen:
            rule = "is there twice"
        elif not (name in (*FILES, MANIFEST_NAME) or _PATCH.fullmatch(name)) or member.orig_filename != name:
            rule = "is no file of a bundle"
        elif not stat.S_ISREG(mode):
            rule = "is a link, a folder or the like, not a file"
        elif member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            rule = "must be neither compressed nor encrypted"
        elif member.file_size > MAX_BYTES or member.file_size != member.compress_size:
            rule = f"must have at most {MAX_BYTES} bytes, and as many as it takes"
        if rule is not None:
            raise SpecsweepError(f"{path}: member {one_line(name[:_SHOWN])!r} {rule}")
        seen.add(name)


def _read_manifest(path: Path, content: bytes) -> dict[str, str]:
    lines = content.decode("utf-8", errors="replace").splitlines()
    if not lines or lines[0] != _HEADER:
        shown = one_line(lines[0][:_SHOWN]) if lines else ""
        raise SpecsweepError(f"{path}: {MANIFEST_NAME}:1: must be {_HEADER!r}, the format known here, not {shown!r}")
    digests: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in digests:
            raise SpecsweepError(f"{path}: {MANIFEST_NAME}:{number}: must be a SHA-256 and a name, each name once")
        digests[match[2]] = match[1]
    return digests
