"""DINOv2's presets: the published constants, as literals with the file they come from."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short

# facebookresearch/dinov2, dinov2/configs/ssl_default_config.yaml; an epoch is OFFICIAL_EPOCH_LENGTH, 1250 steps.
DEFAULT = {
    "steps": 100 * 1250,  # optim.epochs
    "lr": 4e-3,  # optim.base_lr
    "lr_batch_size": 1024,  # optim.scaling_rule: sqrt_wrt_1024
    "min_lr": 1e-6,
    "warmup": 10 / 100,  # optim.warmup_epochs
    "weight_decay": 0.04,
    "weight_decay_end": 0.4,
    "betas": (0.9, 0.999),
    "clip_norm": 3.0,
    "clip_separately": True,  # train/train.py, do_train
    "layer_decay": 0.9,
    "patch_embed_lr": 0.2,
    "freeze_prototypes": 1 / 100,  # optim.freeze_last_layer_epochs
    "drop_path": 0.3,
    "drop_path_uniform": True,
    "drop_path_subset": True,  # layers/block.py
    "layer_scale": 1e-5,
    "dino_weight": 1.0,
    "ibot_weight": 1.0,
    "koleo_weight": 0.1,
    "num_prototypes": 65_536,
    "head_hidden": 2048,
    "head_bottleneck": 256,
    "shared_head": True,  # ibot.separate_head: false
    "patch_bottleneck": None,
    "mask_probability": 0.5,
    "mask_ratio": (0.1, 0.5),
    "centering": "softmax",  # train.centering
    "ema": 0.992,
    "ema_end": 1.0,
    "teacher_temp_start": 0.04,
    "teacher_temp": 0.07,
    "teacher_temp_warmup": 30 / 100,
    "student_temp": 0.1,  # loss/dino_clstoken_loss.py
    "global_scale": (0.32, 1.0),
    "local_scale": (0.05, 0.32),
    "num_locals": 8,
    "local_size": 96,
    "blur_scales": False,  # data/augmentations.py
    "probe": "teacher",  # eval/setup.py
}

# dinov2/configs/train/vitl14.yaml, on 96 GPUs (README.md).
LONG = {
    "steps": 500 * 1250,
    "batch_size": 96 * 32,
    "lr": 2e-4,
    "warmup": 80 / 500,
    "freeze_prototypes": 1 / 500,
    "teacher_temp_warmup": 30 / 500,
    "weight_decay_end": 0.2,
    "layer_decay": 1.0,
    "drop_path": 0.4,
    "num_prototypes": 131_072,
    "head_bottleneck": 384,
    "patch_bottleneck": 256,  # ibot.head_bottleneck_dim keeps its default
    "shared_head": False,
    "centering": "sinkhorn",
    "ema": 0.994,
    "local_size": 98,
}


@pytest.mark.parametrize(
    ("recipe", "constants"),
    [
        (DinoV2(), {**DEFAULT, "batch_size": 1024}),
        (DinoV2Short(), {**DEFAULT, "batch_size": 32 * 64}),  # configs/train/vitl16_short.yaml, on 32 GPUs
        (DinoV2Long(), {**DEFAULT, **LONG}),
    ],
    ids=["default", "short", "long"],
)
def test_presets_hold_the_published_constants(recipe: DinoV2, constants: dict[str, Any]) -> None:
    assert {name: getattr(recipe, name) for name in constants} == constants


@pytest.mark.parametrize(
    ("recipe", "peak"),
    [
        (DinoV2(), 4e-3),
        (DinoV2(batch_size=256), 2e-3),  # a quarter of the batch, half of the rate
        (DinoV2Short(), 5.656854e-3),  # 4e-3 x sqrt(2)
        (DinoV2Long(), 3.464102e-4),  # 2e-4 x sqrt(3)
        (DinoV2(lr_batch_size=None, batch_size=64), 4e-3),
        (DinoV2Cpu(batch_size=128), 1e-3),
    ],
)
def test_the_peak_rate_is_scaled_by_the_root_of_the_batch(recipe: DinoV2, peak: float) -> None:
    assert recipe.peak_lr == pytest.approx(peak, rel=1e-6)


def test_the_short_preset_has_a_small_head_few_crops_and_a_fast_teacher() -> None:
    cpu, published = DinoV2Cpu(), DinoV2()
    assert cpu.num_prototypes < 1000 < published.num_prototypes
    assert (cpu.num_locals, cpu.ema) == (4, 0.98)
    assert (cpu.probe, cpu.clip_separately, cpu.drop_path) == ("student", False, 0.0)


def test_a_bottleneck_of_the_patches_needs_a_head_of_their_own() -> None:
    with pytest.raises(ValidationError, match="patch_bottleneck must not be given with shared_head, not 128"):
        DinoV2(patch_bottleneck=128)
    assert DinoV2(patch_bottleneck=128, shared_head=False).patch_bottleneck == 128
