"""How fast the parts are. Run by ``make bench``; nothing here asserts a time, since machines differ."""

from __future__ import annotations

import random
import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from timm.models.vision_transformer import VisionTransformer

from specvit.data.sources.scenes import Scenes
from specvit.device import select_device
from specvit.models.config import BACKBONE_OPTIONS, VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit

ROUNDS = 15


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("image_size", [32, 64])
def test_scenes_images_per_second(benchmark: BenchmarkFixture, image_size: int) -> None:
    source = Scenes(image_size=image_size, num_train=1000, num_val=1)
    benchmark.pedantic(source.load, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images_per_s"] = round(1001 / benchmark.stats.stats.median)


SHAPES = [("nano", 24, 4, 64), ("nano", 32, 4, 64), ("small", 224, 16, 4)]
"""Scale, side of an image and of a patch in pixels, images a batch: crops and images of a sweep, and ViT-S/16."""

MODES = {
    "full": "norm@all+qkv@first-third",
    "lora:8": "norm@all+qkv(lora:8)@first-third",
    "gate": "norm(gate)@all+qkv(gate)@first-third",
    "gate:token": "norm(gate:token)@all+qkv(gate:token)@first-third",
}


@pytest.mark.parametrize(("scale_name", "image_size", "patch_size", "batch_size"), SHAPES)
def test_specialized_step_over_timm_step(
    benchmark: BenchmarkFixture, scale_name: str, image_size: int, patch_size: int, batch_size: int
) -> None:
    """Forward and backward, the models taking turns in a drawn order; the ratios are in ``extra_info``.

    Ratios are over timm's plain model. A second one says how far two equal models are apart: what cannot be
    told from noise. ``none`` is the baseline of a sweep.
    """
    scale = SCALES[scale_name]
    models = {
        name: VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=scale.width,
            depth=scale.depth,
            num_heads=scale.num_heads,
            **BACKBONE_OPTIONS,
        )
        for name in ("timm", "timm again")
    }
    for name, text in {"none": "none", **MODES}.items():
        models[name] = build_vit(VitConfig(scale, image_size=image_size, patch_size=patch_size, specialization=text))
    device = select_device()
    images = torch.randn(batch_size, 3, image_size, image_size, device=device.torch_device)
    for model in models.values():
        model.to(device.torch_device)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    rng = random.Random(0)

    def take_turns() -> None:
        for name in rng.sample(list(models), len(models)):
            started = time.perf_counter()
            with device.autocast():
                loss = models[name].forward_features(images).float().square().mean()
            loss.backward()
            if images.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
            models[name].zero_grad(set_to_none=True)

    rounds = ROUNDS if scale_name == "small" else 4 * ROUNDS
    benchmark.pedantic(take_turns, rounds=rounds, warmup_rounds=2)
    medians = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    ratios = {name: round(value / medians["timm"], 3) for name, value in medians.items()}
    benchmark.extra_info["ratios"] = ratios
    told = ", ".join(f"{name} {ratio}" for name, ratio in ratios.items() if name != "timm")
    print(f"\n{scale_name} {image_size} px x {batch_size} on {device.torch_device}, over timm: {told}")
