"""From a sweep to its trials: pure, ordered, without duplicates.

Groups are the product of the varied axes. Inside a group stand its baseline, once however many axes are
crossed with it, then its controls, floors and external backbones, then its arms: specializations that are the same
places at the group's depth are one arm, and so are comparators that do the same to a model of this depth. Comparators
come last. External backbones come with the first seed alone: they are not trained, and do not differ from seed to seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from orchestrator.sweep.controls import Control, resolve_control
from orchestrator.sweep.resolved import Group, Sweep
from orchestrator.sweep.schema import Ablation
from orchestrator.trials.identity import arm_id, canonical_json, group_id, trial_id
from orchestrator.trials.trial import Role, Trial
from specvit.config import Treatment, TrialConfig
from specvit.models.config import parse_high_norm
from specvit.models.parameter_counts import count_extra_parameters, count_parameters
from specvit.models.scales import SCALES, Scale
from specvit.specialization.language import Specialization, parse_specialization
from specvit.specialization.modes import parse_mode


@dataclass(frozen=True)
class _Row:
    """A row of a group's table: a treatment at one depth."""

    text: str
    role: Role
    treatment: Treatment
    specialization: Specialization
    num_parameters: int | None = None
    """Parameters of its backbone, where the group does not tell them."""

    def seeds(self, sweep: Sweep) -> tuple[int, ...]:
        """Return the seeds of its trials."""
        if self.role is Role.BASELINE:
            return sweep.baseline_seeds
        if self.role is Role.FLOOR and sweep.growth is not None:
            return sweep.seeds[: sweep.growth.start]  # no verdict waits for more of them
        return sweep.seeds[:1] if self.role is Role.EXTERNAL else sweep.seeds


def expand(sweep: Sweep) -> tuple[Trial, ...]:
    """Return the trials of a sweep in the order of its file, which is that of its tables.

    Args:
        sweep: A sweep as ``load_sweep`` returns it.

    Returns:
        The trials: all of the first seed, then all of the second, ...; within a seed group by group.
    """
    arms: list[_Arm] = []
    for group, rows in _tables(sweep):
        arms += _arms(sweep, group, rows)
    return tuple(arm.trial(seed) for seed in sweep.baseline_seeds for arm in arms if seed in arm.row.seeds(sweep))


def start_order(sweep: Sweep, trials: Iterable[Trial]) -> list[Trial]:
    """Return trials of a sweep in the order in which they start.

    Seed by seed; within a seed baselines, then controls, then floors, then external backbones, then the arms that
    ``priority`` names, then the others, each kind by falling number of parameters (long trials started last leave
    workers idle at the end), equals in the order in which they are given.
    """
    seeds = {seed: number for number, seed in enumerate(sweep.baseline_seeds)}
    return sorted(trials, key=lambda each: (seeds[each.seed], *_urgency(sweep, each), -each.num_parameters))


def arm_texts(sweep: Sweep) -> tuple[str, ...]:
    """Return what the rows of arms are called in the sweep's tables, each once."""
    distinct = {id(rows): rows for _, rows in _tables(sweep)}  # groups share them
    return tuple(dict.fromkeys(row.text for rows in distinct.values() for row in rows if row.role is Role.ARM))


def _urgency(sweep: Sweep, trial: Trial) -> tuple[bool, int]:
    """Return what the trials of a seed are sorted by: arms last, those that ``priority`` names before the others."""
    if trial.role is not Role.ARM:
        return False, trial.role.rank
    priority = sweep.file.priority
    return True, priority.index(trial.arm) if trial.arm in priority else len(priority)


def count_trials(sweep: Sweep) -> int:
    """Return the number of trials of a sweep without building them."""
    return sum(len(row.seeds(sweep)) for _, rows in _tables(sweep) for row in rows)


_Shape = tuple[str, bool, bool]
"""What rows depend on of a group: its scale, and whether there are registers and layer scales."""


def _shape(group: Group) -> _Shape:
    has_registers = parse_high_norm(group.model.high_norm).num_registers > 0
    return group.model.scale, has_registers, group.objective.layer_scale > 0


def _tables(sweep: Sweep) -> Iterator[tuple[Group, tuple[_Row, ...]]]:
    """Yield every group with the rows of its table.

    They depend on the scale, and on whether there are registers and layer scales.
    """
    known: dict[_Shape, tuple[_Row, ...]] = {}
    for group in sweep.groups:
        shape = _shape(group)
        if shape not in known:
            known[shape] = _rows(sweep, shape)
        yield group, known[shape]


def find_control(sweep: Sweep, group: Group, text: str) -> tuple[Control, str | None]:
    """Return what a control is in a group, and the text of the arm that is the very same there, if one is.

    Raises:
        ConfigError: If it cannot be told, see ``resolve_control``.
    """
    shape = _shape(group)
    arms = _arm_rows(sweep, shape)
    control = _control(sweep, SCALES[shape[0]], text, arms, layer_scale=shape[2])
    return control, next((row.text for row in arms if row.treatment == control.treatment), None)


def specializations(ablate: Ablation, depth: int, *, layer_scale: bool) -> tuple[Specialization, ...]:
    """Return the distinct specializations of a sweep at one depth, the baseline first.

    Args:
        ablate: The axes; components are crossed with blocks and modes, texts written out come after them,
            crossed with modes.
        depth: Number of blocks of the model.
        layer_scale: Whether the blocks have layer scales.

    Returns:
        Each once, in the order of first appearance; by the name of a named arm if one of its texts is that.

    Raises:
        ConfigError: If a text does not resolve at this depth.
    """
    parse = partial(parse_specialization, depth=depth, layer_scale=layer_scale)
    found = [parse("none")]
    modes = [parse_mode(text) for text in dict.fromkeys(ablate.modes)]
    ranges = dict.fromkeys(ablate.blocks or ("all",))
    for component in dict.fromkeys(ablate.components or ()):
        for blocks, mode in itertools.product(ranges, modes):
            found.append(parse(component, default_range=blocks, default_mode=mode))
    for text, mode in itertools.product(dict.fromkeys(ablate.specialize or ()), modes):
        found.append(parse(text, default_mode=mode))
    distinct = {specialization.text: specialization for specialization in found}
    named = {specialization.text: specialization for specialization in found if specialization.name}
    return tuple((distinct | named).values())


def _rows(sweep: Sweep, shape: _Shape) -> tuple[_Row, ...]:
    scale_name, _, layer_scale = shape
    scale = SCALES[scale_name]
    baseline = parse_specialization("none", scale.depth, layer_scale=layer_scale)
    arms = _arm_rows(sweep, shape)
    rows = [_Row(baseline.text, Role.BASELINE, Treatment(specialize=baseline.text), baseline)]
    for text in sweep.file.controls:
        control = _control(sweep, scale, text, arms, layer_scale=layer_scale)
        rows.append(_Row(control.text, Role.CONTROL, control.treatment, control.specialization))
    for floor in sweep.file.floors:
        rows.append(_Row(floor.replace("_", " "), Role.FLOOR, Treatment(kind=floor), baseline))
    counts = sweep.external_parameters or (0,) * len(sweep.file.external)
    for external, count in zip(sweep.file.external, counts, strict=True):
        treatment = Treatment(kind="external", external=external)
        rows.append(_Row(external.name, Role.EXTERNAL, treatment, baseline, count))
    return (*rows, *arms)


def _control(sweep: Sweep, scale: Scale, text: str, arms: Sequence[_Row], *, layer_scale: bool) -> Control:
    """Return a control; the arm that a placebo is of is called as in the table, without what is said of its token."""
    owners = [
        Control(_arm_text(row.specialization.label, row.treatment), row.treatment, row.specialization)
        for row in arms
        if row.treatment.kind == "specialize"
    ]
    position = sweep.file.ablate.placebo_position
    return resolve_control(text, owners, scale, layer_scale=layer_scale, position=position)


def _arm_rows(sweep: Sweep, shape: _Shape) -> tuple[_Row, ...]:
    scale_name, has_registers, layer_scale = shape
    ablate, depth = sweep.file.ablate, SCALES[scale_name].depth
    baseline, *others = specializations(ablate, depth, layer_scale=layer_scale)
    rows = []
    for specialization, *choices in itertools.product(others, *_choices(ablate, has_registers=has_registers)):
        chosen = {field: value for choice in choices for field, value in choice.items()}
        if all(mode.kind == "lora" for _, _, mode in specialization.places()):
            chosen["init"] = "copy"  # matrices of low rank have no other way to start
        if not any(component.has_matrix for component, _, _ in specialization.places()):
            chosen["own_weight_decay"] = 1.0  # vectors do not decay
        treatment = Treatment(specialize=specialization.text, **chosen)
        text = _arm_text(specialization.label, treatment, *_token_remarks(treatment, has_registers=has_registers))
        rows.append(_Row(text, Role.ARM, treatment, specialization))
    effects: dict[object, Any] = {}
    for comparator in ablate.comparators or ():
        effects.setdefault(comparator.effect(depth), comparator)
    for comparator in effects.values():
        treatment = Treatment(kind="comparator", comparator=comparator)
        rows.append(_Row(comparator.text, Role.ARM, treatment, baseline))
    # Some choices make no difference, e.g. whom registers go with where the placebo has the own weights.
    return tuple({row.treatment: row for row in rows}.values())


def _choices(ablate: Ablation, *, has_registers: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield what the arms choose from besides their places, axis by axis, each choice once."""
    yield [{"init": init} for init in dict.fromkeys(ablate.init)]
    tokens: list[dict[str, Any]] = []
    for kind in dict.fromkeys(ablate.tokens):
        if kind == "placebo":
            tokens.append({"tokens": kind, "placebo_position": ablate.placebo_position})
        else:
            owners = dict.fromkeys(ablate.registers_with) if has_registers else ("cls",)
            tokens += [{"registers_with": owner} for owner in owners]
    yield tokens
    yield [{"own_lr": factor} for factor in dict.fromkeys(ablate.own_lr)]
    yield [{"own_weight_decay": factor} for factor in dict.fromkeys(ablate.own_weight_decay)]


def _token_remarks(treatment: Treatment, *, has_registers: bool) -> tuple[str, ...]:
    """Return what a row says of the tokens that have the own weights; nothing of [CLS]."""
    if treatment.tokens == "placebo":
        return ("placebo",)
    return ("registers with patches",) if has_registers and treatment.registers_with == "patches" else ()


def _arm_text(places: str, treatment: Treatment, *token_remarks: str) -> str:
    remarks = ["independent"] if treatment.init == "independent" else []
    remarks += token_remarks
    if treatment.own_lr != 1:
        remarks.append(f"own lr {treatment.own_lr}")
    if treatment.own_weight_decay != 1:
        remarks.append(f"own weight decay {treatment.own_weight_decay}")
    return places + (f" ({', '.join(remarks)})" if remarks else "")


@dataclass(frozen=True)
class _Arm:
    """What the trials of an arm share."""

    row: _Row
    group: str
    group_id: str
    arm_id: str
    name: str
    num_parameters: int
    extra_parameters_percent: float
    config: TrialConfig
    """That of its first seed."""

    def trial(self, seed: int) -> Trial:
        config = replace(self.config, seed=seed)
        is_external = self.row.role is Role.EXTERNAL
        return Trial(
            trial_id=trial_id(config),
            group_id=self.group_id,
            arm_id=self.arm_id,
            group=self.group,
            arm=self.row.text,
            role=self.row.role,
            label=f"{self.name} (external)" if is_external else f"{self.name} seed {seed}",
            seed=seed,
            num_parameters=self.num_parameters,
            extra_parameters_percent=self.extra_parameters_percent,
            config=config,
        )


def _arms(sweep: Sweep, group: Group, rows: tuple[_Row, ...]) -> list[_Arm]:
    scale = SCALES[group.model.scale]
    plain = count_parameters(
        scale,
        image_size=group.data.image_size,
        patch_size=group.model.patch_size,
        layer_scale=group.objective.layer_scale > 0,
        cls_position=group.objective.cls_position,
        high_norm=parse_high_norm(group.model.high_norm),
    )
    group_text = ", ".join(f"{path}={_value_text(value)}" for path, value in group.varied)
    arms = []
    for row in rows:
        extra = count_extra_parameters(scale, row.specialization)
        if row.treatment.comparator is not None:
            has_scales = group.objective.layer_scale > 0
            extra += row.treatment.comparator.count_extra_parameters(scale, layer_scale=has_scales)
        config = TrialConfig(
            treatment=row.treatment,
            model=group.model,
            data=group.data,
            objective=group.objective,
            probes=sweep.file.probes,
            rungs=sweep.file.rungs,
            diagnostics=sweep.file.diagnostics,
            seed=sweep.seeds[0],
        )
        own_name = (group.model.scale, *_short_values(group))
        if row.role is Role.EXTERNAL:
            own_name = tuple(f"{path}={_value_text(value)}" for path, value in group.varied)
        num_parameters = 0 if row.treatment.kind == "raw_pixels" else plain + extra
        if row.num_parameters is not None:
            num_parameters, extra = row.num_parameters, row.num_parameters - plain
        arms.append(
            _Arm(
                row=row,
                group=group_text,
                group_id=group_id(config),
                arm_id=arm_id(config),
                name=" ".join((*own_name, row.text)),
                num_parameters=num_parameters,
                extra_parameters_percent=100 * extra / plain,
                config=config,
            )
        )
    return arms


def _short_values(group: Group) -> list[str]:
    """Write the varied values besides the scale, with the bare field name where that says which it is."""
    names = [path.partition(".")[2] for path, _ in group.varied]
    texts = []
    for (path, value), name in zip(group.varied, names, strict=True):
        if path != "model.scale":
            is_plain = names.count(name) == 1 and name != "seed"
            texts.append(f"{name if is_plain else path}={_value_text(value)}")
    return texts


def _value_text(value: Any) -> str:
    """Write a value as in a sweep file, text without quotes."""
    return value if isinstance(value, str) else canonical_json(value)
