"""What probes hold in memory: what they read, of one data set at a time; and that they say so beforehand."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from specvit import probing
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probes import PROBES, ProbeSplit
from specvit.probes.features import backbone_features, pixel_features
from specvit.probing import Probing

from .allocations import counted

CPU = Device(torch.device("cpu"))
PRETRAINING = Scenes(image_size=16, num_train=150, num_val=40)
OWN = Scenes(image_size=24, num_train=100, num_val=40, seed=5)


@pytest.fixture(scope="module")
def images() -> dict[Scenes, Dataset]:
    return {source: source.load() for source in (PRETRAINING, OWN)}


def configure(probes: dict[str, Any]) -> TrialConfig:
    document = {
        "treatment": {"kind": "random_init"},
        "model": {"scale": "nano", "patch_size": 4},
        "data": TypeAdapter(Scenes).dump_python(PRETRAINING),
        "objective": {"recipe": "deit3_cpu", "steps": 2, "batch_size": 8},
        "probes": probes,
        "rungs": {"count": 1, "num_images": 64},
        "seed": 3,
    }
    return TypeAdapter(TrialConfig).validate_python(document)


def model() -> Any:
    return build_vit(VitConfig(SCALES["nano"], image_size=16, patch_size=4), seed=3)


ELSEWHERE = {"data": TypeAdapter(Scenes).dump_python(OWN)}


@pytest.mark.parametrize("size", [16, pytest.param(40, marks=pytest.mark.long)])
def test_means_of_patches_are_those_of_the_tokens_bit_for_bit(size: int) -> None:
    split = Scenes(image_size=size, num_train=40, num_val=8).load().train
    net = build_vit(VitConfig(SCALES["nano"], image_size=size, patch_size=4), seed=3)
    for extract in (
        lambda kept: backbone_features(net, split, device=CPU, patch_features=kept),
        lambda kept: pixel_features(split, patch_size=4, patch_features=kept),
    ):
        tokens, means, none = map(extract, ("tokens", "mean", "none"))
        assert torch.equal(means.patch_mean(), tokens.patches.mean(1))
        assert torch.equal(means.cls, tokens.cls)
        assert torch.equal(none.cls, tokens.cls)
        assert means.patches.shape == none.patches.shape == (40, 0, tokens.patches.shape[2])
        assert none.patch_means is None
        rows = torch.tensor([5, 1])
        taken = tokens.without_tokens().subset(rows)
        assert torch.equal(taken.patch_mean(), tokens.subset(rows).patch_mean())
        assert taken.patches.shape[1] == 0


@pytest.mark.parametrize(
    ("probes", "kept"),
    [
        ({"knn": {}}, "none"),
        ({"linear": {"mean_patch": False}}, "none"),
        ({"knn": {}, "linear": {}}, "mean"),
        ({"linear": {"protocol": "sgd", "epochs": 1}}, "mean"),
        ({"knn": {}, "segmentation": {}}, "tokens"),
        ({"attentive": {}}, "tokens"),
    ],
)
def test_features_are_kept_as_far_as_a_probe_reads_them(
    probes: dict[str, Any], kept: str, images: dict[Scenes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def spy(net: Any, split: Split, **read: Any) -> ProbeSplit:
        asked.append(read["patch_features"])
        return backbone_features(net, split, **read)

    monkeypatch.setattr(probing, "backbone_features", spy)
    for name in probes:
        probe = PROBES[name]
        zero = {metric.name: 0.0 for metric in probe.metrics}
        monkeypatch.setattr(probe, "evaluate", lambda *_, zero=zero, **__: zero)
    Probing(configure(probes), images[PRETRAINING], {}).backbone(model(), device=CPU)
    assert asked == [kept, kept]


def test_metrics_do_not_depend_on_what_else_is_kept(images: dict[Scenes, Dataset]) -> None:
    few = {"knn": {}, "linear": {"num_train": 50, "cs": [1.0]}}
    found = Probing(configure(few), images[PRETRAINING], {}).backbone(model(), device=CPU)
    beside = Probing(configure({**few, "segmentation": {}}), images[PRETRAINING], {}).backbone(model(), device=CPU)
    assert {name: beside[name] for name in found} == found


@pytest.mark.parametrize("where", ["backbone", "pixels", "rung"])
def test_features_of_a_data_set_are_gone_before_those_of_the_next_are_made(
    where: str, images: dict[Scenes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    begun: list[int] = []

    def spy(name: str) -> Any:
        extract = getattr(probing, name)

        def watched(*arguments: Any, **read: Any) -> ProbeSplit:
            begun.append(len(alive))
            features = extract(*arguments, **read)
            alive.add(features.cls)
            return features

        return watched

    for name in ("backbone_features", "pixel_features"):
        monkeypatch.setattr(probing, name, spy(name))
    probes = Probing(configure({"knn": {}, "segmentation": ELSEWHERE}), images[PRETRAINING], images)
    if where == "pixels":
        probes.pixels()
    else:
        getattr(probes, where)(model(), device=CPU)
    # Two splits of a data set each; the first of the second data set finds none of the first.
    assert begun == [0, 1, 0, 1]


@pytest.mark.long
def test_as_much_is_allocated_as_the_larger_data_set_takes(
    images: dict[Scenes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("segmentation", "depth"):
        zero = {metric.name: 0.0 for metric in PROBES[name].metrics}
        monkeypatch.setattr(PROBES[name], "evaluate", lambda *_, zero=zero, **__: zero)
    peaks = []
    for probes in ({"segmentation": {}}, {"depth": ELSEWHERE}, {"segmentation": {}, "depth": ELSEWHERE}):
        net = model()
        with counted() as found:
            Probing(configure(probes), images[PRETRAINING], images).backbone(net, device=CPU)
        peaks.append(found.peak)
    assert peaks[0] > 190 * 17 * 64 * 4
    assert peaks[1] > 140 * 37 * 64 * 4
    assert peaks[2] == pytest.approx(max(peaks[:2]), rel=0.02)


def test_what_features_will_take_is_said_before_they_are_made(
    images: dict[Scenes, Dataset], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "GIB", 2**20)  # so that small features are not 0.0
    with caplog.at_level(logging.INFO, logger="specvit.probing"):
        probes = {"knn": {"num_train": 100}, "segmentation": ELSEWHERE}
        Probing(configure(probes), images[PRETRAINING], images).backbone(model(), device=CPU)
    # [CLS] of 64 channels, which knn copies 1.8 times; of the second 37 tokens; then the targets of scenes: a label,
    # masks, depth, boxes.
    boxes = [dataset.val.boxes[:1].nbytes for dataset in images.values() if dataset.val.boxes is not None]
    sizes = [140 * (64 * 4 + 8 + 3 * 16**2 + boxes[0]) + 180 * 64 * 4, 140 * (37 * 64 * 4 + 8 + 3 * 24**2 + boxes[1])]
    assert [record.getMessage() for record in caplog.records] == [
        f"probing knn: features of 100 images to fit on and 40 to report on, {sizes[0] / 2**20:.1f} GiB of memory",
        f"probing segmentation: features of 100 images to fit on and 40 to report on, {sizes[1] / 2**20:.1f} GiB "
        "of memory",
    ]
