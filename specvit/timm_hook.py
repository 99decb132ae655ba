"""Registering models with timm once timm is there, at no cost for who does not use it.

timm brings torch along, seconds that a plan of a sweep would wait for; and a model's name is of no use before
timm has been imported. So where timm is not imported yet, a finder waits for it on ``sys.meta_path``. It finds
nothing itself: it lets Python find ``timm.models``, and has ``specvit.models.timm_registry`` imported right after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module, util
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AWAITED = "timm.models"
_REGISTERING = "specvit.models.timm_registry"


class _AfterTimm(MetaPathFinder):
    """Wait for the import of ``timm.models``, once."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec that the other finders make, its loader followed by the registration."""
        if fullname != _AWAITED:
            return None
        sys.meta_path.remove(self)
        spec = util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                import_module(_REGISTERING)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_timm() -> None:
    """Register the models now if timm is imported, else as soon as it is."""
    if _AWAITED in sys.modules:
        import_module(_REGISTERING)
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())
