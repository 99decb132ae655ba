"""Where the time of a DINOv2 step goes. Run by ``make bench``; what is asserted are shares, since machines differ."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2 import learner as dinov2
from specvit.recipes.dinov2 import targets
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu
from specvit.training.learner import Batch
from specvit.training.loop import train_step
from specvit.training.optimizer import build_optimizer

CPU = Device(torch.device("cpu"))
LOSSES = ("dino_loss", "ibot_loss", "koleo_loss")
REST = "other"

SWEEP = DinoV2Cpu()
LARGE = DinoV2Cpu(batch_size=4, global_size=224, local_size=96, num_locals=8)
PUBLISHED = DinoV2(batch_size=4)
"""Its heads have 65,536 prototypes, whose cost at a batch of 4 is out of proportion: nothing is asserted of it."""

CASES = {
    "sweep": ("nano", 32, 4, SWEEP, 60, 0.6),
    "ViT-S/16, heads of the sweeps": ("small", 224, 16, LARGE, 3, 0.8),
    "ViT-S/16, published recipe": ("small", 224, 16, PUBLISHED, 3, 0.0),
}
"""Scale, side of an image and of a patch in pixels, recipe, steps, least share of the backbone."""


class Clock:
    """Know which part of a step is being computed, and add up the seconds of each.

    A wrapped function switches the clock to its part and back. Its outputs are marked: when the gradient arrives
    at a mark, the backward of that part begins, which lasts until the next mark. Autograd works through the later
    parts of a graph first, so on a CPU, where it computes one operation at a time, the marks come in order.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._part, self._since = REST, time.perf_counter()

    def switch(self, part: str) -> str:
        """Begin a part; return the one before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def wrap(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Callable[..., Any]:
        """Return ``function`` on the clock; ``part`` is a name, or makes it of the first argument."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            name = part if isinstance(part, str) else part(args[0])
            before = self.switch(name)
            result = function(*args, **kwargs)
            self.switch(before)
            return self._marked(result, name)

        return wrapped

    def shares(self) -> dict[str, float]:
        """Return the share of each part, the largest first."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])}

    def _marked(self, result: Any, part: str) -> Any:
        if isinstance(result, Tensor):
            return _Mark.apply(result, self, part) if result.requires_grad else result
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return type(result)(*(self._marked(value, part) for value in result))
        return result


class _Mark(torch.autograd.Function):
    """Pass a tensor on, and switch the clock when its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: Clock, part: str) -> Tensor:
        ctx.clock, ctx.part = clock, part
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.switch(ctx.part)
        return gradient, None, None


def _put_on(
    clock: Clock, learner: DinoV2Learner, optimizer: torch.optim.Optimizer, patch: pytest.MonkeyPatch
) -> None:
    """Put the parts of a learner's step on the clock."""
    teacher = learner.teacher.backbone

    def whose(model: nn.Module) -> str:
        return "backbone, teacher" if model is teacher else "backbone, student"

    patch.setattr(dinov2, "encode", clock.wrap(dinov2.encode, whose))
    for name in LOSSES:
        patch.setattr(dinov2, name, clock.wrap(getattr(dinov2, name), "losses and targets"))
    heads = (network.cls_head for network in (learner.student, learner.teacher))  # shared with the patches
    parts: list[tuple[Any, str, str]] = [
        *((head, name, "heads") for head in heads for name in ("forward", "embed")),
        (targets.TeacherRows, "logits", "heads"),
        (targets, "sinkhorn", "losses and targets"),
        (targets.Centre, "forward", "losses and targets"),
        (learner, "_views", "crops and colour"),
        (learner, "_masks", "masks"),
        (learner, "after_step", "moving average"),
        (nn.utils, "clip_grad_norm_", "optimizer"),
        (optimizer, "step", "optimizer"),
    ]
    for owner, name, part in parts:
        patch.setattr(owner, name, clock.wrap(getattr(owner, name), part))
    # The last part of the backward ends where the gradients are first looked at.
    before_update = learner.before_update
    patch.setattr(learner, "before_update", lambda progress: (clock.switch(REST), before_update(progress))[1])


@pytest.mark.parametrize("case", CASES)
def test_shares_of_a_step(benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    scale_name, image_size, patch_size, recipe, num_steps, least = CASES[case]
    torch.set_num_threads(1)
    scale = SCALES[scale_name]
    backbone = build_vit(
        VitConfig(
            scale,
            image_size=image_size,
            patch_size=patch_size,
            drop_path=recipe.drop_path,
            drop_path_uniform=recipe.drop_path_uniform,
            drop_path_subset=recipe.drops_subsets(),
            layer_scale=recipe.layer_scale,
        ),
    )
    dataset = Scenes(image_size=image_size, num_train=recipe.batch_size, num_val=1).load()
    learner = build_learner(recipe, backbone, dataset, seed=0)
    assert isinstance(learner, DinoV2Learner)
    learner.train()
    optimizer = build_optimizer(learner, recipe, depth=scale.depth, device=CPU)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    images = torch.from_numpy(dataset.train.images) / 255
    clock = Clock()
    _put_on(clock, learner, optimizer, monkeypatch)
    steps = iter(range(num_steps + 2))

    def step() -> None:
        batch = Batch(images=images, labels=None, step=next(steps), steps=1000, seed=0)
        clock.switch(REST)
        train_step(
            learner,
            recipe,
            batch,
            optimizer=optimizer,
            trainable=trainable,
            device=CPU,
        )
        clock.switch(REST)
        if batch.step < 2:  # warms up
            clock.seconds.clear()

    benchmark.pedantic(step, rounds=num_steps, warmup_rounds=2)
    shares = clock.shares()
    benchmark.extra_info["shares"] = {name: round(share, 4) for name, share in shares.items()}
    milliseconds = 1000 * sum(clock.seconds.values()) / num_steps
    print(f"\n{case}: {milliseconds:.0f} ms a step of {recipe.batch_size} images")
    for name, share in shares.items():
        print(f"  {name:20} {100 * share:5.1f}%  {milliseconds * share:8.1f} ms")
    assert shares["backbone, student"] + shares["backbone, teacher"] >= least
    assert shares["crops and colour"] <= 0.1
