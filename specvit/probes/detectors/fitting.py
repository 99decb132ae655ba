"""How the head is fitted: AdamW on tokens that were computed once.

Legend: N images, P patches, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.detectors.boxes import Cells
from specvit.probes.detectors.head import DetectionHead
from specvit.probes.detectors.losses import detection_loss
from specvit.probes.detectors.targets import Targets
from specvit.probes.minibatches import minibatches
from specvit.schedules import warmup_cosine
from specvit.seeding import torch_stream

WEIGHT_DECAY = 0.05
WARMUP_SHARE = 0.1
MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True)
class HeadFit:
    """Hold what is common to all fits of a probe: the data, and the settings but for the learning rate.

    Attributes:
        tokens: ``(N, P, D)`` float32 frozen patch tokens.
        targets: What every cell of the N images is to predict.
        cells: The cells of the images.
        num_classes: Number of classes.
        width: Channels of the head.
        steps: Steps of AdamW.
        batch_size: Images a step.
        seed: Decides initial weights and batches.
    """

    tokens: Tensor
    targets: Targets
    cells: Cells
    num_classes: int
    width: int
    steps: int
    batch_size: int
    seed: int

    def run(self, images: Tensor, *, lr: float) -> DetectionHead:
        """Fit a head to some images.

        AdamW with linear warm-up and cosine decay to 0; matrices decay, biases and the norm do not. Initial
        weights and batches come from streams of their own, so that fits with other learning rates, and those
        of other arms, see the same batches.

        Args:
            images: ``(M,)`` int64 indices of the images to fit to.
            lr: Peak learning rate.

        Returns:
            The head, in evaluation mode.
        """
        head = DetectionHead(
            self.tokens.shape[-1],
            num_classes=self.num_classes,
            grid=self.cells.grid,
            width=self.width,
            generator=torch_stream(self.seed, "head"),
        )
        matrices = [parameter for parameter in head.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in head.parameters() if parameter.ndim == 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        )
        batches = minibatches(len(images), steps=self.steps, batch_size=self.batch_size, seed=self.seed)
        for step, chosen in enumerate(batches):
            batch = images[chosen]
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine((step + 0.5) / self.steps, peak=lr, end=0.0, warmup=WARMUP_SHARE)
            loss = detection_loss(head(self.tokens[batch]), self.targets.of(batch), self.cells)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
        return head.eval()
