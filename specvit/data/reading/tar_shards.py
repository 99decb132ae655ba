"""Reading WebDataset shards: tar files whose neighbours of one name are one sample.

Shards are indexed once, by their headers, and samples are then read by their place: nothing is unpacked, and
nothing but the entries that are asked for is read. WebDataset's own decoder would unpickle ``.pyd`` and
``.pickle`` entries; here they are never looked at.

Source: the WebDataset format (github.com/webdataset/webdataset): a sample's key is an entry's path up to the
first dot of its name, the rest is its kind. Deviation of ours: shards must not be compressed, and keys must
differ within a shard, not only from one sample to the next; entries must not be sparse.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from specvit.data.reading.name_forms import composed, decomposed, existing
from specvit.data.reading.progress import Progress
from specvit.errors import DataError

MAX_SHARDS = 100_000

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_BLOCK = 512
_STEP = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """Locate a sample: its shard, its key, and the place (offset, size) of each of its entries by kind."""

    shard: Path
    key: str
    entries: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        return f"{self.shard}: {self.key}"

    def read(self, kind: str) -> bytes:
        """Read an entry.

        Raises:
            DataError: If the shard cannot be read there.
        """
        offset, size = self.entries[kind]
        try:
            with self.shard.open("rb") as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DataError(f"cannot read {f'{self}.{kind}'!r}: {error.strerror}") from error
        if len(content) != size:
            raise DataError(f"cannot read {f'{self}.{kind}'!r}: the shard is cut off")
        return content


def expand_pattern(root: Path, pattern: str, *, field: str) -> list[Path]:
    """List the shards that a pattern names.

    Args:
        root: The folder that the pattern starts at.
        pattern: Names with ranges (``train-{000000..000012}.tar``) or with ``*`` and ``?``.
        field: The setting that holds it, for messages.

    Raises:
        DataError: If a shard does not exist, there is none, or the pattern is not one.
    """
    names = _expand_ranges(pattern, field=field)
    if any(character in pattern for character in "*?["):
        try:
            patterns = {form(name) for name in names for form in (str, composed, decomposed)}
            shards = sorted({path for name in patterns for path in root.glob(name)})
        except (ValueError, NotImplementedError) as error:
            raise DataError(f"{field}: {pattern!r} is no pattern of names: {error}") from error
    else:
        shards = [existing(root / name) for name in names]
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{field}: no shard {str(shard)!r}")
    if not shards:
        raise DataError(f"{field}: no shard in {str(root)!r} is called {pattern!r}")
    return shards


def index_shards(
    shards: Sequence[Path], *, kinds: frozenset[str], what: str, check: Callable[[Path], None] | None = None
) -> list[Sample]:
    """Find the samples of shards, in their order: the keys that have an entry of a wanted kind.

    Args:
        shards: The shards.
        kinds: The kinds of entries to keep, in lower case.
        what: What the shards are, for the log.
        check: Called with a shard now and then while it is read; an ``OSError`` of it ends the reading.

    Raises:
        DataError: If a shard cannot be read, is compressed, cut off, holds an entry twice, or a sparse one.
    """
    progress = Progress(f"shards of {what}", len(shards))
    samples = []
    for number, shard in enumerate(shards, start=1):
        samples += _index(shard, kinds, check)
        progress.update(number)
    return samples


def _expand_ranges(pattern: str, *, field: str) -> list[str]:
    parts = _RANGE.split(pattern)
    texts, bounds = parts[::3], list(zip(parts[1::3], parts[2::3], strict=True))
    count = 1
    for first, last in bounds:
        if int(first) > int(last):
            raise DataError(f"{field}: a range must not fall, as {{{first}..{last}}} does")
        count *= int(last) - int(first) + 1
    if count > MAX_SHARDS:
        raise DataError(f"{field}: must name at most {MAX_SHARDS} shards, not {count}")
    ranges = [[f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)] for first, last in bounds]
    return ["".join(part for pair in zip(texts, (*numbers, ""), strict=True) for part in pair)
            for numbers in product(*ranges)]  # fmt: skip


def _index(shard: Path, kinds: frozenset[str], check: Callable[[Path], None] | None) -> list[Sample]:
    samples: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {}
    try:
        length = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for number, member in enumerate(tar):
                if check is not None and number % _STEP == 0:
                    check(shard)
                if member.issparse():
                    raise DataError(
                        f"the shard {str(shard)!r} must hold whole entries, not a sparse one, as {member.name!r} is"
                    )
                if member.offset_data + member.size > length:
                    raise DataError(f"cannot read the shard {str(shard)!r}: it is cut off in {member.name!r}")
                matched = _KEY.fullmatch(member.name)
                if not member.isreg() or matched is None:
                    continue
                key, kind = matched[1], matched[2].lower()
                if kind not in kinds:
                    continue
                _, entries = samples.setdefault(composed(key), (key, {}))
                if kind in entries:
                    raise DataError(f"the shard {str(shard)!r} must hold {f'{key}.{kind}'!r} once")
                entries[kind] = (member.offset_data, member.size)
            end = tar.offset
        _check_end(shard, end)
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read the shard {str(shard)!r} as a tar file that is not compressed: {reason}"
        ) from error
    return [Sample(shard, key, entries) for key, entries in samples.values()]


def _check_end(shard: Path, offset: int) -> None:
    """Check that the headers end with the block of zeros that ends a tar file, not with a damaged one."""
    with shard.open("rb") as file:
        block = os.pread(file.fileno(), _BLOCK, offset)
    if block != bytes(_BLOCK):
        raise DataError(f"cannot read the shard {str(shard)!r}: it is damaged or cut off after byte {offset}")
