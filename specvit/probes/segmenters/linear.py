"""The iterative linear head: batch norm and a 1x1 convolution, trained on the pixels' cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from specvit.data.base import IGNORE_INDEX
from specvit.probes.base import ProbeSplit
from specvit.probes.segmenters.base import Fitter, Training
from specvit.probes.segmenters.readout import Readout, UpsampledReadout
from specvit.schedules import warmup_cosine
from specvit.seeding import torch_stream

DROPOUT = 0.1
INIT_STD = 0.01
BETAS = (0.9, 0.999)
WEIGHT_DECAY = 1e-2
WARMUP = 0.05
"""Share of the steps during which the learning rate rises; the source's is 1500 of 40 000."""
NORM_EPS = 1e-5
NORM_MOMENTUM = 0.1


@dataclass(frozen=True)
class Schedule:
    """Say how long a head is trained.

    Attributes:
        steps: Number of optimizer steps.
        batch_size: Number of images a step.
    """

    steps: int
    batch_size: int


class HeadFitter(Fitter):
    """Train a linear head by AdamW on the cross-entropy of upsampled scores. Candidates are learning rates.

    In training, whole channels of an image are dropped (rate 0.1), then normalised over the batch, then mapped
    by a 1x1 convolution; afterwards it is a linear map like those of the other protocols. The seed decides
    initial weights, batches and dropped channels, the same for every learning rate and every backbone.

    Source: the linear head of DINOv3 (facebookresearch/dinov3, eval/segmentation). Deviations: hundreds of
    steps, not 40 000; the peak learning rate is chosen on a held-out tenth, not given; images are neither
    cropped nor flipped, since features are frozen; no gradient is clipped.
    """

    def __init__(
        self, training: Training, *, schedule: Schedule, upsample: Literal["bilinear", "nearest"]
    ) -> None:
        self.training = training
        self.schedule = schedule
        self.upsample: Literal["bilinear", "nearest"] = upsample

    def fit_part(self, candidates: Sequence[float]) -> UpsampledReadout:
        """Train on the images of ``fitted``, once for every learning rate."""
        return self._fit(self.training.fitted, candidates)

    def fit_whole(self, candidate: float) -> UpsampledReadout:
        """Train on all images of the training split."""
        return self._fit(torch.arange(len(self.training.split)), [candidate])

    def _fit(self, images: Tensor, lrs: Sequence[float]) -> UpsampledReadout:
        part, seed = self.training.split, self.training.seed
        readouts = [
            train_head(part, images, lr=lr, schedule=self.schedule, seed=seed, upsample=self.upsample) for lr in lrs
        ]
        # All of them saw the same batches and so hold the same running means; to be sure, each keeps its own.
        offset = readouts[0].offset
        shifted = [r.bias + (offset - r.offset) @ r.weight for r in readouts]
        readout = Readout(
            weight=torch.cat([r.weight for r in readouts]),
            bias=torch.cat(shifted),
            offset=offset,
            classes=readouts[0].classes,
        )
        return UpsampledReadout(readout, self.upsample)


class Head(nn.Module):
    """Map patch tokens to class scores; dropout and batch norm as in the class that fits it."""
