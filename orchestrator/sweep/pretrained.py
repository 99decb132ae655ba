"""The checkpoints of a sweep: looked at, and named by their content, before anything runs.

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

from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Group, Sweep
from specvit.config import ModelSettings
from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.models.config import VitConfig


def pin_checkpoints(sweep: Sweep) -> Sweep:
    """Return the sweep with the hashes of its checkpoints in the settings, once they were found to fit.

    Args:
        sweep: A sweep as ``load_sweep`` returns it.

    Returns:
        The sweep, its checkpoints as absolute paths (names on the hub stay names) with their SHA-256. Without
        checkpoints it is the same sweep, and costs nothing.

    Raises:
        SweepFileError: If a checkpoint is missing, cannot be read, does not fit its group's backbone, has another
            hash than the given one, or two that make groups hold the same; the text names the file and the field.
    """
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
