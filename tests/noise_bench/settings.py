"""What is measured: settings as a file lists them, each a trial of the baseline without its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.validation_errors import describe
from orchestrator.sweep.yaml_reader import read_document
from orchestrator.trials.identity import group_id
from specvit.config import TrialConfig
from specvit.errors import ConfigError

SHIPPED = Path(__file__).with_name("settings.yaml")
FIRST_SEED = 900
"""Seeds are counted from here: no shipped sweep and no study uses 900 or any above it."""

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"scale": "nano", "patch_size": 4},
    "data": {"source": "scenes", "image_size": 32},
    "probes": {"knn": {}, "linear": {}, "segmentation": {}},
}
_SECTIONS = ("model", "data", "objective", "probes")


@dataclass(frozen=True)
class Setting:
    """Something that trials can be made of.

    Attributes:
        name: What the file calls it.
        why: Why it is measured, a sentence.
        baseline: The trial of the baseline, with the first seed.
    """

    name: str
    why: str
    baseline: TrialConfig

    @property
    def digest(self) -> str:
        """Return what its runs are found by: 16 hex digits of the hash of all that arms and seeds share."""
        return group_id(self.baseline)[:16]


def read_settings(path: Path) -> dict[str, Setting]:
    """Read a file of settings, in its order.

    Raises:
        ConfigError: If a setting breaks a rule; the text names every place.
    """
    settings: dict[str, Setting] = {}
    problems: list[str] = []
    for name, given in read_document(path).value.items():
        if not isinstance(given, dict) or (unknown := given.keys() - {"why", *_SECTIONS}):
            text = f"unknown fields {sorted(unknown)}" if isinstance(given, dict) else "not a mapping"
            problems.append(f"{path}: {name}: must be a mapping with why, {', '.join(_SECTIONS)}: {text}")
            continue
        sections: dict[str, Any] = {section: given.get(section, {}) for section in _SECTIONS}
        for section, defaults in _DEFAULTS.items():
            # Probes are on or off one by one: those of a setting are not joined to the default's.
            if not (section == "probes" and sections[section]):
                sections[section] = {**defaults, **sections[section]}
        raw = {**sections, "treatment": {}, "rungs": {"count": 0}, "seed": FIRST_SEED}
        try:
            baseline = TypeAdapter(TrialConfig).validate_python(raw)
        except ValidationError as error:
            for problem in describe(error, raw):
                problems.append(f"{path}: {'.'.join(map(str, (name, *problem.path)))}: {problem.text}")
            continue
        settings[name] = Setting(name, str(given.get("why", "")), baseline)
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def with_seed(config: TrialConfig, seed: int) -> TrialConfig:
    """Return a trial with another seed."""
    return replace(config, seed=seed)
