"""What SQLite could not read of the log beside a ledger, and does not tell of.

The log (``-wal``) is a chain of checksums: what follows a damaged byte in it is taken for the rest of a write that a
power cut has torn, and is left out. The ledger is then whole, and of an earlier moment; whoever goes on with it should
know. Source: SQLite's documentation of its file format, section 4.
"""

from __future__ import annotations

import struct
from pathlib import Path

_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_PAGE_BYTES = 4096


def count_lost_transactions(path: Path, num_read_frames: int) -> int:
    """Count the transactions that the log holds beyond what could be read of it.

    Args:
        path: The ledger; its log is beside it.
        num_read_frames: Frames of the log that SQLite has read.

    Returns:
        Their number; 0 without a log.
    """
    try:
        data = path.with_name(f"{path.name}-wal").read_bytes()
    except FileNotFoundError:
        return 0
    # Frames of the log's last round carry the numbers of its header; those of rounds before are in the ledger.
    header = data[:_LOG_HEADER_BYTES]
    salts = header[16:24] if _is_whole(header) else data[_LOG_HEADER_BYTES + 8 : _LOG_HEADER_BYTES + 16]
    size = _FRAME_HEADER_BYTES + _PAGE_BYTES
    starts = range(_LOG_HEADER_BYTES + num_read_frames * size, len(data) - _FRAME_HEADER_BYTES + 1, size)
    # The last frame of a transaction says, in its second number, how many pages the ledger has.
    return sum(data[start + 8 : start + 16] == salts and any(data[start + 4 : start + 8]) for start in starts)


def _is_whole(header: bytes) -> bool:
    """Check the checksum of a log's header."""
    if len(header) < _LOG_HEADER_BYTES:
        return False
    is_big_endian = header[3] & 1
    words = struct.unpack(">6I" if is_big_endian else "<6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) % (1 << 32)
        second = (second + odd + first) % (1 << 32)
    return struct.unpack(">2I", header[24:]) == (first, second)
