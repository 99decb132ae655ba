"""The unit that is scheduled, pruned and recorded: one arm with one seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from specvit.config import TrialConfig

REPEAT = "repeat"
"""Text of the control that is the baseline again, from weights that are slightly perturbed."""


class Role(StrEnum):
    """What an arm is to its group, in the order of the rows of a table."""

    BASELINE = "baseline"
    ARM = "arm"
    """The only role that can be pruned."""
    CONTROL = "control"
    """A training whose difference to the baseline should be none; it stands beside the arms."""
    FLOOR = "floor"
    EXTERNAL = "external"
    """A finished backbone from elsewhere, which is paired with nothing."""

    @property
    def rank(self) -> int:
        """Return the place of its rows in a table, from 0."""
        return tuple(Role).index(self)

    @property
    def is_trained(self) -> bool:
        """Return whether its trials have a pretraining: those of floors and external backbones have none."""
        return self in (Role.BASELINE, Role.ARM, Role.CONTROL)

    @property
    def is_ablated(self) -> bool:
        """Return whether it is the baseline or an arm: what the sweep is about. All others stand beside."""
        return self in (Role.BASELINE, Role.ARM)

    @property
    def is_paired(self) -> bool:
        """Return whether its trials are compared with the baseline's of the same seeds."""
        return self in (Role.ARM, Role.CONTROL, Role.FLOOR)


@dataclass(frozen=True)
class TrialInfo:
    """A trial's place in the table: all that is known of it besides its configuration.

    Attributes:
        trial_id: SHA-256 of the canonical resolved configuration, 64 hex digits.
        group_id: The same of what all arms of its group share (no treatment, no seed).
        arm_id: The same of the configuration without its seed.
        group: Human-readable text of the group, e.g. ``model.scale=nano``; empty if the sweep has one group only.
        arm: Human-readable text of the arm: ``none``, ``norm@all``, ``repeat``, ``random init``, ``raw pixels``; the
            name of an external backbone.
        role: What the arm is to its group.
        label: Human-readable name of the trial, e.g. ``nano norm@all+qkv@first-third seed 1``, ``mine (external)``.
        seed: Its seed.
        num_parameters: Parameters of the arm's backbone; 0 for raw pixels.
        extra_parameters_percent: Parameters beyond the baseline's, in % of the baseline's.
    """

    trial_id: str
    group_id: str
    arm_id: str
    group: str
    arm: str
    role: Role
    label: str
    seed: int
    num_parameters: int
    extra_parameters_percent: float


@dataclass(frozen=True)
class Trial(TrialInfo):
    """A trial that can run.

    Attributes:
        config: What the worker runs.
    """

    config: TrialConfig
