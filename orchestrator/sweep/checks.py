"""Rules of a sweep that no single field can know: what must fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.sweep.ablation_checks import check_ablation
from orchestrator.sweep.grid import arm_texts, count_trials, find_control
from orchestrator.sweep.groups import neutral_fields
from orchestrator.sweep.naming import check_name
from orchestrator.sweep.problems import FieldPath, Problem
from orchestrator.sweep.resolved import Group, Sweep
from orchestrator.sweep.resource_settings import share_of
from orchestrator.sweep.schema import MAX_TRIALS
from orchestrator.sweep.varying import Setting, Varied
from specvit.config import Treatment
from specvit.data import DataSource
from specvit.errors import ConfigError
from specvit.messages import did_you_mean
from specvit.probes import PROBES


@dataclass(frozen=True)
class _GroupContext:
    """A group, and what is needed to say where the user wrote a value of it.

    Attributes:
        group: The group.
        raw: The file.
        varied: Where the value of each field stands that ``vary`` gives it.
    """

    group: Group
    raw: Mapping[str, object]
    varied: Mapping[str, FieldPath]

    def place(self, *paths: str) -> FieldPath:
        """Return the first field that is varied, else the first that the file gives, else the first."""
        for path in paths:
            if path in self.varied:
                return self.varied[path]
        for path in paths:
            section, _, field = path.partition(".")
            fields = self.raw.get(section)
            if isinstance(fields, dict) and field in fields:
                return (section, field)
        return tuple(paths[0].split("."))


def check_sweep(
    sweep: Sweep, *, raw: Mapping[str, object], varied: Varied, settings: Sequence[Setting]
) -> list[Problem]:
    """Check what must fit together.

    Args:
        sweep: The sweep, each field of it valid.
        raw: The mapping it was made from.
        varied: What ``vary`` says.
        settings: What it gives to each group, in the order of ``sweep.groups``.

    Returns:
        The problems, each once.
    """
    problems = [*_check_name(sweep), *_check_probes(sweep), *_check_claims(sweep), *_check_probe_data(sweep)]
    problems += [*_check_comparison(sweep), *_check_paths(sweep, varied)]
    for setting, group in zip(settings, sweep.groups, strict=True):
        context = _GroupContext(group, raw, setting.places)
        problems += [*_check_sizes(context), *_check_targets(context, sweep), *_check_steps(context, sweep)]
        problems += _check_processes(context, sweep)
    problems += check_ablation(sweep)
    problems += _check_external(sweep)
    if not problems:
        problems += _check_controls(sweep)
    if not problems:
        problems += _check_priority(sweep)
        num_trials = count_trials(sweep)
        if num_trials > MAX_TRIALS:
            problems.append(Problem((), f"the sweep must have at most {MAX_TRIALS} trials, not {num_trials}"))
    return list(dict.fromkeys(problems))


def _check_name(sweep: Sweep) -> Iterator[Problem]:
    try:
        check_name(sweep.name)
    except ConfigError as error:
        yield Problem(("name",), f"{error}; the file's name does not serve, so give another here")


def _check_probes(sweep: Sweep) -> Iterator[Problem]:
    """Check the probes, those of the rungs, and the metric that pruning judges by."""
    switched_on = [probe.name for probe in sweep.file.probes]
    if not switched_on:
        yield Problem(("probes",), f"must switch on at least one of {', '.join(PROBES)}")
        return
    unknown = [name for name in sweep.file.rungs.probes if name not in switched_on]
    for name in unknown:
        path = ("rungs", "probes", sweep.file.rungs.probes.index(name))
        rule = f"must be a probe that is on ({', '.join(switched_on)}), not {name!r}"
        yield Problem(path, rule + did_you_mean(name, switched_on))
    for index, name in enumerate(sweep.file.rungs.probes):
        if name in sweep.file.rungs.probes[:index]:
            yield Problem(("rungs", "probes", index), f"must name each probe once, not {name!r} again")
    if getattr(sweep.file.pruning, "pruner", "none") == "none" or unknown:
        return
    if sweep.file.rungs.count < 1:
        rule = f"must be at least 1, since pruning judges at rungs, not {sweep.file.rungs.count}"
        yield Problem(("rungs", "count"), rule)
    metrics = [metric.name for name in sweep.file.rungs.probes for metric in PROBES[name].metrics]
    metric = sweep.file.pruning.metric
    if metric is not None and metric not in metrics:
        rule = f"must be a metric of the rungs' probes ({', '.join(metrics)}), not {metric!r}"
        yield Problem(("pruning", "metric"), rule + did_you_mean(metric, metrics))


def _check_claims(sweep: Sweep) -> Iterator[Problem]:
    """Check that what the sweep is judged by is measured."""
    metrics = [metric.name for probe in sweep.file.probes for metric in probe.metrics]
    named = [(("primary_metric",), sweep.file.primary_metric)] if sweep.file.primary_metric is not None else []
    for path, name in (*named, *((("smallest_effect", name), name) for name in sweep.file.smallest_effect)):
        if name not in metrics:
            rule = f"must be a metric of the probes ({', '.join(metrics)}), not {name!r}"
            yield Problem(path, rule + did_you_mean(name, metrics))


def _check_comparison(sweep: Sweep) -> Iterator[Problem]:
    """Check that how arms are compared goes with their seeds."""
    comparison, wanted = sweep.file.comparison, sweep.file.baseline_seeds
    if sweep.growth is not None:
        rule = "must be left out where seeds grow, whose looks are judged by blocks and a pooled variance"
        if not comparison.is_default:
            yield Problem(("comparison",), rule)
        if wanted is not None:
            yield Problem(("baseline_seeds",), rule)
    elif wanted is not None:
        if comparison.model != "unblocked":
            rule = "needs comparison: {model: unblocked}; with seeds as blocks, those of the baseline alone add nothing"
            yield Problem(("baseline_seeds",), rule)
        if wanted <= len(sweep.seeds):
            yield Problem(("baseline_seeds",), f"must be more than those of the arms, {len(sweep.seeds)}, not {wanted}")


def _check_probe_data(sweep: Sweep) -> Iterator[Problem]:
    """Check the images that probes have of their own."""
    for probe in sweep.file.probes:
        if probe.data is None:
            continue
        place = ("probes", probe.name, "data")
        if probe.needs not in probe.data.targets:
            yield Problem(place, f"must have {probe.needs}, but {_has(probe.data)}")
        for patch in dict.fromkeys(group.model.patch_size for group in sweep.groups):
            if probe.data.probed_size % patch:
                field = "image_size" if probe.data.probed_size == probe.data.image_size else "probe_size"
                rule = f"must be a multiple of model.patch_size, {patch}, not {probe.data.probed_size}"
                yield Problem((*place, field), rule)


def _has(source: DataSource) -> str:
    return f"source {source.name!r} has {', '.join(sorted(source.targets)) or 'none'}"


def _check_paths(sweep: Sweep, varied: Varied) -> Iterator[Problem]:
    """Check that no field has a list of values that make no groups; beside a field that makes them it may have one."""
    rules = {"data": "says where data lies, not what it is", "objective": "says how to compute, not what"}
    neutral = {
        f"{section}.{field}": rule
        for section, rule in rules.items()
        for part in {type(getattr(group, section)): getattr(group, section) for group in sweep.groups}.values()
        for field in neutral_fields(section, part)
    }
    for entry in varied.entries:
        for path in entry.axes:
            if path in neutral and path not in entry.single:
                yield Problem((*entry.place, path), f"{neutral[path]}, so it cannot make groups")


def _check_sizes(context: _GroupContext) -> Iterator[Problem]:
    patch, image = context.group.model.patch_size, context.group.data.image_size
    if image % patch:
        place = context.place("model.patch_size", "data.image_size")
        yield _broken(place, "model.patch_size", f"must divide data.image_size, {image}", patch)
        return
    if (probed := context.group.data.probed_size) % patch:
        place = context.place("data.probe_size", "model.patch_size")
        yield _broken(place, "data.probe_size", f"must be a multiple of model.patch_size, {patch}", probed)
    for name, size in context.group.objective.crop_sizes().items():
        field = f"objective.{name}"
        place = context.place(field, "objective.recipe", "model.patch_size", "data.image_size")
        if size % patch:
            yield _broken(place, field, f"must be a multiple of model.patch_size, {patch}", size)
        if size > image:
            yield _broken(place, field, f"must be at most data.image_size, {image}", size)


def _broken(place: FieldPath, field: str, rule: str, value: object) -> Problem:
    """Return the problem of a field whose rule speaks of another field; name it where the place does not."""
    subject = "" if field == ".".join(map(str, place)) else f"{field} "
    return Problem(place, f"{subject}{rule}, not {value}")


def _check_targets(context: _GroupContext, sweep: Sweep) -> Iterator[Problem]:
    """Check that the images carry what the recipe and the probes learn from."""
    recipe, source = context.group.objective, context.group.data
    has = _has(source)
    required = recipe.required_targets()
    for target in sorted(required.keys() - source.targets):
        rule = f"recipe {recipe.name!r} learns from {target}, but {has}"
        yield Problem(context.place(f"objective.{required[target]}", "data.source"), rule)
    for probe in sweep.file.probes:
        if probe.data is None and probe.needs not in source.targets:
            rule = f"predicts {probe.needs}, but {has}; give it images of its own by 'data'"
            yield Problem(("probes", probe.name), rule)


def _check_steps(context: _GroupContext, sweep: Sweep) -> Iterator[Problem]:
    """Check the length of the runs; where it is in epochs, ``check_images`` does so when the images are known."""
    objective = context.group.objective
    if objective.epochs is not None:
        fields = context.raw.get("objective")
        if "objective.steps" in context.varied or (isinstance(fields, dict) and "steps" in fields):
            rule = f"must be left out where objective.steps, {objective.steps}, is given"
            yield _broken(context.place("objective.epochs"), "objective.epochs", rule, objective.epochs)
        return
    steps = objective.steps
    if sweep.file.rungs.count >= steps:
        path = context.place("objective.steps") if "objective.steps" in context.varied else ("rungs", "count")
        rule = f"must be less than objective.steps, {steps}"
        yield _broken(path, "rungs.count", rule, sweep.file.rungs.count)


def _check_processes(context: _GroupContext, sweep: Sweep) -> Iterator[Problem]:
    """Check that processes can share every batch, and that each has GPUs of its own."""
    scale = context.group.model.scale
    share = share_of(sweep.file.resources, scale)
    batch_size = context.group.objective.batch_size
    own = sweep.file.resources.by_scale.get(scale)
    place: FieldPath = ("resources", "processes")
    if own is not None and own.processes is not None:
        given = context.raw.get("resources")
        is_beside = isinstance(given, Mapping) and scale in given
        place = ("resources", *(() if is_beside else ("by_scale",)), scale, "processes")
    if batch_size % share.processes:
        yield Problem(place, f"must divide objective.batch_size, {batch_size}, not {share.processes}")
    if share.processes > 1 and 0 < share.gpus < 1:
        whole = f"where gpus is a share of a GPU ({share.gpus:g}), since NCCL joins whole ones"
        yield Problem(place, f"must be 1 {whole}, not {share.processes}")


def _check_external(sweep: Sweep) -> Iterator[Problem]:
    """Check that the rows of external backbones can be told from each other; files are looked at before a run."""
    names = [external.name for external in sweep.file.external]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(("external", index, "name"), f"must be given once, not {name!r} again")
        if not name.isprintable() or name != name.strip():
            rule = "must be one line of text, without spaces around it"
            yield Problem(("external", index, "name"), f"{rule}, not {name!r}")


def _check_controls(sweep: Sweep) -> Iterator[Problem]:
    """Check that every control can be told in every group, and is a row of its own there."""
    for group in sweep.groups if sweep.file.controls else ():
        known: dict[Treatment, str] = {}
        for index, text in enumerate(sweep.file.controls):
            place = ("controls", index)
            try:
                control, arm = find_control(sweep, group, text)
            except ConfigError as error:
                yield Problem(place, str(error))
                continue
            if arm is not None:
                rule = f"{control.text!r} is an arm of the sweep already, {arm!r}; take it out of here or of ablate"
                yield Problem(place, rule)
            elif (other := known.setdefault(control.treatment, text)) is not text:
                yield Problem(place, f"must name each control once, but {text!r} is {other!r} again")


def _check_priority(sweep: Sweep) -> Iterator[Problem]:
    """Check that ``priority`` names arms, as the table does, each once."""
    known = arm_texts(sweep) if sweep.file.priority else ()
    for index, text in enumerate(sweep.file.priority):
        place = ("priority", index)
        if text not in known:
            listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            yield Problem(place, f"must be an arm of the sweep ({listed}), not {text!r}{did_you_mean(text, known)}")
        elif text in sweep.file.priority[:index]:
            yield Problem(place, f"must name each arm once, not {text!r} again")
