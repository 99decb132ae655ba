from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from specvit.arithmetic import CORE_RATE, PROBE_S, forward_operations, rough_seconds, step_operations, trial_operations
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data.sources.scenes import Scenes
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probes import Knn
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.recipes.mae.settings import MaeCpu

NANO = SCALES["nano"]
CONFIG = TrialConfig(
    treatment=Treatment(),
    model=ModelSettings(scale="nano", patch_size=4),
    data=Scenes(image_size=32, num_train=100, num_val=50),
    objective=DeiT3Cpu(steps=10, batch_size=8),
    probes=(Knn(),),
    rungs=RungSettings(count=2, num_images=20),
    seed=0,
)


def test_passes_have_the_operations_that_torch_counts_but_for_what_is_small() -> None:
    with torch.device("meta"):
        model = build_vit(VitConfig(NANO, image_size=32, patch_size=4, specialization="none"))
        images = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model.forward_features(images).square().mean().backward()
    # Left out: patches to tokens, 2 x 48 x 64 x 64 of 45 million.
    assert 3 * forward_operations(NANO, 65) == pytest.approx(counter.get_total_flops(), rel=0.02)
    step = step_operations(CONFIG.objective, CONFIG, scale=NANO, prefix=1)
    assert step == pytest.approx(8 * 3 * forward_operations(NANO, 65))


def test_a_trial_is_its_steps_and_the_images_that_probes_see() -> None:
    image = forward_operations(NANO, 65)
    # 10 steps of 8 images, there and back; 150 images at the end, 20 at each of two rungs.
    assert trial_operations(CONFIG) == pytest.approx((10 * 8 * 3 + 150 + 40) * image)
    assert rough_seconds(CONFIG) == pytest.approx(190 * PROBE_S + 430 * image / CORE_RATE)
    assert rough_seconds(CONFIG, cores=4.0) == pytest.approx(190 * PROBE_S + 430 * image / CORE_RATE / 4)
    floor = replace(CONFIG, treatment=Treatment(kind="random_init"))
    assert trial_operations(floor) == pytest.approx(150 * image)
    assert rough_seconds(replace(CONFIG, treatment=Treatment(kind="raw_pixels"))) == pytest.approx(150 * PROBE_S)


def test_recipes_that_compute_more_count_as_more() -> None:
    deit, dino, mae = (
        step_operations(recipe(batch_size=8), replace(CONFIG, objective=recipe()), scale=NANO, prefix=1)
        for recipe in (DeiT3Cpu, DinoV2Cpu, MaeCpu)
    )
    assert dino > 2 * deit  # two global views, a teacher, heads
    assert mae < deit  # a quarter of the patches; a small decoder
    quarter = step_operations(DeiT3Cpu(batch_size=2), CONFIG, scale=NANO, prefix=1)
    assert quarter == pytest.approx(deit / 4)


def test_what_is_not_known_is_not_guessed() -> None:
    assert rough_seconds(replace(CONFIG, objective=DeiT3Cpu(epochs=2.0))) is None


def test_the_studies_of_this_repository_took_about_as_long_as_the_guess() -> None:
    # Core seconds of a trial in results/studies/components (300 steps) and learning (1,200 steps): 66 and 251.
    scenes = replace(CONFIG, data=Scenes(image_size=32), rungs=RungSettings())
    for recipe, steps, took in ((DeiT3Cpu(batch_size=64), 300, 66.0), (DinoV2Cpu(), 1200, 251.0)):
        guess = rough_seconds(replace(scenes, objective=replace(recipe, steps=steps)))
        assert guess is not None
        assert took / 3 < guess < 3 * took
