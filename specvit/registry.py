"""Finding the parts that live one to a file: data sources, objectives, probes.

A part is a settings class in a module of its package. Putting the file there is all it takes to make the
part available in sweep files; there is no list to extend.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def discover(package: str, base: type[T], *, key: str) -> dict[str, type[T]]:
    """Import every module of ``package`` and collect the subclasses of ``base`` defined there, by name.

    Abstract classes, which several parts of a package share, are no parts.

    Args:
        package: Dotted name of the package, e.g. ``specvit.probes``.
        base: The class that every part derives from.
        key: The class attribute that holds a part's name in sweep files.

    Returns:
        Part name to class, sorted by name.

    Raises:
        TypeError: If two parts carry the same name.
    """
    parts: dict[str, type[T]] = {}
    path = importlib.import_module(package).__path__
    for module_info in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{package}.{module_info.name}")
        for value in vars(module).values():
            is_part = isinstance(value, type) and issubclass(value, base) and value is not base
            if not is_part or value.__module__ != module.__name__ or inspect.isabstract(value):
                continue
            name = getattr(value, key)
            if name in parts:
                raise TypeError(f"two parts of {package} are called {name!r}: {parts[name]} and {value}")
            parts[name] = value
    return dict(sorted(parts.items()))
