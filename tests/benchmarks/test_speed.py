"""How fast the parts are. Run by ``make bench``; nothing here asserts a time, since machines differ."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from specvit.data.scenes import Scenes
from specvit.scales import SCALES
from specvit.specialization import parse_specialization
from specvit.vit import build_vit

ROUNDS = 15


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("image_size", [32, 64])
def test_scenes_images_per_second(benchmark: BenchmarkFixture, image_size: int) -> None:
    source = Scenes(image_size=image_size, num_train=1000, num_val=1)
    benchmark.pedantic(source.load, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images_per_s"] = round(1001 / benchmark.stats.stats.median)


@pytest.mark.parametrize(
    ("scale_name", "image_size", "patch_size", "batch_size"), [("nano", 32, 4, 64), ("small", 224, 16, 4)]
)
def test_specialized_step_over_plain_step(
    benchmark: BenchmarkFixture, scale_name: str, image_size: int, patch_size: int, batch_size: int
) -> None:
    """Forward and backward, the two models taking turns; the ratio of the medians is in ``extra_info``."""
    scale = SCALES[scale_name]
    specialization = parse_specialization("norm@all+qkv@first-third", scale.depth)
    plain = build_vit(scale, image_size=image_size, patch_size=patch_size)
    routed = build_vit(scale, image_size=image_size, patch_size=patch_size, specialization=specialization)
    images = torch.randn(batch_size, 3, image_size, image_size)
    seconds: dict[str, list[float]] = {"plain": [], "routed": []}

    def take_turns() -> None:
        for name, model in (("plain", plain), ("routed", routed)):
            started = time.perf_counter()
            model.forward_features(images).square().mean().backward()
            seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(take_turns, rounds=ROUNDS, warmup_rounds=2)
    medians = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    benchmark.extra_info["ratio"] = round(medians["routed"] / medians["plain"], 3)
    print(f"\n{scale_name}: specialized / plain = {benchmark.extra_info['ratio']}")
