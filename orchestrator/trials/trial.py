"""The unit that is scheduled, pruned and recorded: one arm with one seed."""

from __future__ import annotations

from dataclasses import dataclass

from specvit.config import TrialConfig


@dataclass(frozen=True)
class Trial:
    """Hold a trial and its place in the table.

    Attributes:
        trial_id: SHA-256 of the canonical resolved configuration, 64 hex digits.
        group_id: The same of what all arms of its group share (no treatment, no seed).
        arm_id: The same of the configuration without its seed.
        group: Text of the group for people, e.g. ``model.scale=nano``; empty if the sweep has one group only.
        arm: Text of the arm for people: ``none``, ``norm@all``, ``random init``, ``raw pixels``.
        role: ``baseline``, ``arm`` or ``floor``; only arms can be pruned.
        label: What people see of the trial, e.g. ``nano norm@all+qkv@first-third seed 1``.
        num_parameters: Parameters of the arm's backbone; 0 for raw pixels.
        extra_parameters_percent: Parameters beyond the baseline's, in % of the baseline's.
        config: What the worker runs.
    """

    trial_id: str
    group_id: str
    arm_id: str
    group: str
    arm: str
    role: str
    label: str
    num_parameters: int
    extra_parameters_percent: float
    config: TrialConfig

    @property
    def seed(self) -> int:
        """Return the trial's seed."""
        return self.config.seed
