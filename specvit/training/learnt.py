"""Whether a trial has learnt what its recipe says: the rule, from recorded metrics alone, without torch.

Each term of a loss is recorded as ``NAME_loss``, and beside it, as ``NAME_loss_trivial``, what it is for an output that
is the same for all images. Such an output holds nothing of an image: a term that stays at its value has taught nothing,
however well probes score what another term, or the untrained network, has made.

* A term is learnt once it is ``LEAST_GAIN`` below its trivial value. Why 2%: mixed labels leave little to gain, so that
  ``deit3_dense_cpu`` with mixup and cutmix has its labels' loss 3% below after 200 steps on average (11 arms, 4 seeds;
  the slowest seed 1.5%, all of them 1% after 150 steps), while 300 steps of DINOv2 that taught nothing ended with DINO
  1% below.
* A self-distillation has collapsed if the entropy of the teacher's mean target is below ``LEAST_SPREAD``. Its loss is
  low then, since all images have one and the same target, which no image need be seen for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LOSS_SUFFIX, TRIVIAL_SUFFIX = "_loss", "_loss_trivial"

LEAST_GAIN = 0.02
"""Least share of its trivial value by which a term must be below it to count as learnt."""

LEAST_SPREAD = math.log(2)
"""Least entropy of the teacher's mean target, in nats: that of two prototypes, each for half of the images."""

SPREAD = "teacher_spread"
TEACHER_METRICS = ("teacher_entropy", SPREAD, "teacher_agreement")
"""What a self-distillation records beside its terms; see ``specvit.recipes.dinov2.measures``."""


@dataclass(frozen=True)
class Unlearnt:
    """A metric by which a trial has not learnt.

    Attributes:
        metric: ``NAME_loss`` of a term at its trivial value, or ``teacher_spread`` of a teacher that has collapsed.
        value: What was recorded of it.
        reference: The term's trivial value, or ``LEAST_SPREAD``.
    """

    metric: str
    value: float
    reference: float


def is_learning_metric(name: str) -> bool:
    """Return whether a metric is one of those that say what a trial has learnt; ``loss`` itself is none."""
    return name.endswith((LOSS_SUFFIX, TRIVIAL_SUFFIX)) or name in TEACHER_METRICS


def find_unlearnt(metrics: Mapping[str, float]) -> tuple[Unlearnt, ...] | None:
    """Return by what a trial has not learnt.

    Args:
        metrics: The metrics of a rung or of the end, by name. A term that is not a finite number is not learnt, and one
            whose trivial value is 0 has nothing to learn.

    Returns:
        What it has not learnt by; empty if there is no such thing. None if no trivial value was recorded, so that it
        cannot be said: of floors, of recipes that give none, by versions before this rule.
    """
    references = {
        name.removesuffix(TRIVIAL_SUFFIX) + LOSS_SUFFIX: trivial
        for name, trivial in metrics.items()
        if name.endswith(TRIVIAL_SUFFIX)
    }
    if not references:
        return None
    found = [
        Unlearnt(name, metrics[name], trivial)
        for name, trivial in references.items()
        if name in metrics and trivial > 0 and not metrics[name] <= (1 - LEAST_GAIN) * trivial
    ]
    if SPREAD in metrics and metrics[SPREAD] < LEAST_SPREAD:
        found.append(Unlearnt(SPREAD, metrics[SPREAD], LEAST_SPREAD))
    return tuple(found)
