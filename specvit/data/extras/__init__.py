"""What needs an extra to be installed: imported when a source loads, never by the settings.

``open_tables`` opens a data set of the package ``datasets``. No code of a data set is run, and its rows may name no
files but its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specvit.data.extras.hugging_face_tables import open_tables, read_encoded

__all__ = ["open_tables", "read_encoded"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("specvit.data.extras.hugging_face_tables"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
