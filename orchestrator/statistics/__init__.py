"""What can be said of numbers that vary from seed to seed: arrays and numbers in, numbers out.

Front door: ``compare_arms`` says all that a table says of a group: intervals that hold together, verdicts, what could
have been seen. ``Design`` and ``seeds_to_find`` say it before a sweep is run, ``design_looks`` and ``decide`` while it
grows, ``screen`` and ``confirm`` in two stages; ``read_factorial``, ``difference_of_differences`` and
``combine_effects`` read several arms or groups together.
What must hold: every function is pure and gives its source; the same numbers give the same verdict on every machine;
the room imports no other room, and of libraries NumPy and SciPy alone, SciPy inside functions and never
``scipy.stats``, which takes most of a second to load.
"""

from orchestrator.statistics.comparison import ArmResult, Comparison, compare_arms, more_seeds
from orchestrator.statistics.confirmation import confirm, screen
from orchestrator.statistics.decisions import Action, Decision, decide
from orchestrator.statistics.design import Design, seeds_to_find
from orchestrator.statistics.dunnett import dunnett_coverage, dunnett_critical
from orchestrator.statistics.factorial import Factorial, find_factorials, read_factorial
from orchestrator.statistics.forecasts import Forecast, detectable_by_looks, forecast_looks
from orchestrator.statistics.groups import CombinedEffect, combine_effects, difference_of_differences
from orchestrator.statistics.looks import LookDesign, design_looks
from orchestrator.statistics.max_t import max_t_coverage, max_t_critical
from orchestrator.statistics.means import differences_of_means
from orchestrator.statistics.model import GroupModel, can_be_compared, fit_group
from orchestrator.statistics.paired import Difference, mean, paired_difference, sample_sd, sign_flip_p, t_interval
from orchestrator.statistics.pairing import Pairing, pairing
from orchestrator.statistics.power import contrast_power, seeds_for_difference, two_way_df
from orchestrator.statistics.sign_flips import max_t_sign_flips
from orchestrator.statistics.simultaneous import Contrast, Family, against_baseline, beside_family, simultaneous
from orchestrator.statistics.spread import VarianceComponents, correlation, sd_interval, variance_components
from orchestrator.statistics.variances import (
    Variances,
    VarianceTest,
    by_own_variances,
    moderated_variances,
    unequal_variances,
)
from orchestrator.statistics.verdicts import LEAST_SEEDS, Verdict, benjamini_hochberg, judge

__all__ = [
    "LEAST_SEEDS",
    "Action",
    "ArmResult",
    "CombinedEffect",
    "Comparison",
    "Contrast",
    "Decision",
    "Design",
    "Difference",
    "Factorial",
    "Family",
    "Forecast",
    "GroupModel",
    "LookDesign",
    "Pairing",
    "VarianceComponents",
    "VarianceTest",
    "Variances",
    "Verdict",
    "against_baseline",
    "benjamini_hochberg",
    "beside_family",
    "by_own_variances",
    "can_be_compared",
    "combine_effects",
    "compare_arms",
    "confirm",
    "contrast_power",
    "correlation",
    "decide",
    "design_looks",
    "detectable_by_looks",
    "difference_of_differences",
    "differences_of_means",
    "dunnett_coverage",
    "dunnett_critical",
    "find_factorials",
    "fit_group",
    "forecast_looks",
    "judge",
    "max_t_coverage",
    "max_t_critical",
    "max_t_sign_flips",
    "mean",
    "moderated_variances",
    "more_seeds",
    "paired_difference",
    "pairing",
    "read_factorial",
    "sample_sd",
    "screen",
    "sd_interval",
    "seeds_for_difference",
    "seeds_to_find",
    "sign_flip_p",
    "simultaneous",
    "t_interval",
    "two_way_df",
    "unequal_variances",
    "variance_components",
]
