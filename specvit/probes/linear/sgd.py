"""DINOv2's linear evaluation: classifiers of several inputs and learning rates, trained side by side by SGD.

Shapes: N images, F features, G heads, K classes seen in fitting, L blocks, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specvit.probes.minibatches import minibatches, num_steps

if TYPE_CHECKING:
    from torch import Tensor

    from specvit.probes.base import ProbeSplit

_MOMENTUM = 0.9
_INIT_STD = 0.01
_SCALED_TO = 256
"""Images of the batch that learning rates are given for."""
_CHUNK_VALUES = 1 << 24
"""Scores held at a time; a larger set of images is classified in chunks."""
WEIGHT_BYTES = 1 << 30
"""Bytes that the weights of heads trained side by side may take. More heads are trained in groups: those that read
raw pixels of large images would not fit into memory together."""


@dataclass(frozen=True)
class Head:
    """A linear classifier of the grid.

    Attributes:
        learning_rate: For batches of 256 images; with other batches it is in proportion.
        num_blocks: Of how many of the last blocks it reads [CLS].
        mean_patch: Whether it also reads the mean of the patch tokens.
    """

    learning_rate: float
    num_blocks: int
    mean_patch: bool


def head_grid(
    lrs: Sequence[float], last_blocks: Sequence[int], *, num_blocks: int
) -> tuple[Head, ...]:
    """List heads: each input, without and with the mean patch, with each learning rate.

    Args:
        lrs: The learning rates.
        last_blocks: Numbers of last blocks whose [CLS] is an input.
        num_blocks: L; of more blocks than there are, all are read.

    Returns:
        The heads, without repetition.
    """
    numbers = dict.fromkeys(min(number, num_blocks) for number in last_blocks)
    return tuple(
        Head(rate, number, mean_patch)
        for number in numbers
        for mean_patch in (False, True)
        for rate in lrs
    )


def in_groups(heads: Sequence[Head], *, bytes_per_head: int) -> list[Sequence[Head]]:
    """Split heads into groups that are trained side by side, within ``WEIGHT_BYTES``, at least one head each."""
    size = max(1, WEIGHT_BYTES // max(1, bytes_per_head))
    return [heads[start : start + size] for start in range(0, len(heads), size)]


def num_blocks_of(part: ProbeSplit) -> int:
    """Return L, of how many blocks there is [CLS]; 1 if it is only that of the last block, or an image."""
    return 1 if part.intermediate_cls is None else part.intermediate_cls.shape[1]


def head_features(part: ProbeSplit) -> Tensor:
    """Return what any head may read: ``(N, (L + 1) D)``, [CLS] of every block, the last one's last; mean patch."""
    import torch

    cls = part.cls if part.intermediate_cls is None else part.intermediate_cls.flatten(1)
    return torch.cat([cls, part.patch_mean()], dim=1)


def read_by(heads: Sequence[Head], part: ProbeSplit) -> Tensor:
    """Return the ``(F, G)`` bool table of which columns of ``head_features`` each head reads."""
    import torch

    width, patch_width = part.cls.shape[1], part.patches.shape[2]
    num_blocks = num_blocks_of(part)
    rows = torch.zeros(len(heads), num_blocks * width + patch_width, dtype=torch.bool)
    for row, head in zip(rows, heads, strict=True):
        row[(num_blocks - head.num_blocks) * width : num_blocks * width] = True
        row[num_blocks * width :] = head.mean_patch
    return rows.T.to(part.cls.device)


@dataclass(frozen=True)
class Heads:
    """G trained linear classifiers.

    Attributes:
        weight: ``(F, G, K)``, 0 where a head does not read a feature.
        bias: ``(G, K)``.
        classes: ``(K,)`` int64 the classes seen in fitting, ascending; the others are never predicted.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return the ``(N, G, K)`` scores of ``(N, F)`` features."""
        import torch

        flat = torch.addmm(self.bias.flatten(), features, self.weight.flatten(1))
        return flat.view(len(features), *self.bias.shape)

    def predict(self, features: Tensor) -> Tensor:
        """Return the ``(G, N)`` int64 likeliest classes of ``(N, F)`` features."""
        import torch

        chunks = torch.split(features, max(1, _CHUNK_VALUES // self.bias.numel()))
        return self.classes[torch.cat([self.scores(chunk).argmax(2) for chunk in chunks]).T]


def fit_heads(
    features: Tensor,
    labels: Tensor,
    *,
    lrs: Sequence[float],
    reads: Tensor,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Heads:
    """Train linear classifiers on the same batches, each as if it were alone.

    Mean cross-entropy over the classes that occur; SGD with momentum 0.9, no weight decay, the learning rate
    falling to 0 by a cosine. Weights start from a normal distribution of std 0.01, biases from 0. A feature has
    the same initial weight in all heads that read it.

    Args:
        features: ``(N, F)`` float features.
        labels: ``(N,)`` int64.
        lrs: G learning rates for batches of 256 images.
        reads: ``(F, G)`` bool, which features each head reads.
        epochs: How often the images are gone through.
        batch_size: Images of a batch, at most N are taken.
        seed: Decides initial weights and the order of images.

    Returns:
        The classifiers after the last step.

    Source: facebookresearch/dinov2, eval/linear.py.
    """
    import torch

    from specvit.seeding import torch_stream
    from specvit.training.optimizer import cosine

    classes = labels.bincount().nonzero().flatten()
    targets = (labels[:, None] == classes).to(features)
    num_features, num_heads, batch_size = features.shape[1], len(lrs), min(batch_size, len(labels))
    draws = torch.randn(num_features, len(classes), generator=torch_stream(seed, "linear heads")).to(features)
    weight = (_INIT_STD * draws[:, None] * reads[..., None]).contiguous()
    heads = Heads(weight=weight, bias=features.new_zeros(num_heads, len(classes)), classes=classes)
    peaks = features.new_tensor(lrs)[:, None] * (batch_size / _SCALED_TO)
    # A weight that a head does not have is one that never moves from 0.
    weight_peaks = peaks * reads[..., None]
    weight_pace, bias_pace = torch.zeros_like(heads.weight), torch.zeros_like(heads.bias)
    steps = num_steps(len(labels), batch_size=batch_size, epochs=epochs)
    for step, batch in enumerate(minibatches(len(labels), steps=steps, batch_size=batch_size, seed=seed)):
        pace = cosine(step / steps, 1.0, 0.0)
        x, y = features[batch.to(features.device)], targets[batch.to(features.device)]
        slopes = (heads.scores(x).softmax(2) - y[:, None]).div_(batch_size)
        weight_pace.mul_(_MOMENTUM).view(num_features, -1).addmm_(x.T, slopes.flatten(1))
        bias_pace.mul_(_MOMENTUM).add_(slopes.sum(0))
        heads.weight.addcmul_(weight_pace, weight_peaks, value=-pace)
        heads.bias.addcmul_(bias_pace, peaks, value=-pace)
    return heads
