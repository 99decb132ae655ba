"""The exceptions of the project: one root, so that a caller can catch everything a user can cause.

    SpecsweepError              what the user can act on; raised itself by the commands, specvit.files and storage
      ConfigError               specvit.specialization, models, settings of all rooms; orchestrator.diagnose
        SweepFileError          orchestrator.sweep: every problem of a sweep file, with its line
      DataError                 specvit.data, training.checkpoint, models (weights), probes (targets), checkpoints
      DamagedError              specvit.data.cache: what a cache holds that is not as it was written, and is made anew
      DivergenceError           specvit.training.loop, probes: a loss or feature that is not finite
      PartError                 specvit.plugins, specialization, probing: a part that its table cannot take
      LedgerError               orchestrator.ledger: a ledger that cannot be used
        LedgerWriteError        orchestrator.ledger: a ledger that cannot be written now, such as on a full disk
      NoLedgerError             orchestrator.cli: a sweep that has not been run
      LockedError               orchestrator.storage: results that another process is working on
        CannotLockError         orchestrator.storage: a folder on a file system that locks no files
      RemoteError               orchestrator.storage: a store at a URL that cannot be used
      ClusterError              orchestrator.execution: a cluster that cannot run the trials
        ClusterLostError        orchestrator.execution: a cluster that went away during a run
      EverythingFailsError      orchestrator.scheduling: a run in which one attempt after the other failed

``orchestrator.cli.app`` turns them into one message and an exit code; what another library raises is translated where
it is called. Anything else that reaches the user is a defect of this project.
"""

from __future__ import annotations


class SpecsweepError(Exception):
    """A problem that the user can act on; its text is the whole message."""


class ConfigError(SpecsweepError, ValueError):
    """A setting that breaks a rule; the text names the field, the rule and the value."""


class PartError(SpecsweepError):
    """A part that its table cannot take, most likely a contributor's; the text names it and the fault."""


class DataError(SpecsweepError):
    """Data that cannot be used; the text names the file or folder."""


class DivergenceError(SpecsweepError):
    """A training run whose loss is no longer a finite number; the text names the step."""
