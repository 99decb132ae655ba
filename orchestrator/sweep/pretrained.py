"""The checkpoints of a sweep and its external backbones: looked at, and named by their content, before anything runs.

A trial's identity must follow what a checkpoint holds, not where it lies. Data sources cannot know that
before the images have been read, so their fingerprints stand beside the trials in the ledger. A checkpoint is
one file: its SHA-256 goes into the settings, and so into the identity, in place of the path. Another content
makes other trials, and a moved file the same ones. Every trial holds the file against the hash as it reads it,
so that a file that is replaced halfway fails the trials that are left, and cannot mix two contents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.sweep.extending import read_sweep_file
from orchestrator.sweep.overrides import apply_overrides
from orchestrator.sweep.problems import Problem, SweepFileError
from orchestrator.sweep.resolved import Group, Sweep
from specvit.config import ExternalBackbone, ModelSettings
from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.models.config import VitConfig

if TYPE_CHECKING:
    from specvit.external import InspectedBackbone


def pin_checkpoints(sweep: Sweep) -> Sweep:
    """Return the sweep with the hashes of its checkpoints in the settings, once they were found to fit.

    Args:
        sweep: A sweep as ``load_sweep`` returns it.

    Returns:
        The sweep, its checkpoints as absolute paths (names on the hub stay names) with their SHA-256, its external
        backbones with all that is known of them. Without either it is the same sweep, and costs nothing.

    Raises:
        SweepFileError: If a checkpoint is missing, cannot be read, does not fit its group's backbone, has another
            hash than the given one, or two that make groups hold the same; or if an external backbone cannot be
            looked at by the probes, or is there twice. The text names the file and the field.
    """
    return _pin_external(_pin_groups(sweep))


def _pin_groups(sweep: Sweep) -> Sweep:
    if all(group.model.checkpoint is None and group.model.checkpoint_sha256 is None for group in sweep.groups):
        return sweep
    pinned: dict[ModelSettings, ModelSettings] = {}
    try:
        for model in dict.fromkeys(group.model for group in sweep.groups):
            pinned[model] = _pin(model)
        groups = tuple(replace(group, model=pinned[group.model]) for group in sweep.groups)
        _check_fit(groups)
        _refuse_same_content(groups)
    except (ConfigError, DataError) as error:
        raise SweepFileError(f"{sweep.path}: {error}") from error
    return replace(sweep, groups=groups)


def _pin(model: ModelSettings) -> ModelSettings:
    if model.checkpoint is None:
        if model.checkpoint_sha256 is not None:
            raise ConfigError("model.checkpoint_sha256: needs model.checkpoint")
        return model
    # Not at the top, nor below: it imports torch, which no sweep without checkpoints needs.
    from specvit.models.pretrained_weights import find_checkpoint

    try:
        path = find_checkpoint(model.checkpoint)
        found = sha256_of(path)
    except (DataError, OSError) as error:
        raise DataError(f"model.checkpoint: {error}") from error
    if model.checkpoint_sha256 not in (None, found):
        raise ConfigError(
            f"model.checkpoint_sha256: must be that of {model.checkpoint!r}, {found}, not {model.checkpoint_sha256}"
        )
    # Workers need not run in this process's folder. What is no file is a name, which they can resolve.
    is_file = Path(model.checkpoint).expanduser().is_file()
    checkpoint = str(path.resolve()) if is_file else model.checkpoint
    return replace(model, checkpoint=checkpoint, checkpoint_sha256=found)


def _pin_external(sweep: Sweep) -> Sweep:
    """Look at each external backbone, and report at once what is wrong with them."""
    if not sweep.file.external:
        return sweep
    from specvit.external import inspect_external

    problems: list[Problem] = []
    found: list[InspectedBackbone] = []
    known: dict[ExternalBackbone, str] = {}
    for index, external in enumerate(sweep.file.external):
        try:
            inspected = inspect_external(external)
            _check_sizes(sweep, inspected)
            found.append(inspected)
            before = known.setdefault(replace(inspected.settings, name="-", checkpoint="-"), external.name)
            if before != external.name:
                raise ConfigError(f"must differ in content, but {before!r} and {external.name!r} hold the same")
        except (ConfigError, DataError, OSError) as error:
            problems.append(Problem(("external", index, "checkpoint"), str(error)))
    if problems:
        _, places = apply_overrides(read_sweep_file(sweep.path), sweep.overrides, name=str(sweep.path))
        raise places.error(problems)
    return replace(
        sweep,
        file=replace(sweep.file, external=tuple(each.settings for each in found)),
        external_parameters=tuple(each.num_parameters for each in found),
    )


def _check_sizes(sweep: Sweep, inspected: InspectedBackbone) -> None:
    """Check that a backbone can look at the images of all probes."""
    sources = {probe.data or group.data: probe.name for group in sweep.groups for probe in sweep.file.probes}
    for source, probe in sources.items():
        size, patch = source.probed_size, inspected.patch_size
        if size % patch:
            rule = f"must have a patch size that divides the images of probe {probe!r}, {size} pixels, not {patch}"
            raise ConfigError(rule)
        if inspected.image_size not in (None, size):
            rule = f"takes images of {inspected.image_size} pixels alone (dynamic_img_size is off)"
            raise ConfigError(f"{rule}, but those of probe {probe!r} have {size}")


def _check_fit(groups: Iterable[Group]) -> None:
    """Fit every checkpoint to its groups' plain backbones, which are built without memory for weights."""
    from specvit.models.pretrained_weights import find_checkpoint, fit_weights, read_weights
    from specvit.models.vit import build_empty

    wanted: dict[str, list[VitConfig]] = {}
    for group in groups:
        if group.model.checkpoint is not None:
            config = VitConfig.from_settings(group.model, group.objective, image_size=group.data.image_size)
            configs = wanted.setdefault(group.model.checkpoint, [])
            if config not in configs:
                configs.append(config)
    for checkpoint, its_configs in wanted.items():
        try:
            weights = read_weights(find_checkpoint(checkpoint))
            for config in its_configs:
                fit_weights(weights, build_empty(config), name=checkpoint)
        except (ConfigError, DataError) as error:
            raise type(error)(f"model.checkpoint: {error}") from error


def _refuse_same_content(groups: Iterable[Group]) -> None:
    """Refuse groups that differ in the checkpoint's path alone: they would be the same trials twice."""
    known: dict[Group, str] = {}
    for group in groups:
        key = replace(group, varied=(), model=replace(group.model, checkpoint=None))
        before = known.setdefault(key, str(group.model.checkpoint))
        if before != str(group.model.checkpoint):
            raise ConfigError(
                f"model.checkpoint: must differ in content to make groups, but {before!r} and "
                f"{group.model.checkpoint!r} hold the same"
            )
