"""Whole trials on images that stay encoded: what they report, and what they have in common with those on arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvit.errors import DataError

from ..data.reading.test_pixels import encode, photograph
from .small_trials import LEARNT, RECIPES, make_config, run_watched


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


def test_a_bad_image_ends_a_trial_with_its_name_or_is_counted(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.jpg"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    bad = tmp_path / "train" / "a" / "08.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train/a/08.jpg.*data.on_bad_image: skip"):
        run(tmp_path, keep="encoded")
    data = {"source": "image_folder", "root": str(tmp_path), "image_size": 16}
    data |= {"keep": "encoded", "on_bad_image": "skip"}
    config = make_config(data=data, probes={"knn": {}})
    dataset = config.data.load()
    metrics = [run_watched(config, dataset)[0].metrics for _ in range(2)]
    assert metrics[0]["skipped_images"] == 1  # also for a second trial of the process
    assert metrics[1] == metrics[0]
    assert run(folder, keep="encoded", on_bad_image="skip")["skipped_images"] == 0
