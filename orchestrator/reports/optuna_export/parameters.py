"""What the arms of a group differ in, one parameter for each ablated axis.

* A component that some arm specializes: where it has own weights, and how unless ``full``: ``all``,
  ``first-third(lora:4)``, or ``none``. Its name is ``norm``, ``qkv`` or ``mlp`` where all arms treat the members of
  these alike, else that of the member, e.g. ``k``.
* ``comparator``: its name with the settings that are not at their defaults, or ``none``.
* The other fields of the treatment by their names: ``tokens``, ``init``, ``registers_with``, ``own_lr``, ..

What all arms have in common is left out, and so are ``kind``, which the comparator says, and ``placebo_position``, of
which a sweep has one. The rest of the configuration computes the same for all arms of a group.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.trials.identity import ADDED_LATER
from orchestrator.trials.trial import TrialInfo
from specvit.errors import ConfigError, SpecsweepError
from specvit.models.scales import SCALES
from specvit.specialization import ALIASES, COMPONENTS, Specialization, parse_specialization, places_text

Choice = str | int | float | bool | None

_TOLD_OTHERWISE = ("kind", "specialize", "comparator", "placebo_position")


def arm_parameters(arms: Sequence[tuple[TrialInfo, Mapping[str, Any]]]) -> list[dict[str, Choice]]:
    """Return the parameters of each arm of a group, all with the same keys.

    Args:
        arms: A trial of each, with its configuration as JSON; floors, which have no axes, are not among them.

    Raises:
        SpecsweepError: If a configuration names a model or a specialization that is not known.
    """
    specializations = [_specialization(trial, config) for trial, config in arms]
    treatments: list[Mapping[str, Any]] = [config["treatment"] for _, config in arms]
    is_comparator = [treatment.get("kind") == "comparator" for treatment in treatments]
    columns: dict[str, list[Any]] = _component_columns(specializations)
    columns["comparator"] = [
        trial.arm if its_own else "none" for (trial, _), its_own in zip(arms, is_comparator, strict=True)
    ]
    for name in dict.fromkeys(name for treatment in treatments for name in treatment):
        if name not in (*columns, *_TOLD_OTHERWISE):
            before = ADDED_LATER["Treatment"].get(name)  # a configuration leaves it out
            columns[name] = _comparable([treatment.get(name, before) for treatment in treatments])
    varying = {name: values for name, values in columns.items() if len(set(values)) > 1}
    return [{name: values[index] for name, values in varying.items()} for index in range(len(arms))]


def _specialization(trial: TrialInfo, config: Mapping[str, Any]) -> Specialization:
    try:
        return parse_specialization(config["treatment"]["specialize"], SCALES[config["model"]["scale"]].depth)
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecsweepError(
            f"trial {trial.label!r}: in its configuration model.scale must be one of {', '.join(SCALES)}, and "
            "treatment.specialize a text"
        ) from error
    except ConfigError as error:
        raise SpecsweepError(f"trial {trial.label!r}: {error}") from error


def _component_columns(specializations: Sequence[Specialization]) -> dict[str, list[Any]]:
    """Return, by component, where each specialization has it, under the name of an alias where that says it all."""
    alias_of = {
        member: alias
        for alias, members in ALIASES.items()
        if all(len({_places(member, one) for member in members}) == 1 for one in specializations)
        for member in members
    }
    names = {alias_of.get(component, component): component for component in COMPONENTS}
    return {name: [_places(component, one) for one in specializations] for name, component in names.items()}


def _places(component: str, specialization: Specialization) -> str:
    """Return where a component has own weights."""
    return places_text(specialization.modes.get(component, {}), specialization.depth)


def _comparable(values: Sequence[Any]) -> list[Choice]:
    """Return values as choices of one kind: 1 and True, which are equal, and lists become JSON text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str} or kinds <= {int} or kinds <= {float} or kinds <= {bool}:
        return list(values)
    return [None if value is None else json.dumps(value) for value in values]
