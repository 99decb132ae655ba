"""Reading and writing files safely.

``write_atomically`` and ``replacing`` leave the old file or the new one, never half of one. ``read_regular`` and
``open_regular`` never wait for a pipe or a device, ``reject_symlink`` refuses a place that leads elsewhere, and
``sha256_of`` names a file's content. ``write_tensors`` writes a safetensors file.
"""

from specvit.files.atomic import remove_leftovers, replacing, write_atomically
from specvit.files.checksum import sha256_of
from specvit.files.regular import open_regular, read_regular, reject_symlink
from specvit.files.tensors import write_tensors

__all__ = [
    "open_regular",
    "read_regular",
    "reject_symlink",
    "remove_leftovers",
    "replacing",
    "sha256_of",
    "write_atomically",
    "write_tensors",
]
