"""The settings of one trial: everything that decides its numbers, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from specvit.data import AnyDataSource
from specvit.objectives import AnyRecipe
from specvit.probes import PROBES, Probe
from specvit.scales import ScaleName
from specvit.settings import NonNegativeInt, PositiveInt, settings

PROTOCOL_VERSION = 1
"""Raised when the code changes what a configuration computes, so that old results are not taken for new."""


@settings
class ModelSettings:
    """Describe the backbone that is ablated."""

    scale: ScaleName = "nano"
    """A row of the table of scales."""
    patch_size: PositiveInt = 4
    """Side of a patch, in pixels; divides the image size."""


@settings
class Treatment:
    """Describe what an arm does to the backbone; the rest of the configuration it shares with its group."""

    kind: Literal["specialize", "random_init", "raw_pixels"] = "specialize"
    """``specialize``: pretrain, with own [CLS] weights in places. The other two are the floors of a table:
    a backbone that was never trained, and no backbone at all."""
    specialize: str = "none"
    """Where [CLS] has its own weights, e.g. ``norm@all+qkv@first-third``; ``none`` = nowhere, the baseline."""
    init: Literal["copy", "independent"] = "copy"
    """Own weights start as a copy of the shared ones, or are drawn anew."""


@settings
class RungSettings:
    """Describe the cheap probes on the way: curves, and the ground on which trials are pruned.

    They look at the training split alone (most of the images to fit, a quarter to score), so that pruning
    never chooses on the reported split.
    """

    count: NonNegativeInt = 3
    """Number of rungs, evenly spread over the run; the end of the run is not one of them."""
    num_images: PositiveInt = 512
    """Training images that a rung looks at; a quarter of them is scored."""
    probes: tuple[str, ...] = ()
    """Names of the probes to run; empty = the cheapest that fits the data."""


if TYPE_CHECKING:

    class ProbeSettings:
        """Hold one optional field per probe."""

else:
    ProbeSettings = settings(
        type(
            "ProbeSettings",
            (),
            {
                "__module__": __name__,
                "__doc__": "Name the probes to run, each with its settings; `{}` takes the defaults.",
                "__annotations__": {name: probe | None for name, probe in PROBES.items()},
                **dict.fromkeys(PROBES),
            },
        )
    )


def selected_probes(probes: ProbeSettings) -> dict[str, Probe]:
    """Return the probes that are switched on, by name, in the order of the table of probes."""
    chosen = {name: getattr(probes, name) for name in PROBES}
    return {name: probe for name, probe in chosen.items() if probe is not None}


def default_rung_probes(probes: ProbeSettings) -> tuple[str, ...]:
    """Return the probes that rungs run if none are named: the first that is on, in the order of ``PROBES``."""
    return tuple(selected_probes(probes))[:1]


@settings
class TrialConfig:
    """Hold one arm with one seed, fully resolved: two equal configurations give two equal results."""

    treatment: Treatment
    model: ModelSettings
    data: AnyDataSource
    objective: AnyRecipe
    probes: ProbeSettings
    rungs: RungSettings
    seed: NonNegativeInt
