"""How much memory the probes of a trial take, by arithmetic: the features that they read, and copies of them.

Features are those of one data set at a time, in the machine's memory; the tests hold them to the byte. What a probe
makes of them beside parts of a constant size is ``Probe.num_copied``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from specvit.config import TrialConfig, default_rung_probes
from specvit.data import Counts, DataSource
from specvit.models.scales import SCALES
from specvit.probes.base import PATCH_FEATURES, PatchFeatures, Probe

WIDE = 4
"""Bytes of a float32."""


Counting = Callable[[DataSource], Counts | None]
"""What tells how many images a source has; None if that is not known."""


def known_counts(source: DataSource) -> Counts | None:
    """Return how many images a source has, as far as it is known without a look at the disk."""
    return source.known_counts()


def probe_bytes(
    config: TrialConfig, *, extracting: int = 0, counting: Counting = known_counts
) -> int | None:
    """Compute the most that probes of a trial hold, of one data set at the end or of a rung; None if not known.

    Args:
        config: The trial.
        extracting: Bytes that are taken while features are made, and are free when a probe is fitted.
        counting: How many images there are.
    """
    at_rungs = config.rungs.probes or default_rung_probes(config.probes)
    most = 0
    for source in config.sources:
        probes = [probe for probe in config.probes if (probe.data or config.data) == source]
        if not probes:
            continue
        counts = counting(source)
        if counts is None:
            return None
        num_train, num_val = counts.train, counts.val
        asked = [([(probe, min(probe.num_train or num_train, num_train)) for probe in probes], num_val)]
        if config.rungs.count > 0 and config.treatment.is_trained:
            scored = config.rungs.num_scored(num_train)
            fitted = min(config.rungs.num_images, num_train) - scored
            asked.append(([(probe, fitted) for probe in probes if probe.name in at_rungs], scored))
        for limits, num_reported in asked:
            classes = {"labels": counts.classes}
            held = _held_of(limits, num_reported, config, source, extracting, classes) if limits else 0
            most = max(most, held)
    return most


def _held_of(
    limits: Sequence[tuple[Probe, int]],
    num_val: int,
    config: TrialConfig,
    source: DataSource,
    extracting: int,
    num_classes: Mapping[str, int | None],
) -> int:
    """Compute the bytes that probes hold of a source, each fitted on so many images."""
    size = source.probed_size
    targets = {"labels": 8, "masks": size * size, "depth": 2 * size * size}
    return held_bytes(
        limits,
        num_val=num_val,
        image_size=size,
        patch_size=config.model.patch_size,
        width=None if config.treatment.kind == "raw_pixels" else SCALES[config.model.scale].width,
        target_bytes=sum(targets.get(target, 0) for target in source.targets),
        num_classes=num_classes,
        extracting=extracting,
    )


def held_bytes(
    limits: Sequence[tuple[Probe, int]],
    *,
    num_val: int,
    image_size: int,
    patch_size: int,
    width: int | None,
    target_bytes: int = 0,
    num_classes: Mapping[str, int | None] = MappingProxyType({}),
    extracting: int = 0,
) -> int:
    """Compute the most that probes of one data set hold: features of all, and what one of them makes of its own.

    Args:
        limits: The probes, with how many images each is fitted on; fewer than others are, are taken out of these.
        num_val: Images that all report on.
        image_size: As of ``feature_bytes``, as are the others.
        patch_size: Likewise.
        width: Likewise.
        target_bytes: Likewise.
        num_classes: By target, as far as it is known.
        extracting: As of ``probe_bytes``.
    """
    most, kinds = max(limit for _, limit in limits), [(probe.patch_features, probe.num_blocks) for probe, _ in limits]
    kept, num_blocks = max((kept for kept, _ in kinds), key=PATCH_FEATURES.index), max(number for _, number in kinds)
    of = partial(feature_bytes, image_size=image_size, patch_size=patch_size, width=width)
    num_patches, cls, patch = _dimensions(image_size, patch_size, width)
    made = [extracting]
    for probe, limit in limits:
        beside: PatchFeatures = "mean" if kept == "tokens" != probe.patch_features else kept
        taken = of(limit, patch_features=beside, num_blocks=num_blocks, target_bytes=target_bytes)
        copied = probe.num_copied(
            limit, num_patches=num_patches, cls_dim=cls, patch_dim=patch, num_classes=num_classes.get(probe.needs)
        )
        made.append(int(WIDE * copied) + (taken if limit < most else 0))
    features = of(most + num_val, patch_features=kept, num_blocks=num_blocks, target_bytes=target_bytes)
    return features + max(made)


def feature_bytes(
    num_images: int,
    *,
    image_size: int,
    patch_size: int,
    width: int | None,
    patch_features: PatchFeatures,
    num_blocks: int = 0,
    target_bytes: int = 0,
) -> int:
    """Compute the bytes of what probes hold of images.

    Args:
        num_images: N, of both splits together.
        image_size: Side of what probes see, in pixels.
        patch_size: Side of a patch, in pixels.
        width: Channels of a token; None = raw pixels.
        patch_features: What is kept of the patches.
        num_blocks: Of how many of the last blocks [CLS] is kept besides.
        target_bytes: Of the targets of an image.
    """
    num_patches, cls, patch = _dimensions(image_size, patch_size, width)
    kept = {"none": 0, "mean": patch, "tokens": num_patches * patch}[patch_features]
    return num_images * (WIDE * (cls * (1 + num_blocks) + kept) + target_bytes)


def _dimensions(image_size: int, patch_size: int, width: int | None) -> tuple[int, int, int]:
    """Return the number of patches, and how many numbers stand for [CLS] and for a patch."""
    cls, patch = (3 * image_size**2, 3 * patch_size**2) if width is None else (width, width)
    return (image_size // patch_size) ** 2, cls, patch
