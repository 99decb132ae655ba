"""Whole trials on images that stay encoded: what they report, and what they have in common with those on arrays."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvit.checkpoints import save_model
from specvit.config import TrialConfig
from specvit.errors import DataError
from specvit.evaluation import evaluate_backbone
from specvit.files.checksum import sha256_of
from specvit.models.config import VitConfig
from specvit.models.vit import build_vit
from specvit.training.loop import batches
from specvit.trial import run_trial

from ..data.reading.test_pixels import encode, photograph
from ..data.sources import test_encoded_coco as coco
from ..training.small_runs import SCALE
from .small_trials import BATCH_SIZE, CPU, LEARNT, RECIPES, Watching, make_config, run_watched
from .test_interruptions import Interrupted, make_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two classes of 20 and of 6 photographs."""
    root = tmp_path_factory.mktemp("photographs")
    for seed in range(52):
        place = root / ("train" if seed < 40 else "val") / "ab"[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed:02}.jpg").write_bytes(encode(photograph(20 + seed, 60 - seed // 2, seed=seed)))
    return root


def run(folder: Path, recipe: str = "deit3_cpu", *, kind: str = "specialize", **fields: Any) -> dict[str, float]:
    data = {"source": "image_folder", "root": str(folder), "image_size": 16, **fields}
    config = make_config(recipe, data=data, treatment={"kind": kind}, probes={"knn": {"num_train": 30}})
    return dict(run_watched(config, config.data.load())[0].metrics)


@pytest.mark.parametrize(  # a short run of DINOv2 is that of tests/test_smoke.py
    "recipe", [pytest.param(name, marks=[pytest.mark.long] * (name == "dinov2_cpu")) for name in RECIPES]
)
def test_a_trial_on_encoded_images_reports_what_others_do_and_repeats(recipe: str, folder: Path) -> None:
    metrics = run(folder, recipe, keep="encoded", workers=2)
    assert set(metrics) == {"knn_top1", "loss"} | LEARNT[recipe]
    assert all(np.isfinite(value) for value in metrics.values())
    assert run(folder, recipe, keep="encoded", workers=1) == metrics
    assert run(folder, recipe)["loss"] != metrics["loss"]


@pytest.mark.parametrize("kind", ["random_init", "raw_pixels"])
def test_floors_are_those_of_arrays_bit_for_bit(kind: str, folder: Path) -> None:
    assert run(folder, kind=kind, keep="encoded") == run(folder, kind=kind)


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 24 images of three sizes with depth to train on, and 12 to report on."""
    root = tmp_path_factory.mktemp("depth")
    for seed in range(36):
        width, height = ((16, 16), (40, 31), (21, 60))[seed % 3]
        split = "train" if seed < 24 else "val"
        for kind in ("images", "depth"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        image = photograph(width, height, seed=seed)
        (root / "images" / split / f"{seed:02}.jpg").write_bytes(encode(image))
        metres = 1 + np.asarray(image).mean(2) / 32  # the brighter, the farther
        np.save(root / "depth" / split / f"{seed:02}.npy", metres)
    return root


def run_depth(root: Path, kind: str = "specialize", **fields: Any) -> dict[str, float]:
    data = {"source": "depth", "root": str(root), "image_size": 16, **fields}
    config = make_config("mae_cpu", data=data, treatment={"kind": kind}, probes={"depth": {}}, rungs={"count": 0})
    return dict(run_watched(config, config.data.load())[0].metrics)


def test_a_trial_is_probed_for_depth_at_the_size_of_its_files(depth_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(depth_folder, tmp_path, dirs_exist_ok=True)
    np.save(tmp_path / "depth" / "val" / "24.npy", np.ones(3))
    metrics = run_depth(tmp_path, keep="encoded", probe_size=32, on_bad_image="skip")
    assert metrics["skipped_images"] == 1
    assert 0 < metrics["depth_rmse"] < 8  # as far as depths are apart


def test_a_depth_map_that_vanishes_during_a_trial_ends_it_with_its_name_or_is_left_out(
    depth_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(depth_folder, tmp_path, dirs_exist_ok=True)
    data = {"source": "depth", "root": str(tmp_path), "image_size": 16, "keep": "encoded"}
    configs = [
        make_config(data=data | {"on_bad_image": policy}, treatment={"kind": "raw_pixels"}, probes={"depth": {}})
        for policy in ("fail", "skip")
    ]
    before, after = (config.data.load() for config in configs)
    whole = run_watched(configs[1], after)[0].metrics
    path = tmp_path / "depth" / "val" / "30.npy"
    path.unlink()
    with pytest.raises(DataError, match=f"cannot read the depth map '{path}'"):
        run_watched(configs[0], before)
    metrics = run_watched(configs[1], pickle.loads(pickle.dumps(after)))[0].metrics  # noqa: S301
    assert (whole["skipped_images"], metrics["skipped_images"]) == (0, 1)
    assert metrics["depth_rmse"] == pytest.approx(whole["depth_rmse"], rel=0.5)
    assert metrics["depth_rmse"] != whole["depth_rmse"]


def test_depth_of_square_images_of_the_size_of_the_probe_is_scored_as_with_arrays(
    depth_folder: Path, tmp_path: Path
) -> None:
    for kind in ("images", "depth"):
        for path in sorted((depth_folder / kind).rglob("*.*"))[::3]:  # the square ones
            copy = tmp_path / path.relative_to(depth_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for path in (tmp_path / "depth").rglob("*.npy"):
        np.save(path, np.load(path).astype(np.float16))
    assert run_depth(tmp_path, "raw_pixels", keep="encoded") == run_depth(tmp_path, "raw_pixels")


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """Write the images again, one to train on and one to report on cut off."""
    for path in folder.rglob("*.jpg"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        bad = path.name in ("08.jpg", "40.jpg")
        copy.write_bytes(path.read_bytes()[: -100 if bad else None])
    return tmp_path


def test_a_bad_image_ends_a_trial_with_its_name_or_is_counted_once(folder: Path, damaged: Path) -> None:
    with pytest.raises(DataError, match=r"train/a/08.jpg.*\(on_bad_image: skip"):
        run(damaged, keep="encoded")
    config = make_skipping(damaged, probes={"knn": {}})
    dataset = config.data.load()
    alone = run_trial(config, dataset, Watching(), device=CPU)
    # Also for a second trial of the process, whose worker knows the data by their source.
    again = run_trial(config, dataset, Watching(), device=CPU, probe_datasets={config.data: dataset})
    assert alone.metrics["skipped_images"] == again.metrics["skipped_images"] == 2
    assert alone == again
    assert run(folder, keep="encoded", on_bad_image="skip")["skipped_images"] == 0


@pytest.mark.parametrize("kind", ["random_init", "raw_pixels"])
def test_a_floor_counts_the_bad_images_that_its_probes_meet(kind: str, damaged: Path) -> None:
    config = make_skipping(damaged, treatment={"kind": kind}, probes={"knn": {}})
    assert run_watched(config, config.data.load())[0].metrics["skipped_images"] == 2


def test_probes_that_come_later_count_the_bad_images_that_they_meet(damaged: Path, tmp_path: Path) -> None:
    config = make_skipping(damaged, probes={"knn": {}})
    dataset = config.data.load()
    weights = tmp_path / "backbone.safetensors"
    save_model(build_vit(VitConfig(SCALE, image_size=16, patch_size=4), seed=0), weights)
    for _ in range(2):
        metrics, _ = evaluate_backbone(config, dataset, weights, sha256_of(weights), device=CPU)
        assert metrics.keys() == {"knn_top1", "skipped_images"}
        assert metrics["skipped_images"] == 2


def test_a_trial_that_resumes_counts_the_bad_images_of_before(damaged: Path, tmp_path: Path) -> None:
    for number in range(80):  # less than an epoch is seen, and the damaged image, the fifth, in the first step alone
        (damaged / "train" / "b" / f"more{number}.jpg").write_bytes(encode(photograph(20, 20, seed=100 + number)))
    seed = next(seed for seed in range(100) if 4 in next(batches(120, batch_size=BATCH_SIZE, seed=seed)))
    changes = {"rungs": {"count": 0}, "probes": {"knn": {"num_train": 1}}, "seed": seed}
    config = make_skipping(damaged, **changes)
    expected, _ = run_watched(config, config.data.load())
    assert expected.metrics["skipped_images"] == 2
    state = tmp_path / "state"
    checkpoint = make_checkpoint(state)
    with pytest.raises(KeyboardInterrupt):
        run_trial(config, config.data.load(), Interrupted(at_question=2), device=CPU, checkpoint=checkpoint)
    result = run_trial(config, config.data.load(), Watching(), device=CPU, checkpoint=make_checkpoint(state))
    assert result == expected


def make_skipping(folder: Path, **changes: Any) -> TrialConfig:
    data = {"source": "image_folder", "root": str(folder), "image_size": 16}
    return make_config(data=data | {"keep": "encoded", "on_bad_image": "skip"}, **changes)


def detect(root: Path, kind: str = "specialize", **fields: Any) -> dict[str, float]:
    data = {"source": "coco", "root": str(root), "image_size": 16, **fields}
    probes = {"detection": {"steps": 10, "batch_size": 8, "width": 8, "lrs": [0.01]}}
    config = make_config("mae_cpu", data=data, treatment={"kind": kind}, probes=probes, rungs={"count": 0})
    return dict(run_watched(config, config.data.load())[0].metrics)


def test_detection_on_squares_of_the_probes_size_with_boxes_of_whole_pixels_is_that_of_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [[[*rng.integers(0, 8, 2).tolist(), *rng.integers(4, 9, 2).tolist()]] for _ in range(12)]
    coco.write(tmp_path, [(16, 16)] * 12, boxes)
    metrics = detect(tmp_path, "raw_pixels")
    assert detect(tmp_path, "raw_pixels", keep="encoded") == metrics
    assert 0 < metrics["ap"] < metrics["ap50"] < 100


def test_a_trial_detects_objects_in_the_middles_of_images_of_any_size_and_leaves_bad_ones_out(tmp_path: Path) -> None:
    coco.write(tmp_path, coco.SIZES * 3, coco.BOXES * 3)
    (tmp_path / "val2017" / "0.jpg").unlink()
    fields = {"keep": "encoded", "probe_size": 12, "on_bad_image": "skip"}
    metrics = detect(tmp_path, **fields)
    assert set(metrics) == {"ap", "ap50", "loss", "skipped_images"} | LEARNT["mae_cpu"]
    assert metrics["skipped_images"] == 1
    assert all(np.isfinite(value) for value in metrics.values())
    assert detect(tmp_path, workers=2, **fields) == metrics
