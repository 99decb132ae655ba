"""Looking at a backbone that is finished: the probes of a configuration, and its diagnostics, without a training.

A trial is a training with its evaluations. What a trial of before has trained is evaluated here by probes that came
later; a trial that trains (``specvit.trial``) ends with the same probes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from timm.models.vision_transformer import VisionTransformer

from specvit.checkpoints import load_model
from specvit.config import TrialConfig
from specvit.data import Dataset, DataSource
from specvit.data.encoded import SKIPPED_METRIC, EncodedImages
from specvit.device import Device, select_device
from specvit.diagnostics.diagnose import diagnose
from specvit.diagnostics.measurement import Measurement
from specvit.probing import Probing
from specvit.training.augment import normalised

_LOG = logging.getLogger(__name__)

DIAGNOSED_IMAGES = 256
"""Images of the reported split that a backbone is diagnosed on, the first ones."""


def evaluate_backbone(
    config: TrialConfig,
    dataset: Dataset,
    weights: Path,
    sha256: str,
    *,
    probe_datasets: Mapping[DataSource, Dataset] = MappingProxyType({}),
    device: Device | None = None,
    moved_on: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], tuple[Measurement, ...]]:
    """Run the probes of a configuration, and its diagnostics, on a backbone that it has trained before.

    Each probe gets the images and the random numbers that it has at the end of a trial: its numbers are those of a
    trial that had it from the beginning.

    Args:
        config: The trial's configuration; of its probes, those that are to be run.
        dataset: What ``config.data`` loads.
        weights: The file of the backbone, from ``save_model``.
        sha256: What the file must hash to.
        probe_datasets: What the sources that probes have of their own load.
        device: Where to compute; None = the GPU if this process may use one, else the CPU.
        moved_on: Called after every extraction of features and every probe: a sign of life.

    Returns:
        Value by name of each metric, with ``skipped_images`` of what these probes have met; and what was read off the
        backbone, empty unless the configuration asks for it.

    Raises:
        DataError: If the file is not there, is not the one that was kept, or is no model.
        DivergenceError: If a feature is not a finite number.
    """
    device = device or select_device()
    backbone = load_model(weights, sha256=sha256)
    backbone.to(device.torch_device)
    _LOG.info("probing kept weights on %s: %s", device.name, ", ".join(probe.name for probe in config.probes) or "-")
    probed = [probe_datasets[probe.data] for probe in config.probes if probe.data is not None]
    encoded = skipping_images((dataset, *probed))
    probing = Probing(config, dataset, probe_datasets, moved_on=moved_on)
    metrics = probing.backbone(backbone, device=device)
    diagnostics = measure(backbone, config, dataset, device=device)
    return {**metrics, **num_skipped(encoded)}, diagnostics


def skipping_images(datasets: Iterable[Dataset]) -> list[EncodedImages]:
    """Return the images that stay encoded and of which bad ones may be skipped, as if none had been yet."""
    splits = [split.images for dataset in datasets for split in (dataset.train, dataset.val)]
    encoded = [images for images in splits if isinstance(images, EncodedImages) and images.may_skip]
    for images in encoded:
        images.skipped.clear()  # what another trial of this process has met
    return encoded


def num_skipped(encoded: Sequence[EncodedImages]) -> dict[str, float]:
    """Return how many files were skipped, as a metric; none where none may be."""
    return {SKIPPED_METRIC: float(len({name for images in encoded for name in images.skipped}))} if encoded else {}


def measure(
    backbone: VisionTransformer, config: TrialConfig, dataset: Dataset, *, device: Device
) -> tuple[Measurement, ...]:
    """Return what is read off a backbone if the configuration asks for diagnostics; else nothing."""
    if not config.diagnostics:
        return ()
    with device.autocast():
        return diagnose(backbone, normalised(dataset.val.images[:DIAGNOSED_IMAGES].copy(), device))
