"""The trained linear head: a distribution over depth bins, whose expectation is the depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from specvit.probes.depth.base import Estimator, Fitter, Limits, Task, upsample
from specvit.probes.minibatches import minibatches
from specvit.probes.scores import is_measured
from specvit.seeding import torch_stream
from specvit.training.optimizer import warmup_cosine

INIT_STD = 0.01
BETAS = (0.9, 0.999)
WEIGHT_DECAY = 1e-2
WARMUP = 1 / 12
"""Share of the steps during which the learning rate rises."""
FLOOR = 0.1
"""Added to every rectified score, so that no bin's share is 0."""
MEAN_WEIGHT = 0.15
_LEAST_SQUARE = 1e-12
"""Square of the loss below which it has no gradient; the root's would grow without bound."""


class BinsFitter(Fitter):
    """Train a linear head by AdamW on the scale-invariant loss of measured pixels. Candidates are learning rates.

    A linear map of the standardised token gives a score per bin; rectified and raised by 0.1 it is the bin's
    weight; the depth of a patch is the weighted mean of the bins' depths, which are spread evenly over the
    limits. It is interpolated to pixels before the loss is taken. The seed decides initial weights and batches,
    the same for every learning rate and every backbone.

    Source: the linear depth head of DINOv2 (facebookresearch/dinov2, hub/depth/decode_heads.py), trained as in
    DINOv3 (facebookresearch/dinov3, eval/depth/config.py: AdamW, 1e-4, decay 0.01). Deviations: features are
    extracted once, so images are neither cropped, turned nor recoloured; tokens are standardised, not interpolated
    to 4 times the grid; the last layer alone; few steps (``steps``, the source's are 38 400); the learning rate is
    chosen on a held-out tenth, rises and falls to 0 on a cosine; no gradient is clipped; no first steps on the mean
    alone; images without a measured pixel are left out.
    """

    def __init__(
        self, task: Task, limits: Limits, *, seed: int, num_bins: int, steps: int, batch_size: int
    ) -> None:
        super().__init__(task, limits, seed=seed)
        self.num_bins, self.steps, self.batch_size = num_bins, steps, batch_size

    def fit(self, images: Tensor, candidates: Sequence[float]) -> BinExpectation:
        """Train a head for every learning rate, all on the same batches."""
        images, task = self.task.with_depth(images), self.task
        mean, scale = standardisation(task, images)
        bins = torch.linspace(self.limits.low_m, self.limits.high_m, self.num_bins, device=mean.device)
        initial = torch.randn(self.num_bins, task.dim, generator=torch_stream(self.seed, "head")) * INIT_STD
        heads = [Head(initial).to(mean.device) for _ in candidates]
        optimizer = torch.optim.AdamW(
            [{"params": list(head.parameters())} for head in heads], betas=BETAS, weight_decay=WEIGHT_DECAY
        )
        batches = minibatches(len(images), steps=self.steps, batch_size=self.batch_size, seed=self.seed)
        for step, batch in enumerate(batches):
            for group, lr in zip(optimizer.param_groups, candidates, strict=True):
                group["lr"] = warmup_cosine((step + 0.5) / self.steps, peak=lr, end=0.0, warmup=WARMUP)
            chosen = images[batch.to(images.device)]
            tokens = (task.tokens(chosen) - mean) / scale
            truth = task.depth[chosen].float()
            optimizer.zero_grad()
            for head in heads:
                pixels = upsample(expectation(head(tokens), bins), task.split.grid, (truth.shape[1], truth.shape[2]))
                log_loss(pixels, truth).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return BinExpectation(heads=tuple(heads), mean=mean, scale=scale, bins=bins)


class Head(nn.Module):
    """Map standardised tokens to a score per bin.

    Args:
        weight: ``(B, D)`` float32 initial weights; they are copied.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(torch.zeros(len(weight)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(M, P, D)`` tokens to ``(M, P, B)`` scores."""
        return functional.linear(tokens, self.weight, self.bias)


@dataclass(frozen=True)
class BinExpectation(Estimator):
    """L trained heads.

    Attributes:
        heads: A head for every learning rate.
        mean: ``(D,)`` float32 taken off every token.
        scale: ``(D,)`` float32 that tokens are divided by; infinite for a constant feature.
        bins: ``(B,)`` float32 depth of every bin, in metres.
    """

    heads: tuple[Head, ...]
    mean: Tensor
    scale: Tensor
    bins: Tensor

    @property
    def values_per_token(self) -> int:
        """Return the number of scores of a token, one a bin."""
        return len(self.bins)

    @torch.no_grad()
    def on_grid(self, tokens: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, P)`` float32 metres of ``(M, P, D)`` tokens, head by head."""
        standardised = (tokens - self.mean) / self.scale
        for head in self.heads:
            depth = expectation(head(standardised), self.bins)
            yield depth.clamp(self.bins[0], self.bins[-1])  # a sum of shares rounds


def expectation(scores: Tensor, bins: Tensor) -> Tensor:
    """Compute the mean depth of a distribution over bins.

    Args:
        scores: ``(..., B)`` float; a bin weighs its rectified score + 0.1.
        bins: ``(B,)`` depth of every bin.

    Returns:
        ``(...)`` depth.
    """
    weights = scores.relu() + FLOOR
    return (weights @ bins) / weights.sum(-1)


def log_loss(predictions: Tensor, depth: Tensor) -> Tensor:
    """Compute sqrt(var g + 0.15 mean(g)^2) over measured pixels, g = log prediction - log depth.

    Args:
        predictions: ``(M, H, W)`` metres, above 0.
        depth: ``(M, H, W)`` metres, not positive or not finite = not measured; at least one pixel is.

    Returns:
        A scalar.

    Source:
        Eigen et al. 2014 (arXiv 1406.2283, section 3.2), with the weights of AdaBins (arXiv 2011.14141).
        Deviation: the variance has the number of pixels in its denominator, not one less, so that a single
        pixel has one.
    """
    known = is_measured(depth)
    g = predictions[known].log() - depth[known].log()
    return (g.var(correction=0) + MEAN_WEIGHT * g.mean().square()).clamp(min=_LEAST_SQUARE).sqrt()


def standardisation(task: Task, images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the statistics of the tokens of some images.

    Args:
        task: Features and depth.
        images: ``(M,)`` int64 indices.

    Returns:
        ``(D,)`` float32 mean and standard deviation over all their patches; the latter is infinite for a
        constant feature, so that it counts for nothing.
    """
    chunks = task.chunks(images)
    number = len(images) * task.split.patches.shape[1]
    mean = torch.stack([task.tokens(chunk).double().sum((0, 1)) for chunk in chunks]).sum(0) / number
    squares = [(task.tokens(chunk).double() - mean).square().sum((0, 1)) for chunk in chunks]
    std = (torch.stack(squares).sum(0) / number).sqrt()
    return mean.float(), std.masked_fill(std <= 1e-6 * mean.abs(), torch.inf).float()
