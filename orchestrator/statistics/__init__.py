"""What can be said of numbers that vary from seed to seed: arrays and numbers in, numbers out.

Front door: ``paired`` compares an arm with its baseline seed by seed.
What must hold: every function is pure and gives its source; the room imports no other room, and of libraries NumPy
and SciPy alone, SciPy only where it serves.
"""

from orchestrator.statistics.paired import Difference, mean, paired_difference, sample_sd, sign_flip_p, t_interval

__all__ = ["Difference", "mean", "paired_difference", "sample_sd", "sign_flip_p", "t_interval"]
