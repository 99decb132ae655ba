"""Which images the probes of a trial look at: features are extracted once per source and serve all its probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from specvit.config import TrialConfig, default_rung_probes
from specvit.data import Dataset, DataSource, Split
from specvit.device import Device
from specvit.errors import DataError, PartError
from specvit.probes import Probe, ProbeSplit
from specvit.probes.features import backbone_features, pixel_features, subset
from specvit.seeding import derive_seed, numpy_stream

RUNG_SCORED_SHARE = 0.25
"""Share of a rung's images that are scored; the probes are fitted on the others."""

Extract = Callable[[Split, int], ProbeSplit]
"""Called with images, and with the number of last blocks whose [CLS] the probes read besides."""


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
        return self._at_end(lambda split, blocks: backbone_features(model, split, device=device, num_blocks=blocks))

    def pixels(self) -> dict[str, float]:
        """Probe raw pixels, the floor below every backbone."""
        return self._at_end(lambda split, _: pixel_features(split, patch_size=self.config.model.patch_size))

    def rung(self, model: VisionTransformer, *, device: Device) -> dict[str, float]:
        """Run the probes of the rungs on some training images, most to fit and the others to score."""
        metrics: dict[str, float] = {}
        for dataset, names in self._by_dataset(tuple(rung_probes(self.config))):
            if id(dataset) not in self._rung_splits:
                self._rung_splits[id(dataset)] = rung_splits(self.config, dataset.train)
            num_blocks = self._num_blocks(names)
            fitted, scored = (
                backbone_features(model, part, device=device, num_blocks=num_blocks)
                for part in self._rung_splits[id(dataset)]
            )
            # So few images may be without the target of a probe, which is no fault of the data.
            able = [name for name in names if all(part.has(self._probes[name].needs) for part in (fitted, scored))]
            metrics |= self._evaluate(able, fitted, scored, dataset)
        return metrics

    def _at_end(self, extract: Extract) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for dataset, names in self._by_dataset(tuple(self._probes)):
            num_blocks, num_images = self._num_blocks(names), len(dataset.train)
            drawn = numpy_stream(self.config.seed, "probe images").permutation(num_images)
            limits = {name: min(self._probes[name].num_train or num_images, num_images) for name in names}
            most = max(limits.values())
            images = dataset.train if most == num_images else subset(dataset.train, drawn[:most])
            train = extract(images, num_blocks)
            self._moved_on()
            val = extract(dataset.val, num_blocks)
            self._moved_on()
            for limit in dict.fromkeys(limits.values()):
                rows = drawn[:limit] if most == num_images else np.arange(limit)
                part = train if limit == most else train.subset(torch.from_numpy(rows))
                alike = [name for name in names if limits[name] == limit]
                for name in alike:
                    metrics |= self._evaluate([name], part, val, dataset)
                    self._moved_on()
        return metrics

    def _num_blocks(self, names: list[str]) -> int:
        return max(self._probes[name].num_blocks for name in names)

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
    if len(train) < 2:
        raise DataError(f"a rung needs at least 2 training images, not {len(train)}: set rungs.count to 0")
    rng = numpy_stream(config.seed, "rung images")
    indices = rng.permutation(len(train))[: config.rungs.num_images].astype(np.int64)
    num_scored = max(1, int(len(indices) * RUNG_SCORED_SHARE))
    return subset(train, indices[num_scored:]), subset(train, indices[:num_scored])
