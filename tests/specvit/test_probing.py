"""Probes on images of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from specvit import probing
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.errors import DataError, PartError
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probes import PROBES, Probe, ProbeSplit
from specvit.probes.features import backbone_features, subset
from specvit.probing import Probing
from specvit.seeding import derive_seed
from specvit.trial import run_trial

CPU = Device(torch.device("cpu"))
PRETRAINING = Scenes(image_size=16, num_train=64, num_val=32)
OWN = Scenes(image_size=24, num_train=48, num_val=24, seed=5)


class Silent:
    def progress(self, **_: object) -> None: ...

    def rung(self, **_: object) -> None: ...

    def should_stop(self) -> bool:
        return False


@pytest.fixture(scope="module")
def images() -> dict[Scenes, Dataset]:
    return {source: source.load() for source in (PRETRAINING, OWN)}


def _config(probes: dict[str, Any], kind: str = "random_init") -> TrialConfig:
    document = {
        "treatment": {"kind": kind},
        "model": {"scale": "nano", "patch_size": 4},
        "data": dataclasses.asdict(PRETRAINING),
        "objective": {"recipe": "deit3_cpu", "steps": 2, "batch_size": 8},
        "probes": probes,
        "rungs": {"count": 1, "num_images": 32},
        "seed": 3,
    }
    return TypeAdapter(TrialConfig).validate_python(document)


def _own() -> dict[str, Any]:
    return {"data": dataclasses.asdict(OWN)}


def test_a_probe_with_images_of_its_own_is_fitted_and_reported_on_them(images: dict[Scenes, Dataset]) -> None:
    config = _config({"knn": {}, "segmentation": _own()})
    model = build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)
    found = Probing(config, images[PRETRAINING], images).backbone(model, device=CPU)
    # The probes called by hand, each on the features that are its.
    expected: dict[str, float] = {}
    for name, source, num_classes in (("knn", PRETRAINING, 8), ("segmentation", OWN, 9)):
        splits = (images[source].train, images[source].val)
        train, val = (backbone_features(model, split, device=CPU) for split in splits)
        (probe,) = (each for each in config.probes if each.name == name)
        expected |= probe.evaluate(train, val, num_classes=num_classes, seed=derive_seed(3, "probe", name))
    assert found == expected
    without = Probing(_config({"segmentation": {}}), images[PRETRAINING], {}).backbone(model, device=CPU)
    assert found["miou"] != without["miou"]


def test_rungs_of_such_a_probe_look_at_the_training_split_of_its_images(images: dict[Scenes, Dataset]) -> None:
    config = _config({"knn": {}, "segmentation": _own()})
    model = build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)
    own = images[OWN]
    changed = dataclasses.replace(own, val=dataclasses.replace(own.val, images=255 - own.val.images))
    blank = dataclasses.replace(own, train=dataclasses.replace(own.train, images=own.train.images * 0))
    metrics = Probing(config, images[PRETRAINING], images).rung(model, device=CPU)
    assert set(metrics) == {"knn_top1", "miou"}
    assert Probing(config, images[PRETRAINING], {OWN: changed}).rung(model, device=CPU) == metrics
    other = Probing(config, images[PRETRAINING], {OWN: blank}).rung(model, device=CPU)
    assert other["knn_top1"] == metrics["knn_top1"]
    assert other["miou"] != metrics["miou"]


@pytest.mark.parametrize("kind", ["specialize", "raw_pixels"])
def test_a_whole_trial_takes_the_images_of_its_probes(kind: str, images: dict[Scenes, Dataset]) -> None:
    config = _config({"segmentation": _own()}, kind)
    assert config.sources == (PRETRAINING, OWN)
    result = run_trial(config, images[PRETRAINING], Silent(), probe_datasets=images, device=CPU)
    assert 0 <= result.metrics["miou"] <= 100


def test_a_probe_that_reports_another_metric_than_it_lists_ends_the_trial(
    images: dict[Scenes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PROBES["linear"], "evaluate", lambda *_, **__: {"knn_top1": 1.0})
    with pytest.raises(PartError, match=r"probe 'linear' must report .*\(linear_top1\), not knn_top1"):
        Probing(_config({"knn": {}, "linear": {}}, "raw_pixels"), images[PRETRAINING], {}).pixels()


def test_sources_are_listed_once() -> None:
    same = {"data": dataclasses.asdict(PRETRAINING)}
    assert _config({"knn": same, "segmentation": _own(), "linear": _own()}).sources == (PRETRAINING, OWN)


def test_a_probe_is_fitted_on_as_many_images_as_it_asks_for(
    images: dict[Scenes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: dict[str, torch.Tensor] = {}
    extracted: list[int] = []
    probes = {"knn": {}, "linear": {"num_train": 20}, "segmentation": {"num_train": 40}}
    for name in probes:
        probe = PROBES[name]

        def evaluate(self: Probe, train: ProbeSplit, val: ProbeSplit, **_: object) -> dict[str, float]:
            assert len(val) == PRETRAINING.num_val
            assert train.labels is not None
            assert train.masks is not None
            assert len(train.cls) == len(train.labels) == len(train.masks)
            fitted[self.name] = train.cls
            return {metric.name: 0.0 for metric in self.metrics}

        monkeypatch.setattr(probe, "evaluate", evaluate)

    def spy(model: object, split: Split, **_: object) -> ProbeSplit:
        extracted.append(len(split))
        return backbone_features(model, split, device=CPU)  # type: ignore[arg-type]

    monkeypatch.setattr(probing, "backbone_features", spy)
    model = build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)
    Probing(_config(probes), images[PRETRAINING], {}).backbone(model, device=CPU)
    assert {name: len(rows) for name, rows in fitted.items()} == {"knn": 64, "linear": 20, "segmentation": 40}
    assert extracted == [64, 32]  # once, for all of them
    torch.testing.assert_close(fitted["segmentation"][:20], fitted["linear"], rtol=0, atol=0)
    # The same images where none of the probes asks for all.
    alone = {"linear": {"num_train": 20}, "segmentation": {"num_train": 40}}
    whole = dict(fitted)
    Probing(_config(alone), images[PRETRAINING], {}).backbone(model, device=CPU)
    assert extracted[2:] == [40, 32]
    for name in alone:
        torch.testing.assert_close(fitted[name], whole[name])


def test_a_rung_leaves_out_a_probe_whose_target_its_images_do_not_have(images: dict[Scenes, Dataset]) -> None:
    whole = images[PRETRAINING]
    assert whole.train.masks is not None
    assert whole.train.boxes is not None
    boxes = whole.train.boxes.copy()
    boxes[..., 4] = -1
    bare = dataclasses.replace(
        whole.train,
        masks=np.full_like(whole.train.masks, 255),
        boxes=boxes,
        depth=np.zeros_like(whole.train.depth),  # type: ignore[arg-type]
    )
    probes: dict[str, Any] = {"knn": {}, "segmentation": {}, "depth": {}, "detection": {"steps": 1}}
    config = _config(probes)
    config = dataclasses.replace(config, rungs=dataclasses.replace(config.rungs, probes=tuple(probes)))  # type: ignore[type-var]
    model = build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)
    found = Probing(config, whole, {}).rung(model, device=CPU)
    assert {"knn_top1", "miou", "depth_rmse", "ap"} <= set(found)
    left = Probing(config, dataclasses.replace(whole, train=bare), {}).rung(model, device=CPU)
    assert left == {"knn_top1": found["knn_top1"]}


def test_a_rung_of_one_image_is_refused(images: dict[Scenes, Dataset]) -> None:
    whole = images[PRETRAINING]
    one = dataclasses.replace(whole, train=subset(whole.train, np.array([0])))
    model = build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)
    with pytest.raises(DataError, match="at least 2 training images, not 1"):
        Probing(_config({"knn": {}}), one, {}).rung(model, device=CPU)
