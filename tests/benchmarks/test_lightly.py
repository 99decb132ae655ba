"""Our DINOv2 step beside one assembled from the public parts of lightly. Run by ``make bench``.

Needs the extra ``bench``. What lightly's step contains: ``DINOTransform`` on PIL images, one by one, as its data
loaders do (here on the same thread); timm's model in ``MaskedVisionTransformerTIMM``; ``random_block_mask`` on the
globals; ``DINOProjectionHead``, shared by [CLS] and patches; ``DINOLoss``, ``IBOTPatchLoss`` on the masked patches
and ``KoLeoLoss`` on each global; clipping, AdamW and ``update_momentum``. Its losses centre by a running mean,
which is less work than the three Sinkhorn iterations of ours, and its AdamW has one group, without schedules.
Both steps spend most of their time in the same backbone, which bounds the ratio: were all else of ours free, it
would be about 1.5.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.models.config import BACKBONE_OPTIONS, VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.training.augment import to_unit
from specvit.training.learner import Batch
from specvit.training.loop import train_step
from specvit.training.optimizer import build_optimizer

CPU = Device(torch.device("cpu"))
IMAGE_SIZE, PATCH_SIZE = 32, 4
SCALE = SCALES["nano"]
RECIPE = DinoV2Cpu()
GLOBAL_SIZE = 24
ROUNDS = 60


class LightlyStep:
    """Train a backbone by the settings of a recipe of ours, with lightly's parts."""

    def __init__(self, backbone: VisionTransformer) -> None:
        from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
        from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
        from lightly.transforms import DINOTransform

        self.transform = DINOTransform(
            global_crop_size=GLOBAL_SIZE,
            global_crop_scale=RECIPE.global_scale,
            local_crop_size=RECIPE.local_size,
            local_crop_scale=RECIPE.local_scale,
            n_local_views=RECIPE.num_locals,
        )
        width, outputs = backbone.embed_dim, RECIPE.num_prototypes

        def network() -> nn.ModuleDict:
            vit = MaskedVisionTransformerTIMM(
                copy.deepcopy(backbone), weight_initialization="skip", pos_embed_initialization="skip"
            )
            return nn.ModuleDict(
                {"vit": vit, "head": DINOProjectionHead(width, RECIPE.head_hidden, RECIPE.head_bottleneck, outputs)}
            )

        self.student, self.teacher = network(), network().requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        temperatures = {"teacher_temp": RECIPE.teacher_temp, "student_temp": RECIPE.student_temp}
        self.dino = DINOLoss(outputs, **temperatures)
        self.ibot = IBOTPatchLoss(outputs, **temperatures)
        self.koleo = KoLeoLoss()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=RECIPE.lr, weight_decay=RECIPE.weight_decay)

    def views(self, images: NDArray[np.uint8]) -> list[Tensor]:
        """Cut the views of ``(B, 3, H, W)`` images: two global, then the local ones, ``(B, 3, S, S)`` each."""
        cut = [self.transform(Image.fromarray(image)) for image in images.transpose(0, 2, 3, 1)]
        return [torch.stack(view) for view in zip(*cut, strict=True)]

    def train(self, views: list[Tensor]) -> float:
        """Do a step on these views and return its loss."""
        from lightly.models.utils import random_block_mask, update_momentum

        student, teacher, side = self.student, self.teacher, GLOBAL_SIZE // PATCH_SIZE
        whole, local = torch.cat(views[:2]), torch.cat(views[2:])
        mask = random_block_mask(
            (len(whole), side, side),
            batch_mask_ratio=RECIPE.mask_probability,
            min_image_mask_ratio=RECIPE.mask_ratio[0],
            max_image_mask_ratio=RECIPE.mask_ratio[1],
            min_num_masks_per_block=1,  # its own 4 are more than a tenth of a grid of 6 x 6
        )
        hidden = mask.flatten(1)
        with torch.no_grad():
            tokens = teacher["vit"].encode(whole)
            cls_targets, patch_targets = teacher["head"](tokens[:, 0]), teacher["head"](tokens[:, 1:][hidden])
        tokens = student["vit"].encode(whole, mask=torch.cat([hidden.new_zeros(len(hidden), 1), hidden], dim=1))
        cls = [student["head"](tokens[:, 0]), student["head"](student["vit"].encode(local)[:, 0])]
        patches = student["head"](tokens[:, 1:][hidden])
        loss = (
            RECIPE.dino_weight * self.dino(list(cls_targets.chunk(2)), list(torch.cat(cls).split(len(views[0]))))
            + RECIPE.ibot_weight * self.ibot(patch_targets, patches, mask=mask)
            + RECIPE.koleo_weight * sum(self.koleo(view) for view in tokens[:, 0].chunk(2))
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), RECIPE.clip_norm)
        self.optimizer.step()
        update_momentum(student, teacher, m=RECIPE.ema)
        return float(loss.detach())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_dinov2_step_over_lightlys(benchmark: BenchmarkFixture) -> None:
    """Images per second, the two taking turns in one thread; the medians are in ``extra_info``."""
    pytest.importorskip("lightly", reason="needs the extra 'bench'")
    torch.set_num_threads(1)
    plain = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=SCALE.width,
        depth=SCALE.depth,
        num_heads=SCALE.num_heads,
        **BACKBONE_OPTIONS,
    )
    theirs = LightlyStep(plain)
    dataset = Scenes(image_size=IMAGE_SIZE, num_train=RECIPE.batch_size, num_val=1).load()
    images = dataset.train.images
    ours = build_learner(RECIPE, build_vit(
        VitConfig(SCALE, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE),
    ), dataset, seed=0)
    ours.train()
    optimizer = build_optimizer(ours, RECIPE, depth=SCALE.depth, device=CPU)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    seconds: dict[str, list[float]] = {"ours": [], "lightly": [], "lightly, transform alone": []}

    def take_turns() -> None:
        step = len(seconds["ours"])
        started = time.perf_counter()
        batch: Any = Batch(images=to_unit(images, CPU), labels=None, step=step, steps=1000, seed=0)
        train_step(
            ours,
            RECIPE,
            batch,
            optimizer=optimizer,
            trainable=trainable,
            device=CPU,
        )
        turned = time.perf_counter()
        views = theirs.views(images)
        cut = time.perf_counter()
        assert theirs.train(views) > 0
        ended = time.perf_counter()
        for name, value in zip(seconds, (turned - started, ended - turned, cut - turned), strict=True):
            seconds[name].append(value)

    benchmark.pedantic(take_turns, rounds=ROUNDS, warmup_rounds=3)
    medians = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    speeds = {name: round(len(images) / medians[name], 1) for name in ("ours", "lightly")}
    ratio = medians["lightly"] / medians["ours"]
    given = (medians["lightly"] - medians["lightly, transform alone"]) / medians["ours"]
    ratios = {"ratio": round(ratio, 3), "ratio_without_transform": round(given, 3)}
    benchmark.extra_info |= {"images_per_s": speeds, **ratios}
    print(
        f"\nimages/s: ours {speeds['ours']}, lightly {speeds['lightly']}: {ratio:.2f} times as many; "
        f"{given:.2f} if lightly's views cost nothing while ours are cut"
    )
    assert ratio > 1
