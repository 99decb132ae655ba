"""Memory by arithmetic, against what torch allocates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.footprint import LIBRARIES, footprint, training_memory
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, num_parameters
from specvit.probe_footprint import feature_bytes, held_bytes, probe_bytes
from specvit.probes import PROBES, ProbeSplit, knn
from specvit.probes.features import backbone_features, pixel_features
from specvit.recipes.build import build_learner
from specvit.training.loop import pretrain
from specvit.trial import run_trial

from .allocations import counted

CPU = Device(torch.device("cpu"))
WITHIN = 0.15


def configure(
    recipe: str,
    *,
    model: dict[str, Any] | None = None,
    size: int = 32,
    specialize: str = "none",
    kind: str = "specialize",
    data: dict[str, Any] | None = None,
    probes: dict[str, Any] | None = None,
    rungs: dict[str, Any] | None = None,
    **fields: Any,
) -> TrialConfig:
    model = {"scale": "nano", "patch_size": 4, **(model or {})}
    if recipe.startswith("dinov2"):
        fields = {"freeze_prototypes": 0.0, **fields}  # so that two steps have the averages of all
    document = {
        "treatment": {"kind": kind, "specialize": specialize},
        "model": model,
        "data": {"source": "scenes", "image_size": size, **(data or {"num_train": 64, "num_val": 16})},
        "objective": {"recipe": recipe, "steps": 2, **fields},
        "probes": probes or {"knn": {}},
        "rungs": rungs or {"count": 0},
        "seed": 0,
    }
    return TypeAdapter(TrialConfig).validate_python(document)


def images(config: TrialConfig) -> Dataset:
    size, rng = config.data.image_size, np.random.default_rng(0)

    def split(number: int) -> Split:
        return Split(
            images=rng.integers(0, 256, (number, 3, size, size), dtype=np.uint8),
            labels=rng.integers(0, 8, number),
            masks=rng.integers(0, 9, (number, size, size), dtype=np.uint8),
        )

    return Dataset(split(64), split(16), tuple("abcdefgh"), tuple("abcdefghi"), "")


SMALL = {"scale": "tiny", "patch_size": 8}
TWO_HEADS: dict[str, Any] = {"model": {"patch_size": 8}, "size": 64, "batch_size": 8, "patch_bottleneck": 32}
WIDE_HEAD: dict[str, Any] = {"num_prototypes": 65536, "head_hidden": 64, "head_bottleneck": 32, "local_size": 32}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "DINOv2": ("dinov2_cpu", {"batch_size": 4}),
}
LONG: dict[str, tuple[str, dict[str, Any]]] = {
    "DeiT-III, cut": ("deit3_cpu", {"batch_size": 16, "micro_batch": 4}),
    "MAE, cut": ("mae_cpu", {"batch_size": 16, "micro_batch": 4}),
    "DeiT-III": ("deit3_cpu", {}),
    "DeiT-III, few at once": ("deit3_cpu", {"micro_batch": 2}),
    "DeiT-III, dense": ("deit3_dense_cpu", {}),
    "DeiT-III, images dominate": ("deit3_dense_cpu", {"size": 96, "batch_size": 32, "micro_batch": 2}),
    "DeiT-III, mini": ("deit3_cpu", {"model": {"scale": "mini"}, "batch_size": 32}),
    "DeiT-III, registers": ("deit3_cpu", {"model": {"scale": "micro", "high_norm": "registers:4"}}),
    "DeiT-III, biases": ("deit3_cpu", {"model": {"high_norm": "attention_bias"}, "micro_batch": 16}),
    "DeiT-III, own weights": ("deit3_cpu", {"specialize": "norm@all+qkv@all+mlp@all"}),
    "DeiT-III, LAMB": ("deit3", {"model": SMALL, "size": 96, "batch_size": 12}),
    "DeiT-III, LAMB, cut": ("deit3", {"model": SMALL, "size": 96, "batch_size": 12, "micro_batch": 4}),
    "DeiT-III, weights dominate": ("deit3", {"model": {"scale": "small", "patch_size": 8}, "batch_size": 3}),
    "DINOv2, cut": ("dinov2_cpu", {"micro_batch": 8}),
    "DINOv2, few at once": ("dinov2_cpu", {"micro_batch": 2}),
    "DINOv2, mini": ("dinov2_cpu", {"model": {"scale": "mini"}, "batch_size": 16}),
    "DINOv2, the paper's arm": ("dinov2_cpu", {"specialize": "norm@all+qkv@first-third"}),
    "DINOv2, published": (
        "dinov2",
        {"model": SMALL, "size": 64, "local_size": 32, "batch_size": 8, "num_prototypes": 8192},
    ),
    "DINOv2, published, cut": (
        "dinov2",
        {"model": SMALL, "size": 64, "local_size": 32, "batch_size": 8, "num_prototypes": 8192, "micro_batch": 2},
    ),
    "DINOv2, outputs dominate": ("dinov2", {"model": {"patch_size": 8}, "size": 64, "batch_size": 16, **WIDE_HEAD}),
    "DINOv2, outputs dominate, cut": (
        "dinov2",
        {"model": {"patch_size": 8}, "size": 64, "batch_size": 16, "micro_batch": 4, **WIDE_HEAD},
    ),
    "DINOv2, prototypes dominate": (
        "dinov2",
        {"model": {"patch_size": 16}, "size": 64, "batch_size": 4, **WIDE_HEAD, "head_bottleneck": 256},
    ),
    "DINOv2, prototypes dominate, cut": (
        "dinov2",
        {"model": {"patch_size": 16}, "size": 64, "batch_size": 4, "micro_batch": 2, **WIDE_HEAD},
    ),
    "DINOv2, views dominate": (
        "dinov2",
        {
            "model": {"patch_size": 16},
            "size": 96,
            "batch_size": 32,
            "micro_batch": 2,
            **WIDE_HEAD,
            "local_size": 48,
            "num_prototypes": 128,
        },
    ),
    "DINOv2, two heads": ("dinov2_long", {**TWO_HEADS, **WIDE_HEAD}),
    "DINOv2, two heads, cut": ("dinov2_long", {**TWO_HEADS, **WIDE_HEAD, "micro_batch": 4}),
    "MAE, whole": ("mae_cpu", {}),
    "MAE, published": ("mae", {"model": {"scale": "nano", "patch_size": 8}, "size": 64, "batch_size": 6}),
    "MAE, images dominate": ("mae_cpu", {"size": 96, "batch_size": 32, "micro_batch": 2}),
}


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_training_takes_what_arithmetic_says(name: str) -> None:
    recipe, fields = {**CASES, **LONG}[name]
    config = configure(recipe, **fields)
    dataset, model = images(config), config.model
    with counted() as found:
        settings = VitConfig.from_settings(
            model, config.objective, image_size=config.data.image_size, treatment=config.treatment
        )
        backbone = build_vit(settings)
        learner = build_learner(config.objective, backbone, dataset, seed=0)
        pretrain(learner, config.objective, dataset.train, seed=0, device=CPU, after_step=lambda _: False)
    expected = training_memory(config, num_parameters=num_parameters(backbone))
    assert expected is not None
    assert expected.total == pytest.approx(found.peak, rel=WITHIN)


@pytest.mark.parametrize("kept", ["none", "mean", "tokens"])
@pytest.mark.parametrize("num_blocks", [0, 2])
def test_features_take_what_arithmetic_says_to_the_byte(kept: Any, num_blocks: int) -> None:
    config = configure("deit3_cpu", size=16)
    split = images(config).val
    model = build_vit(VitConfig(Scale(24, 3, 2), image_size=16, patch_size=4))
    for features, width in (
        (backbone_features(model, split, device=CPU, num_blocks=num_blocks, patch_features=kept), 24),
        (pixel_features(split, patch_size=4, patch_features=kept), None),
    ):
        values = (features.cls, features.patches, features.patch_means, features.intermediate_cls)
        held = sum(0 if value is None else value.nbytes for value in (*values, features.labels, features.masks))
        blocks = num_blocks if width else 0
        sizes = {"image_size": 16, "patch_size": 4, "width": width, "num_blocks": blocks}
        assert feature_bytes(16, patch_features=kept, target_bytes=8 + 16 * 16, **sizes) == held  # type: ignore[arg-type]


class _Silent:
    def progress(self, **_: object) -> None: ...

    def rung(self, **_: object) -> None: ...

    def should_stop(self) -> bool:
        return False


@pytest.mark.long
@pytest.mark.parametrize(("num_train", "batch_size"), [(1500, 8), (100, 64)])
def test_a_whole_trial_takes_what_arithmetic_says(num_train: int, batch_size: int) -> None:
    config = configure(
        "deit3_cpu",
        batch_size=batch_size,
        data={"num_train": num_train, "num_val": 50},
        probes={"knn": {}, "segmentation": {}},
        rungs={"count": 1, "num_images": 64},
    )
    dataset = config.data.load()
    with counted() as found:
        run_trial(config, dataset, _Silent(), device=CPU)
    backbone = build_vit(VitConfig.from_settings(config.model, config.objective, image_size=32))
    expected = footprint(config, num_parameters=num_parameters(backbone))
    assert expected.machine is not None
    # Labels, masks and depth are copied by NumPy, which torch does not count; they lie beside features alone.
    targets = (num_train + 50) * (8 + 3 * 32 * 32) if num_train > 1000 else 0
    assert expected.machine - LIBRARIES == pytest.approx(found.peak + targets, rel=WITHIN)


ADE20K = {"source": "ade20k", "root": "ade20k", "image_size": 64, "keep": "encoded", "probe_size": 128}
NYU = {"source": "nyuv2", "root": "nyu", "image_size": 64, "keep": "encoded", "probe_size": 128}
IMAGENET = {"source": "imagenet", "root": "imagenet"}


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        # nano has 64 channels. ImageNet: [CLS] and labels; ADE20K at 128 px: (128 / 4)^2 patches, and masks. Beside
        # them 1.8 copies by knn of what it is fitted on, and 5 by linear with three arrays by 1,000 classes in float64.
        ({"knn": {"num_train": 1000}}, 51_000 * (64 * 4 + 8) + 1_800 * 64 * 4),
        ({"linear": {"num_train": 1000}}, 51_000 * (2 * 64 * 4 + 8) + 1_000 * (5 * 2 * 64 + 6_000) * 4),
        ({"segmentation": {"data": ADE20K}}, 22_210 * (1025 * 64 * 4 + 128 * 128)),
        # Depth has 2 bytes a pixel; a map at its own size is read when it is scored, and none is kept.
        ({"depth": {"data": NYU}}, 24_885 * (1025 * 64 * 4 + 2 * 128 * 128)),
        ({"knn": {}, "segmentation": {"data": ADE20K, "num_train": 10}}, 1_331_167 * 264 + int(1.8 * 1_281_167 * 256)),
        # What is fitted on fewer images than another is, takes these out: of tokens their mean, or all.
        (
            {"knn": {"num_train": 1000}, "linear": {"num_train": 500}},
            51_000 * (2 * 64 * 4 + 8) + 500 * ((5 + 1) * 2 * 64 + 6_000) * 4 + 500 * 8,
        ),
        (
            {"segmentation": {"data": ADE20K}, "in_context": {"data": ADE20K, "num_train": 1000}},
            23_210 * (1025 * 64 * 4 + 128 * 128) + 2 * 10_240 * 64 * 4,
        ),
        ({"knn": {}, "linear": {"data": {"source": "image_folder", "root": "images"}}}, None),
    ],
)
def test_probes_hold_what_they_read_of_one_data_set_at_a_time(probes: dict[str, Any], expected: int | None) -> None:
    config = configure("deit3_cpu", data=IMAGENET, probes=probes)
    assert probe_bytes(config) == expected


class Listing(PROBES["knn"]):  # type: ignore[misc]
    """A probe of another package, which cannot be a key."""

    __hash__ = None  # type: ignore[assignment]


def test_probes_need_not_be_hashable() -> None:
    limits = [(Listing(), 10), (Listing(), 5)]
    # 5 of 8 channels with their labels are taken out, and copied 1.8 times; 10 are, where these are more.
    held = held_bytes(limits, num_val=2, image_size=16, patch_size=4, width=8, target_bytes=8)
    assert held == 12 * (8 * 4 + 8) + max(5 * (8 * 4 + 8) + int(1.8 * 5 * 32), int(1.8 * 10 * 32))


def test_rungs_count_where_they_hold_more() -> None:
    probes = {"knn": {"num_train": 10}, "segmentation": {"num_train": 10}}
    config = configure("deit3_cpu", probes=probes, rungs={"count": 1, "num_images": 60})
    # More than 10 images to fit on and 16 to report on: 65 tokens, a label, masks, depth of 2 bytes a pixel. knn copies
    # those that it is fitted on.
    fitted = 60 - config.rungs.num_scored(64)
    assert probe_bytes(config) == 60 * (65 * 64 * 4 + 8 + 3 * 32 * 32) + int(1.8 * fitted * 64 * 4)


SGD = {"protocol": "sgd", "epochs": 1, "lrs": (0.1,), "last_blocks": (1,)}


@pytest.mark.parametrize(
    ("name", "fields", "width", "num_classes"),
    [
        ("knn", {}, 192, 2),
        ("linear", {"cs": (1.0,)}, 192, 2),
        ("linear", {"cs": (1.0,)}, 16, 60),
        ("linear", SGD, 192, 2),
        ("linear", SGD, 16, 200),
    ],
)
def test_copies_that_probes_make_are_those_that_torch_allocates(
    name: str, fields: dict[str, Any], width: int, num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name_of_part, size in (("_MAX_SIMILARITIES", 1 << 16), ("_ROWS_AT_ONCE", 64)):
        monkeypatch.setattr(knn, name_of_part, size)  # parts of a constant size are no copies
    generator = torch.Generator().manual_seed(0)

    def split(number: int) -> ProbeSplit:
        cls, means = torch.randn(2, number, width, generator=generator)
        labels = torch.arange(number) % num_classes
        return ProbeSplit(cls, torch.zeros(number, 0, width), (4, 4), labels, masks=None, patch_means=means)

    probe, val, peaks = PROBES[name](**fields), split(100), []
    sizes = (1_500, 3_000)
    for number in sizes:
        train = split(number)
        with counted() as found:
            probe.evaluate(train, val, num_classes=num_classes, seed=0)
        peaks.append(found.peak)
    more = sizes[1] - sizes[0]
    copied = probe.num_copied(more, num_patches=16, cls_dim=width, patch_dim=width, num_classes=num_classes)
    assert peaks[1] - peaks[0] == pytest.approx(4 * copied, rel=WITHIN)


def test_on_a_gpu_what_autocast_narrows_takes_half_and_features_stay_with_the_machine() -> None:
    config = configure("deit3_cpu")
    on_cpu, on_gpu = (footprint(config, num_parameters=300_000, gpus=gpus) for gpus in (0, 1))
    assert on_cpu.training is not None
    assert on_gpu.training is not None
    # 16 numbers a token, channel and block, 14 of them narrowed; what the ends keep is not.
    tokens = 64 * 65 * 64
    assert on_cpu.training.activations == tokens * 4 * (6 * 16 + 6)
    assert on_gpu.training.activations == tokens * (6 * (2 * 4 + 14 * 2) + 6 * 4)
    assert on_gpu.gpu == on_gpu.training.total
    assert on_gpu.machine == LIBRARIES + (probe_bytes(config) or 0)
    assert on_cpu.gpu == 0


def test_comparators_are_not_guessed() -> None:
    document = TypeAdapter(TrialConfig).dump_python(configure("deit3_cpu"))
    document["treatment"] = {"kind": "comparator", "comparator": {"comparator": "jumbo"}}
    document["probes"] = {"knn": {}}
    found = footprint(TypeAdapter(TrialConfig).validate_python(document), num_parameters=1000, gpus=1)
    assert (found.gpu, found.machine, found.training) == (None, None, None)
    assert found.features is not None


def test_floors_train_nothing() -> None:
    floor = footprint(configure("deit3_cpu", kind="random_init"), num_parameters=1000)
    assert floor.training is None
    assert floor.machine is not None
    pixels = footprint(configure("deit3_cpu", kind="raw_pixels"), num_parameters=0, gpus=1)
    assert pixels.gpu == 0
    # Labels, masks, depth; and knn's copies of 64 images.
    assert pixels.features == 80 * (3 * 32 * 32 * 4 + 8 + 3 * 32 * 32) + int(1.8 * 64 * 3 * 32 * 32 * 4)


def test_several_processes_hold_views_of_all_and_activations_of_their_own() -> None:
    one, two = (
        training_memory(configure("deit3_cpu"), num_parameters=1000, processes=processes) for processes in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert two.views == one.views
    assert 2 * two.activations == one.activations
