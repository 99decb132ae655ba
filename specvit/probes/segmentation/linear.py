"""The trained linear head: batch norm and a 1x1 convolution, on the cross-entropy of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from specvit.data.base import IGNORE_INDEX
from specvit.probes.base import ProbeSplit
from specvit.probes.minibatches import minibatches
from specvit.probes.segmentation.base import Fitter, Training
from specvit.probes.segmentation.readout import Readout, UpsampledReadout
from specvit.probes.selection import require_fitted
from specvit.seeding import torch_stream
from specvit.training.optimizer import warmup_cosine

INIT_STD = 0.01
BETAS = (0.9, 0.999)
WEIGHT_DECAY = 1e-2
WARMUP = 0.0375
"""Share of the steps during which the learning rate rises: the source's 1500 of 40 000."""
NORM_MOMENTUM = 0.1
NORM_EPS = 1e-5


class HeadFitter(Fitter):
    """Train a linear head by AdamW on the mean cross-entropy of labelled pixels. Candidates are learning rates.

    In training, channels of an image are dropped, the rest is normalised over the batch, then scaled, shifted
    and mapped by a 1x1 convolution, and scores are upsampled to pixels; afterwards it is a linear map of tokens
    like those of the other protocols. The seed decides initial weights, batches and dropped channels, the same
    for every learning rate and every backbone.

    Source: the linear head of DINOv3 (facebookresearch/dinov3, eval/segmentation: models/heads/linear_head.py,
    train.py, config.py). Deviations: features are extracted once, so images are neither cropped nor flipped;
    few steps (``steps``); the peak learning rate is chosen on a held-out tenth; it rises from 0 and falls to 0
    on a cosine; no gradient is clipped (the source clips at a norm of 35); classes that no training pixel has
    get no score; images without a labelled pixel are left out.
    """

    def __init__(
        self,
        training: Training,
        *,
        steps: int,
        batch_size: int,
        dropout: float,
        upsample: Literal["bilinear", "nearest"],
    ) -> None:
        self.training = training
        self.schedule = Schedule(steps=steps, batch_size=batch_size, dropout=dropout)
        self.upsample = upsample

    def fit_part(self, candidates: Sequence[float]) -> UpsampledReadout:
        """Train on the images of ``fitted``, once for every learning rate."""
        return self._fit(self.training.fitted, candidates)

    def fit_whole(self, candidate: float) -> UpsampledReadout:
        """Train on all images of the training split."""
        fitted = self._fit(torch.arange(len(self.training.split)), [candidate])
        require_fitted(fitted.readout.weight, fitted.readout.bias, probe="segmentation")
        return fitted

    def _fit(self, images: Tensor, lrs: Sequence[float]) -> UpsampledReadout:
        readout = train_heads(
            self.training.split,
            images,
            lrs,
            schedule=self.schedule,
            upsample=self.upsample,
            seed=self.training.seed,
        )
        return UpsampledReadout(readout, self.upsample)


@dataclass(frozen=True)
class Schedule:
    """The schedule by which heads are trained.

    Attributes:
        steps: Number of optimizer steps.
        batch_size: Number of images a step.
        dropout: Share of the channels that are dropped, image by image, in [0, 1).
    """

    steps: int
    batch_size: int
    dropout: float


def train_heads(
    part: ProbeSplit,
    images: Tensor,
    lrs: Sequence[float],
    *,
    schedule: Schedule,
    upsample: Literal["bilinear", "nearest"],
    seed: int,
) -> Readout:
    """Train a head for every learning rate, all on the same batches.

    Args:
        part: Patch tokens and masks.
        images: ``(M,)`` int64 indices of the images to train on, at least one with a labelled pixel.
        lrs: Peak learning rates.
        schedule: How long, in which batches, with how much dropout.
        upsample: How scores get from the patch grid to pixels.
        seed: Decides initial weights, batches and dropped channels.

    Returns:
        One map for every learning rate, for raw tokens; its scores are log-odds.
    """
    assert part.masks is not None
    images = images.to(part.masks.device)
    images = images[(part.masks[images] != IGNORE_INDEX).flatten(1).any(1)]
    classes = part.masks[images].flatten().bincount(minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX].nonzero().flatten()
    index = classes.new_full((IGNORE_INDEX + 1,), IGNORE_INDEX)
    index[classes] = torch.arange(len(classes), device=classes.device)
    dim, device = part.patches.shape[2], part.patches.device
    weight = torch.randn(len(classes), dim, generator=torch_stream(seed, "head")) * INIT_STD
    heads = [Head(weight).to(device) for _ in lrs]
    optimizer = torch.optim.AdamW(
        [{"params": list(head.parameters())} for head in heads], betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    # Heads see the same batches, so their batch norms share the statistics.
    mean, variance = torch.zeros(dim, device=device), torch.ones(dim, device=device)
    batches = minibatches(len(images), steps=schedule.steps, batch_size=schedule.batch_size, seed=seed)
    for step, batch in enumerate(batches):
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = warmup_cosine((step + 0.5) / schedule.steps, peak=lr, end=0.0, warmup=WARMUP)
        chosen = images[batch.to(images.device)]
        kept = torch.rand(len(chosen), 1, dim, generator=torch_stream(seed, "dropout", step)) >= schedule.dropout
        tokens = part.patches[chosen.to(device)] * (kept.to(device) / (1 - schedule.dropout))
        normalised = functional.batch_norm(
            tokens.flatten(0, 1), mean, variance, training=True, momentum=NORM_MOMENTUM, eps=NORM_EPS
        ).view_as(tokens)
        truth = index[part.masks[chosen].long()]
        optimizer.zero_grad()
        for head in heads:
            pixel_loss(head(normalised), truth, grid=part.grid, upsample=upsample).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    spread = (variance.double() + NORM_EPS).sqrt()
    return Readout(
        weight=torch.stack([(head.weight.double() * head.scale.double() / spread).T for head in heads]).detach(),
        bias=torch.stack([head.weight.double() @ head.shift.double() + head.bias.double() for head in heads]).detach(),
        offset=mean.double(),
        classes=classes.to(device),
    )


class Head(nn.Module):
    """Scale and shift normalised tokens, as a batch norm does, and map them to class scores.

    Args:
        weight: ``(C, D)`` float32 initial weights of the map; they are copied.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        num_classes, dim = weight.shape
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(torch.zeros(num_classes))

    def forward(self, normalised: Tensor) -> Tensor:
        """Map ``(B, P, D)`` tokens to ``(B, P, C)`` scores."""
        return functional.linear(normalised * self.scale + self.shift, self.weight, self.bias)


def pixel_loss(
    scores: Tensor, truth: Tensor, *, grid: tuple[int, int], upsample: Literal["bilinear", "nearest"]
) -> Tensor:
    """Compute the mean cross-entropy of labelled pixels.

    Args:
        scores: ``(B, P, C)`` float scores of patches.
        truth: ``(B, H, W)`` int64 classes, 255 = ignore.
        grid: Patches per column and per row.
        upsample: How scores get from the patch grid to pixels.

    Returns:
        A scalar.
    """
    on_grid = scores.view(len(scores), *grid, -1).permute(0, 3, 1, 2)
    upsampled = functional.interpolate(on_grid, size=truth.shape[1:], mode=upsample)
    return functional.cross_entropy(upsampled, truth, ignore_index=IGNORE_INDEX)
