"""Writing tensors to a safetensors file."""

from __future__ import annotations

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
    """Write tensors and texts to a file, which is there whole or not at all.

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
        except SafetensorError as error:  # also where a disk is full
            number = _NUMBER.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
