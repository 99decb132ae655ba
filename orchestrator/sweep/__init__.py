"""From a YAML file to ordered, hashed trials.

Front door: ``load_sweep`` reads and checks a file, ``pin_checkpoints`` and ``check_images`` check what needs files and
images, ``expand`` lists the trials.
What must hold: all problems of a file are reported at once, each with its line, as a ``SweepFileError``; equal files
make equal trials in equal order; torch is never imported, but by ``pin_checkpoints`` where there are checkpoints.
"""

# Lazily, since the command line takes an error from a module of this room, and needs no settings for ``--help``.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.sweep.grid import expand
    from orchestrator.sweep.image_checks import check_images
    from orchestrator.sweep.loading import load_sweep
    from orchestrator.sweep.pretrained import pin_checkpoints
    from orchestrator.sweep.problems import SweepFileError
    from orchestrator.sweep.resolved import Group, Limits, Sweep
    from orchestrator.sweep.resource_settings import Resources
    from orchestrator.sweep.schema import Ablation, SweepFile, sweep_json_schema

__all__ = [
    "Ablation",
    "Group",
    "Limits",
    "Resources",
    "Sweep",
    "SweepFile",
    "SweepFileError",
    "check_images",
    "expand",
    "load_sweep",
    "pin_checkpoints",
    "sweep_json_schema",
]

_HOMES = {
    "Ablation": "schema",
    "Group": "resolved",
    "Limits": "resolved",
    "Resources": "resource_settings",
    "Sweep": "resolved",
    "SweepFile": "schema",
    "SweepFileError": "problems",
    "check_images": "image_checks",
    "expand": "grid",
    "load_sweep": "loading",
    "pin_checkpoints": "pretrained",
    "sweep_json_schema": "schema",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
