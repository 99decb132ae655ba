"""Writing tensors to a safetensors file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from specvit.files.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> None:
    """Write tensors and texts to a file, which is there whole or not at all. The same make the same bytes.

    Args:
        path: The file, by custom ``.safetensors``; one of that name is replaced.
        tensors: By name; no two share memory.
        metadata: Texts by name.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it, and the cause is an ``OSError``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
            _sort_metadata(temporary)
        except SafetensorError as error:  # also where a disk is full
            number = _NUMBER.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _sort_metadata(path: Path) -> None:
    """Write the texts of a file in the order of their names; safetensors has them in another order each time.

    Source: the safetensors format: 8 bytes say how long the header is, JSON that may end with spaces.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(header["__metadata__"]) > 1 and len(content) == length:
            file.seek(8)
            file.write(content)
