"""The controls of a sweep: rows beside the arms whose difference to the baseline should be none.

``repeat`` is the baseline again from weights that are perturbed by a relative 1e-6: what it draws is rounding's own.
``placebo`` has an arm's own weights, but gives them to one fixed patch instead of [CLS]: what their mere number does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.trials.trial import REPEAT
from specvit.config import PERTURBATION, Treatment
from specvit.errors import ConfigError
from specvit.messages import did_you_mean
from specvit.models.parameter_counts import count_extra_parameters
from specvit.models.scales import Scale
from specvit.specialization.language import (
    NO_SPECIALIZATION,
    Specialization,
    check_specialization,
    parse_specialization,
)

PLACEBO = "placebo"


@dataclass(frozen=True)
class Control:
    """A control, or the arm that a placebo is of: a treatment, where it has own weights, and its text in tables."""

    text: str
    treatment: Treatment
    specialization: Specialization


def check_control(text: str) -> str:
    """Return the text of a control.

    Raises:
        ConfigError: If there is none of that name.
    """
    kind, colon, _ = text.partition(":")
    if text == REPEAT or (kind == PLACEBO and (not colon or text != f"{PLACEBO}:")):
        return text
    hint = did_you_mean(kind, [REPEAT, PLACEBO])
    raise ConfigError(f"must be '{REPEAT}', '{PLACEBO}' or '{PLACEBO}:SPECIALIZATION', not {text!r}{hint}")


ControlText = Annotated[
    str, AfterValidator(check_control), Field(json_schema_extra={"pattern": rf"^({REPEAT}|{PLACEBO}(:.+)?)$"})
]


def resolve_control(
    text: str,
    arms: Sequence[Control],
    scale: Scale,
    *,
    layer_scale: bool,
    position: tuple[int, int] | None,
) -> Control:
    """Return what a control is among the arms of a group.

    Args:
        text: ``repeat``; ``placebo``, of the arm with the most own parameters, of equals the first; or
            ``placebo:SPECIALIZATION``, of one that need not be an arm.
        arms: The specializations among the arms, each with its text, but for what it says of the token.
        scale: Of the group.
        layer_scale: Whether its blocks have layer scales.
        position: Row and column of the placebo's patch; None = the middle.

    Raises:
        ConfigError: If there is no arm to take the placebo of, or its places do not fit the group's model.
    """
    if text == REPEAT:
        none = parse_specialization(NO_SPECIALIZATION, scale.depth, layer_scale=layer_scale)
        return Control(REPEAT, Treatment(specialize=none.text, perturbation=PERTURBATION), none)
    _, _, places = text.partition(":")
    if places:
        found = parse_specialization(places, scale.depth, layer_scale=layer_scale)
        check_specialization(found, depth=scale.depth, width=scale.width, layer_scale=layer_scale)
        if found.text == NO_SPECIALIZATION:
            raise ConfigError(f"must name own weights, as 'placebo:norm@all' does, not {text!r}")
        of = Control(found.label, Treatment(specialize=found.text), found)
    elif arms:
        of = max(arms, key=lambda arm: count_extra_parameters(scale, arm.specialization))
    else:
        raise ConfigError(f"{PLACEBO!r} needs an arm with own weights, or one by its places: 'placebo:norm@all'")
    # Registers go with the patches of a placebo, whomever they go with otherwise.
    treatment = replace(of.treatment, tokens="placebo", placebo_position=position, registers_with="cls")
    return Control(f"{PLACEBO} of {of.text}", treatment, of.specialization)
