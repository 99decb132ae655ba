"""Content addresses: a trial is named by the hash of its resolved configuration.

The whole configuration is hashed, defaults included, so a changed default can never pass old results off
as new ones. That alone would give every trial a new name whenever a setting is added; ``ADDED_LATER`` keeps
the names: a setting in it is left out while it has the value that means "as before".
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from specvit.config import PROTOCOL_VERSION, RungSettings, Treatment, TrialConfig, default_rung_probes
from specvit.probes import SelectedProbes

ADDED_LATER: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "Recipe": {
            "optimizer": "adamw",
            "betas": [0.9, 0.999],
            "epochs": None,
            "drop_path_uniform": False,
            "cls_std": 1e-6,
        },
        "RungSettings": {"held_out": False},
        "Treatment": {"own_lr": 1.0, "own_weight_decay": 1.0, "external": None, "perturbation": 0.0},
        "DeiT3": {"repeats": 1, "dense_weight": 0.0},
        "PatchDiversification": {"mixing_weight": 0.0},
        "FileSource": {"orientation": None, "keep": "arrays", "probe_size": None, "on_bad_image": "fail"},
        "DepthMaps": {"units_per_m": 1000},
        "Masks": {"ignore_zero": False},
        "Probe": {"data": None, "num_train": None},
        "DinoV2": {
            "lr_batch_size": None,
            "drop_path_subset": False,
            "clip_separately": False,
            "blur_scales": True,
            "patch_bottleneck": None,
            "koleo_radius": 0.0,
        },
        "Segmentation": {
            "protocol": "ridge",
            **dict.fromkeys(("cs", "lrs", "steps", "batch_size", "dropout", "ks", "max_patches")),
        },
        "Linear": {
            "protocol": "logistic",
            **dict.fromkeys(("lrs", "last_blocks", "standardise", "epochs", "batch_size")),
        },
    }
)
"""Settings that came since ``PROTOCOL_VERSION`` was raised last: class name to field name to the literal value
(as JSON) under which everything is computed as before the field was there. The class may be a base class. Not a
reference to the default: when the default moves on, trials that take it are new trials."""

_DEFAULT_RUNG_IMAGES = 512
"""What ``rungs.num_images`` is taken for where there are no rungs; a literal, as the values above."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def trial_id(config: TrialConfig) -> str:
    """Return the SHA-256 of a configuration, 64 hex digits."""
    return _digest(_section_texts(config))


def arm_id(config: TrialConfig) -> str:
    """Return the SHA-256 of a configuration without its seed."""
    return _digest(_without(_section_texts(config), "seed"))


def group_id(config: TrialConfig) -> str:
    """Return the SHA-256 of what all arms of a group share: no treatment, no seed."""
    return _digest(_without(_section_texts(config), "seed", "treatment"))


def training_id(config: TrialConfig) -> str:
    """Return the SHA-256 of what decides the backbone that a trial ends with, whatever is asked of it then.

    Model, data, recipe, treatment and seed; no probes, rungs and diagnostics, which look at a training and change
    nothing in it, but for the images that rungs score where a supervised recipe leaves them out. Of floors and external
    backbones, which are not trained here, it is what the backbone depends on, see ``untrained_key``.
    """
    if config.treatment.is_trained:
        texts = _section_texts(config)
        rungs = _same_rungs(config.rungs, config.probes, bool(config.objective.required_targets()))
        if rungs.held_out:
            texts["held_out"] = canonical_json(rungs.num_images)
        return _digest(_without(texts, "probes", "rungs", "diagnostics"))
    return untrained_key(replace(config, probes=(), diagnostics=False))


def evaluation_ids(config: TrialConfig) -> dict[str, str]:
    """Return the SHA-256 of each evaluation of a trial, training and settings of the probe, by the name of the probe.

    Which images a probe of a data source of its own sees is a part of its settings; what they hold is kept beside.
    """
    training = canonical_json(training_id(config))
    return {
        probe.name: _digest({"training": training, "probe": canonical_json({probe.name: _without_paths(probe)})})
        for probe in config.probes
    }


def untrained_key(config: TrialConfig) -> str:
    """Return what two trials that train nothing have in common if they compute the same, although their recipes differ.

    Of the recipe, a backbone at its initial weights depends on what it is built with alone; raw pixels do not even
    depend on the model, but for the size of its patches; an external backbone is what its file holds, built as its
    architecture says. Rungs are of training.

    Raises:
        ValueError: If the configuration is of a trial that trains, or names a checkpoint without its hash.
    """
    kind, model, recipe = config.treatment.kind, config.model, config.objective
    texts = _section_texts(config)
    shared = {name: texts[name] for name in ("data", "probes", "seed", "protocol")} | {"kind": canonical_json(kind)}
    if kind == "raw_pixels":
        return _digest(shared | {"patch_size": canonical_json(model.patch_size)})
    if kind == "random_init":
        plain_model = replace(model, checkpoint=None, checkpoint_sha256=None)
        built = [recipe.layer_scale, recipe.cls_position, recipe.cls_std, config.diagnostics]
        own = {"model": _without_paths(plain_model), "built": built}
        return _digest(shared | {name: canonical_json(value) for name, value in own.items()})
    if kind == "external":
        return _digest(shared | {"treatment": texts["treatment"], "diagnostics": texts["diagnostics"]})
    raise ValueError(f"must not be trained, but is {kind!r}")


def _section_texts(config: TrialConfig) -> dict[str, str]:
    """Return the canonical JSON of each section of a configuration, and of the protocol version, by name.

    Paths (of data sources, of a checkpoint), names of external backbones, settings of how to compute (``micro_batch``)
    and probes that are off take no part; see also ``ADDED_LATER``. What the data hold is kept beside the trials; what a
    checkpoint holds is a setting by its hash. What trials share is written once, since sections are written one by one.
    Two ways to say one thing have the text of one: see ``_same_rungs`` and ``_same_treatment``.
    """
    sections = {name: getattr(config, name) for name in _field_names(TrialConfig)}
    sections["rungs"] = _same_rungs(config.rungs, config.probes, bool(config.objective.required_targets()))
    sections["treatment"] = _same_treatment(config.treatment, config.data.image_size // config.model.patch_size)
    texts = {name: _section_text(name, section) for name, section in sections.items()}
    return {**texts, "protocol": canonical_json(PROTOCOL_VERSION)}


@lru_cache(maxsize=4096)
def _same_rungs(rungs: RungSettings, probes: SelectedProbes, is_supervised: bool) -> RungSettings:
    """Return rungs with their probes in one order, cheap ones first; where there are no rungs, the default's.

    Images are held out of a supervised pretraining alone: of others that is not said.
    """
    if rungs.count:
        order = [probe.name for probe in sorted(probes, key=lambda probe: not probe.at_rungs)]
        place = {name: number for number, name in enumerate(order)}
        in_order = tuple(sorted(rungs.probes, key=lambda name: place.get(name, len(place))))
        return replace(rungs, probes=in_order, held_out=rungs.held_out and is_supervised)
    return replace(rungs, num_images=_DEFAULT_RUNG_IMAGES, probes=default_rung_probes(probes), held_out=False)


@lru_cache(maxsize=4096)
def _same_treatment(treatment: Treatment, side: int) -> Treatment:
    """Return a treatment with none for the middle of a grid of ``side`` x ``side`` patches."""
    if treatment.placebo_position == (side // 2, side // 2):
        return replace(treatment, placebo_position=None)
    return treatment


@lru_cache(maxsize=4096)
def _section_text(name: str, section: Any) -> str:
    if name == "probes":
        return canonical_json({probe.name: _without_paths(probe) for probe in section})
    named = {"model": section, "treatment": getattr(section, "external", None)}.get(name)
    if named is not None and named.checkpoint is not None and named.checkpoint_sha256 is None:
        raise ValueError(f"checkpoint {named.checkpoint!r} has no hash yet; see orchestrator.sweep.pretrained")
    if name == "objective":
        return canonical_json({k: v for k, v in plain(section).items() if k not in section.resource_fields})
    if name in ("data", "model", "treatment"):
        return canonical_json(_without_paths(section))
    return canonical_json(section)


def _without_paths(settings: Any) -> Any:
    """Return settings as plain JSON values without the fields that say where something lies, one level down too."""
    fields = plain(settings)
    for name in list(fields):
        value = getattr(settings, name)
        if name in getattr(settings, "path_fields", ()):
            del fields[name]
        elif dataclasses.is_dataclass(value):
            fields[name] = _without_paths(value)
    return fields


def _digest(texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a JSON object whose values are given as canonical JSON, 64 hex digits."""
    members = ",".join(f"{json.dumps(name)}:{texts[name]}" for name in sorted(texts))
    return hashlib.sha256(f"{{{members}}}".encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Write a value as JSON that depends on nothing but the value: sorted keys, no spaces, floats by repr.

    Raises:
        TypeError: If the value, or a part of it, is not made of settings, mappings with text keys, lists,
            text, numbers, booleans and None.
        ValueError: If a number is not finite.
    """
    return _ENCODER.encode(plain(value))


def plain(value: object) -> Any:
    """Return settings as plain JSON values, without the fields that ``ADDED_LATER`` leaves out."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value + 0.0  # -0.0 and 0.0 compute the same
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: plain(getattr(value, name)) for name in _field_names(type(value))}
        for base in type(value).__mro__ if ADDED_LATER else ():
            for name, neutral in ADDED_LATER.get(base.__name__, {}).items():
                if fields.get(name) == neutral:
                    del fields[name]
        return fields
    raise TypeError(f"a configuration holds plain values only, not {type(value).__name__}: {value!r}")


@cache
def _field_names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _without(texts: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if name not in names}
