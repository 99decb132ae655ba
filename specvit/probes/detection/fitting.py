"""How the head is fitted: AdamW on tokens that were computed once.

Legend: N images, P patches, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.head import DetectionHead
from specvit.probes.detection.losses import detection_loss
from specvit.probes.detection.targets import Targets
from specvit.probes.minibatches import minibatches
from specvit.seeding import torch_stream
from specvit.training.optimizer import warmup_cosine

WEIGHT_DECAY = 0.05
WARMUP_SHARE = 0.1
MAX_GRADIENT_NORM = 10.0
_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class HeadFit:
    """The common part of all fits of a probe: the data, and the settings but for the learning rate.

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

        Channels are standardised by the tokens of these images. AdamW with linear warm-up and cosine decay to 0;
        matrices decay, biases and the norm do not. Initial weights and batches come from streams of their own, so
        that fits with other learning rates, and those of other arms, see the same batches.

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
        ).to(self.tokens.device)
        head.standardise(*channel_statistics(self.tokens, images))
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
            loss = detection_loss(head(self.tokens[batch]), self.targets.subset(batch), self.cells)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
        return head.eval()


def channel_statistics(tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the statistics of the channels of the tokens of some images.

    Args:
        tokens: ``(N, P, D)`` float32 tokens.
        images: ``(M,)`` int64 indices.

    Returns:
        ``(D,)`` float32 mean and standard deviation over all patches of the images; the latter is infinite for a
        constant channel, so that it counts for nothing.
    """
    chunks = torch.split(images, max(1, _CHUNK_VALUES // tokens[0].numel()))
    number = len(images) * tokens.shape[1]
    mean = torch.stack([tokens[chunk].double().sum((0, 1)) for chunk in chunks]).sum(0) / number
    squares = [(tokens[chunk].double() - mean).square().sum((0, 1)) for chunk in chunks]
    std = (torch.stack(squares).sum(0) / number).sqrt()
    # Below this the spread is the rounding of float32, not a signal to be blown up.
    return mean.float(), std.masked_fill(std <= 1e-6 * mean.abs(), torch.inf).float()
