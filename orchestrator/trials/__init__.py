"""The vocabulary of the package: a trial, its id, its states, its events, its resources.

Front door: ``Trial`` is what runs, ``TrialRecord`` what is known of it afterwards, an ``Event`` what happens between.
What must hold: everything here is a frozen value; the room imports no other room; an id follows from a trial's
configuration alone, and never changes with the code (``identity``).
"""

from orchestrator.trials.events import (
    END_STATES,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Started,
)
from orchestrator.trials.identity import arm_id, group_id, trial_id
from orchestrator.trials.records import Cause, Report, State, TrialRecord, TrialUsage
from orchestrator.trials.resources import WHOLE_CORE, ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Role, Trial, TrialInfo

__all__ = [
    "END_STATES",
    "WHOLE_CORE",
    "Cause",
    "Event",
    "Failed",
    "Finished",
    "Logged",
    "Progressed",
    "Pruned",
    "Report",
    "Reported",
    "ResourceFloor",
    "ResourceRequest",
    "Role",
    "Started",
    "State",
    "Trial",
    "TrialInfo",
    "TrialRecord",
    "TrialUsage",
    "arm_id",
    "group_id",
    "trial_id",
]
