"""Arrays of a cache in one ``.npz`` file, with a description: read only as they were written.

Whoever can write into the folder can put anything under its name, and a disk can damage it: nothing is unpickled,
unpacked or waited for, and what is not as it was written is not there.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specvit.data.reading.progress import LOGGER
from specvit.errors import SpecsweepError
from specvit.files.atomic import replacing
from specvit.files.regular import open_regular
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DamagedError(SpecsweepError):
    """An archive that is not there, or not as it was written; it is made again."""


@contextmanager
def read_archive(path: Path) -> Iterator[tuple[Any, Mapping[str, NDArray[Any]]]]:
    """Yield the description and the arrays, which are read as they are taken.

    Raises:
        DamagedError: If there is none, or it is damaged; also for what the body of the ``with`` stumbles over. It was
            logged, if there is one.
    """
    try:
        with (
            os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in stored.zip.infolist()):
                raise ValueError("an entry is compressed")
            yield json.loads(str(stored["about"])), stored
    except SpecsweepError:
        raise
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: is not there") from error
    except Exception as error:  # NumPy and zipfile meet junk with almost any error
        LOGGER.info("%s cannot be used (%s)", path, error)
        raise DamagedError(f"{path}: cannot be used ({error})") from error


def write_archive(path: Path, about: object, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep arrays for the next start, making the folder; where that cannot be, it is logged.

    Args:
        path: Where; it appears when it is whole.
        about: Their description, JSON.
        arrays: By name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("xb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    except (OSError, ValueError, SpecsweepError) as error:
        LOGGER.info("not kept for the next start: %s", error)
