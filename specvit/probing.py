"""Which images the probes of a trial look at: features are extracted once per source and serve all its probes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from specvit.config import TrialConfig, default_rung_probes
from specvit.data import Dataset, DataSource, Split
from specvit.device import Device
from specvit.errors import DataError, PartError
from specvit.memory import GIB
from specvit.probe_footprint import held_bytes
from specvit.probes import Probe, ProbeSplit
from specvit.probes.base import PATCH_FEATURES, PatchFeatures
from specvit.probes.features import backbone_features, pixel_features, subset
from specvit.seeding import derive_seed, numpy_stream

_LOG = logging.getLogger(__name__)


class Read(TypedDict):
    """What probes read of a backbone, as arguments of ``backbone_features``."""

    num_blocks: int
    patch_features: PatchFeatures


class Extract(Protocol):
    """What computes the features of images."""

    def __call__(self, split: Split, *, num_blocks: int, patch_features: PatchFeatures) -> ProbeSplit:
        """Compute [CLS], also of so many of the last blocks, and of the patches what probes read."""


class Probing:
    """The probes of a trial, each on the images of its own source, or on those of the pretraining."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        probe_datasets: Mapping[DataSource, Dataset],
        *,
        moved_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the images.

        Args:
            config: The trial.
            dataset: What ``config.data`` loads.
            probe_datasets: What the sources that probes have of their own load.
            moved_on: Called at the end, after every extraction of features and every probe: a sign of life.
        """
        self.config = config
        self._moved_on = moved_on
        self._probes = {probe.name: probe for probe in config.probes}
        self._dataset_of = {
            name: dataset if probe.data is None else probe_datasets[probe.data]
            for name, probe in self._probes.items()
        }
        self._rung_splits: dict[int, tuple[Split, Split]] = {}

    def backbone(self, model: VisionTransformer, *, device: Device) -> dict[str, float]:
        """Probe a backbone: fit on the training splits, report on the validation splits."""
        return self._at_end(partial(backbone_features, model, device=device), width=model.embed_dim)

    def pixels(self) -> dict[str, float]:
        """Probe raw pixels, the floor below every backbone."""

        def extract(split: Split, *, num_blocks: int, patch_features: PatchFeatures) -> ProbeSplit:
            del num_blocks  # there are none
            return pixel_features(split, patch_size=self.config.model.patch_size, patch_features=patch_features)

        return self._at_end(extract, width=None)

    def rung(self, model: VisionTransformer, *, device: Device) -> dict[str, float]:
        """Run the probes of the rungs on some training images, most to fit and the others to score."""
        metrics: dict[str, float] = {}
        for dataset, names in self._by_dataset(tuple(rung_probes(self.config))):
            if id(dataset) not in self._rung_splits:
                self._rung_splits[id(dataset)] = rung_splits(self.config, dataset.train)
            extract = partial(backbone_features, model, device=device, **self._read_by(names))
            metrics |= self._rung_of(dataset, names, extract)
        return metrics

    def _rung_of(self, dataset: Dataset, names: list[str], extract: Callable[[Split], ProbeSplit]) -> dict[str, float]:
        """Run probes of a rung on a data set; its features are gone when those of the next are made."""
        fitted, scored = map(extract, self._rung_splits[id(dataset)])
        # So few images may be without the target of a probe, which is no fault of the data.
        able = [name for name in names if all(part.has(self._probes[name].needs) for part in (fitted, scored))]
        return self._evaluate(able, fitted, scored, dataset)

    def _at_end(self, extract: Extract, *, width: int | None) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for dataset, names in self._by_dataset(tuple(self._probes)):
            metrics |= self._of_dataset(dataset, names, extract, width=width)
        return metrics

    def _of_dataset(
        self, dataset: Dataset, names: list[str], extract: Extract, *, width: int | None
    ) -> dict[str, float]:
        """Run probes on a data set; its features are gone when those of the next are made."""
        metrics: dict[str, float] = {}
        num_images, read = len(dataset.train), self._read_by(names)
        drawn = numpy_stream(self.config.seed, "probe images").permutation(num_images)
        limits = {name: min(self._probes[name].num_train or num_images, num_images) for name in names}
        most = max(limits.values())
        self._say(limits, dataset, width=width)
        images = dataset.train if most == num_images else subset(dataset.train, drawn[:most])
        train = extract(images, **read)
        self._moved_on()
        val = extract(dataset.val, **read)
        self._moved_on()
        for limit in dict.fromkeys(limits.values()):
            alike, part = [name for name in names if limits[name] == limit], train
            if limit < most:
                rows = torch.from_numpy(drawn[:limit] if most == num_images else np.arange(limit))
                keeps = self._read_by(alike)["patch_features"] == "tokens"
                part = (train if keeps else train.without_tokens()).subset(rows)
            for name in alike:
                metrics |= self._evaluate([name], part, val, dataset)
                self._moved_on()
        return metrics

    def _say(self, limits: Mapping[str, int], dataset: Dataset, *, width: int | None) -> None:
        """Log what the features of a data set will take, and what probes make of them."""
        size = held_bytes(
            [(self._probes[name], limit) for name, limit in limits.items()],
            num_val=len(dataset.val),
            image_size=dataset.val.images.shape[-1],
            patch_size=self.config.model.patch_size,
            width=width,
            num_classes=dataset.num_classes,
            target_bytes=sum(getattr(dataset.val, target)[:1].nbytes for target in dataset.val.targets),
        )
        _LOG.info(
            "probing %s: features of %d images to fit on and %d to report on, %.1f GiB of memory",
            ", ".join(limits),
            max(limits.values()),
            len(dataset.val),
            size / GIB,
        )

    def _read_by(self, names: list[str]) -> Read:
        """Return what probes read, so that no more is kept."""
        probes = [self._probes[name] for name in names]
        return {
            "num_blocks": max(probe.num_blocks for probe in probes),
            "patch_features": max((probe.patch_features for probe in probes), key=PATCH_FEATURES.index),
        }

    def _by_dataset(self, names: tuple[str, ...]) -> Iterator[tuple[Dataset, list[str]]]:
        """Yield every dataset once, with the probes that look at it."""
        datasets = {id(self._dataset_of[name]): self._dataset_of[name] for name in names}
        for key, dataset in datasets.items():
            yield dataset, [name for name in names if id(self._dataset_of[name]) == key]

    def _evaluate(
        self, names: list[str], train: ProbeSplit, val: ProbeSplit, dataset: Dataset
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name in names:
            probe: Probe = self._probes[name]
            seed = derive_seed(self.config.seed, "probe", name)
            found = probe.evaluate(train, val, num_classes=dataset.num_classes[probe.needs], seed=seed)
            listed = [metric.name for metric in probe.metrics]
            if found.keys() != set(listed):  # another probe's metric could be written over
                given = ", ".join(map(str, found)) or "nothing"
                rule = f"must report the metrics that it lists ({', '.join(listed)})"
                raise PartError(f"probe {name!r} {rule}, not {given}")
            metrics |= found
        return metrics


def rung_probes(config: TrialConfig) -> dict[str, Probe]:
    """Return the probes of the rungs, by name: those asked for, or else those that are cheap."""
    names = config.rungs.probes or default_rung_probes(config.probes)
    return {probe.name: probe for name in names for probe in config.probes if probe.name == name}


def rung_splits(config: TrialConfig, train: Split) -> tuple[Split, Split]:
    """Draw the images of the rungs from a training split: some to fit on, others to score."""
    fitted, scored = _rung_images(config, len(train))
    return subset(train, fitted), subset(train, scored)


def pretrained_on(config: TrialConfig, train: Split) -> tuple[Split, NDArray[np.int64] | None]:
    """Return a training split, and ``(M,)`` which of its images the pretraining sees, rising; None = all.

    Those that rungs score are left out where the recipe learns from targets; nor is one of them taken in the place of
    an image that cannot be used.
    """
    if config.rungs.num_held_out(config.objective, len(train)) == 0:
        return train, None
    held_out = _rung_images(config, len(train))[1]
    return train.without_substitutes(held_out), np.setdiff1d(np.arange(len(train)), held_out)


def _rung_images(config: TrialConfig, num_images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw which of so many images rungs fit on, and which they score."""
    if num_images < 2:
        raise DataError(f"a rung needs at least 2 training images, not {num_images}: set rungs.count to 0")
    drawn = numpy_stream(config.seed, "rung images").permutation(num_images)[: config.rungs.num_images].astype(np.int64)
    num_scored = config.rungs.num_scored(num_images)
    return drawn[num_scored:], drawn[:num_scored]
