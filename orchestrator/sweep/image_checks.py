"""Rules of a sweep that only its images can tell: lengths given in epochs, and whether targets vary at all."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.sweep.resolved import Sweep
from specvit.data import Dataset, DataSource
from specvit.errors import ConfigError, DataError
from specvit.recipes import RECIPES

_LEAST = {"labels": "2 classes", "masks": "2 classes", "depth": "2 depths", "boxes": "1 box"}


def check_images(sweep: Sweep, datasets: Mapping[DataSource, Dataset]) -> None:
    """Check what a sweep asks of its images, before anything runs.

    Args:
        sweep: The sweep.
        datasets: What its data sources loaded; a source that is not there is not checked.

    Raises:
        ConfigError: If a run of some epochs has no more steps than rungs.
        DataError: If the training images of a probe, or of a recipe that learns from a target, hold a single class of
            it, a single depth or no box: every arm would score the same.
    """
    _check_epochs(sweep, datasets)
    for group in sweep.groups:
        for target, field in group.objective.required_targets().items():
            _check_variety(sweep, datasets, group.data, target, place=f"objective.{field}")
        for probe in sweep.file.probes:
            _check_variety(sweep, datasets, probe.data or group.data, probe.needs, place=f"probes.{probe.name}")


def _check_variety(
    sweep: Sweep, datasets: Mapping[DataSource, Dataset], source: DataSource, target: str, *, place: str
) -> None:
    if source not in datasets or target not in _LEAST:
        return
    dataset = datasets[source]
    wanted = 1 if target == "boxes" else 2
    values = dataset.train.distinct(target, most=wanted)
    if len(values) == wanted:
        return
    names = {"labels": dataset.class_names, "masks": dataset.mask_names}.get(target, ())
    found = [repr(names[int(value)]) if value < len(names) else f"{value:g}" for value in values]
    ignored = " and pixels to ignore (255)" if target == "masks" else ""
    hint = ""
    if target == "labels" and place.startswith("probes."):
        recipes = ", ".join(name for name, recipe in RECIPES.items() if not recipe.needs)
        hint = (
            f". Unlabelled images are pretrained on by a self-supervised recipe ({recipes}), and its probes have "
            f"images of their own, with classes: {place}: {{data: {{source: .., root: ..}}}}"
        )
    raise DataError(
        f"{sweep.path}: {place}: must have at least {_LEAST[target]} in the {target} of its training images "
        f"(source {source.name!r}), not {f'{found[0]} alone' if found else 'none'}{ignored}: every arm would score "
        f"the same{hint}"
    )


def _check_epochs(sweep: Sweep, datasets: Mapping[DataSource, Dataset]) -> None:
    """Check the runs whose length is given in epochs, which are known in steps once the images are."""
    for group in sweep.groups:
        objective, dataset = group.objective, datasets.get(group.data)
        if objective.epochs is None or dataset is None:
            continue
        num_images = len(dataset.train) - sweep.file.rungs.num_held_out(objective, len(dataset.train))
        steps = objective.for_images(num_images).steps
        if sweep.file.rungs.count >= steps:
            length = f"{objective.epochs:g} epochs of {num_images} images in batches of {objective.batch_size}"
            raise ConfigError(
                f"{sweep.path}: rungs.count: must be less than the steps of objective.epochs, {steps} ({length}), "
                f"not {sweep.file.rungs.count}"
            )
