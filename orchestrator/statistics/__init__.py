"""What can be said of numbers that vary from seed to seed: arrays and numbers in, numbers out.

Front door: ``paired`` compares an arm with its baseline seed by seed, ``spread`` measures how far values vary and
what part of it they share, ``dunnett`` gives the critical value for several arms against one baseline, ``power`` the
chance that a difference is found, and the seeds that it takes.
What must hold: every function is pure and gives its source; the room imports no other room, and of libraries NumPy
and SciPy alone, SciPy only where it serves.
"""

from orchestrator.statistics.dunnett import dunnett_coverage, dunnett_critical
from orchestrator.statistics.paired import Difference, mean, paired_difference, sample_sd, sign_flip_p, t_interval
from orchestrator.statistics.power import contrast_power, seeds_for_difference, two_way_df
from orchestrator.statistics.spread import VarianceComponents, correlation, sd_interval, variance_components

__all__ = [
    "Difference",
    "VarianceComponents",
    "contrast_power",
    "correlation",
    "dunnett_coverage",
    "dunnett_critical",
    "mean",
    "paired_difference",
    "sample_sd",
    "sd_interval",
    "seeds_for_difference",
    "sign_flip_p",
    "t_interval",
    "two_way_df",
    "variance_components",
]
