"""How the tables of a sweep compare its arms: the model and the variance, declared before anything is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, model_validator

from specvit.settings import settings


@settings
class ComparisonSettings:
    """How the tables compare arms with the baseline.

    To be chosen before the results are seen, never by looking at them; it takes no part in a trial's identity.
    """

    model: Literal["blocked", "unblocked"] = "blocked"
    """``blocked``: value ~ arm + seed, arms are compared within the seeds that they share with the baseline.
    ``unblocked``: value ~ arm, by the means of all seeds, as Dunnett's test has it: of more power where pairing by seed
    is worth nothing (tables say what it is worth), and where the baseline has seeds of its own, ``baseline_seeds``."""
    variance: Literal["pooled", "moderated"] = "pooled"
    """``pooled``: one residual variance for all arms. ``moderated``: each arm's own, of its differences to the baseline
    within seeds, pulled towards the others' (Smyth 2004), for arms that vary unlike each other, or unlike the baseline;
    of equal ones its intervals are 13% wider with 4 seeds and 7% with 6. Factorials have errors of their own."""

    @model_validator(mode="after")
    def _check_variance(self) -> ComparisonSettings:
        if self.variance == "moderated" and self.model == "unblocked":
            rule = "variance must be 'pooled' where model is 'unblocked', since an arm's own variance is of differences"
            raise ValueError(f"{rule} within seeds, not 'moderated'")
        return self

    @property
    def is_default(self) -> bool:
        """Return whether it is that of a file which says nothing."""
        return self == ComparisonSettings()


DEFAULT = ComparisonSettings()


def read_comparison(values: Mapping[str, Any]) -> ComparisonSettings:
    """Return the declaration that a ledger holds as JSON values; the default of an empty one."""
    return TypeAdapter(ComparisonSettings).validate_python(dict(values))
