"""NumPy, imported when it is first used: ``from specvit.lazy_numpy import np``.

For modules that hold a settings class beside the code that reads images: a sweep file is checked, and its schema
printed, without an array, and importing NumPy takes as long as importing all settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
else:

    class _NumPy:
        def __getattr__(self, name: str) -> object:
            import numpy

            return getattr(numpy, name)

    np = _NumPy()

__all__ = ["np"]
