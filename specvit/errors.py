"""The exceptions of the project: one root, so that a caller can catch everything a user can cause."""


class SpecsweepError(Exception):
    """Signal a problem that the user can act on; its text is the whole message."""


class ConfigError(SpecsweepError, ValueError):
    """Signal a setting that breaks a rule; the text names the field, the rule and the value."""


class PartError(SpecsweepError):
    """Signal a part that its table cannot take, most likely of another package; the text names it and the fault."""


class DataError(SpecsweepError):
    """Signal data that cannot be used; the text names the file or folder."""


class DivergenceError(SpecsweepError):
    """Signal a training run whose loss is no longer a finite number; the text names the step."""
