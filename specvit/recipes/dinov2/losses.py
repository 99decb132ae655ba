"""The three losses of DINOv2, and the ways to turn the teacher's outputs into targets.

Shapes: B images, M masked patches, K prototypes, D channels. Source: facebookresearch/dinov2, loss/.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specvit.device import at_least_float32, full_precision
from specvit.training import collectives

KOLEO_EPS = 1e-8
CENTRE_MOMENTUM = 0.9
SINKHORN_ITERATIONS = 3


def cross_entropy(targets: Tensor, logits: Tensor, *, temperature: float) -> Tensor:
    """Return the cross-entropy of each row: ``(..., K)`` probabilities and logits -> ``(...)``."""
    return -(targets * log_softmax(logits, temperature=temperature)).sum(dim=-1)


def log_softmax(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the logs of each row's probabilities, ``(..., K)`` -> ``(..., K)``, in float32 at least."""
    return F.log_softmax(at_least_float32(logits) / temperature, dim=-1)


def dino_loss(targets: Tensor, global_logits: Tensor, local_logits: Tensor, *, temperature: float) -> Tensor:
    """Match the student's [CLS] of every view to the teacher's of every other global view.

    Args:
        targets: ``(2, B, K)`` the teacher's distributions of the two global views.
        global_logits: ``(2, B, K)`` the student's outputs for the same views.
        local_logits: ``(L, B, K)`` the student's outputs for the local views; L may be 0.
        temperature: The student's.

    Returns:
        The mean over images and over the 2 + 2 L pairs. With L = 0 the source divides their sum by 3, not by 2.
    """
    log_global = log_softmax(global_logits, temperature=temperature)
    log_local = log_softmax(local_logits, temperature=temperature)
    crossed = (targets.flip(0) * log_global).sum()
    # Summing the two targets first: one product with every local view serves both pairs.
    pairs = crossed + (targets.sum(dim=0) * log_local).sum()
    num_pairs = 2 + 2 * len(local_logits)
    return -pairs / (num_pairs * targets.shape[1])


def ibot_loss(targets: Tensor, logits: Tensor, *, weights: Tensor, num_crops: int, temperature: float) -> Tensor:
    """Match the student's masked patches to the teacher's same patches, which the teacher sees.

    Args:
        targets: ``(M, K)`` the teacher's distributions.
        logits: ``(M, K)`` the student's outputs.
        weights: ``(M,)`` 1 / (number of masked patches of the patch's crop).
        num_crops: Number of global crops of the batch, masked or not.
        temperature: The student's.

    Returns:
        The weighted sum over the number of crops.
    """
    return (cross_entropy(targets, logits, temperature=temperature) * weights).sum() / num_crops


def mask_weights(masked: Tensor) -> Tensor:
    """Return the weight of every masked patch, 1 / (masked patches of its crop): ``(C, P)`` bool -> ``(M,)``."""
    share = masked.sum(dim=1, keepdim=True).clamp(min=1).reciprocal()
    return share.expand_as(masked)[masked]


def koleo_loss(features: Tensor, *, radius: float = 0.0) -> Tensor:
    """Spread features: minus the mean log distance to the nearest neighbour, ``(B, D)`` -> scalar.

    Computed in float32 on L2-normalised features. Source: Sablayrolles et al. 2019; dinov2 loss/koleo_loss.py.

    Args:
        features: Of B images, at least 2.
        radius: Distance d below which neighbours are no longer pushed apart the harder the closer they are: the log is
            that of sqrt(d^2 + radius^2), whose gradient is at most 1 / (2 radius). 0 = the published form, whose
            gradient is 1 / d: [CLS] that are nearly equal, as at the start of a run, make it so large that it
            amplifies differences of rounding.
    """
    with full_precision(features):
        x = F.normalize(features.float(), dim=-1, eps=KOLEO_EPS)
        with torch.no_grad():
            similarity = x @ x.T
            similarity.fill_diagonal_(-1)
            nearest = similarity.argmax(dim=1)
        if radius > 0:
            squared = (x - x[nearest]).square().sum(dim=1)
            return -0.5 * torch.log(squared + radius**2).mean()
        distance = F.pairwise_distance(x, x[nearest], eps=KOLEO_EPS)
        return -torch.log(distance + KOLEO_EPS).mean()


def koleo_of_part(features: Tensor, everyone: Tensor, rows: slice, *, radius: float = 0.0) -> Tensor:
    """Compute ``koleo_loss`` of a whole batch from a part of it, of which alone gradients are known.

    Args:
        features: ``(b, D)`` the part's features.
        everyone: ``(B, D)`` the features of all images, without gradients.
        rows: Where ``features`` are in ``everyone``.
        radius: As of ``koleo_loss``.

    Returns:
        The loss of the batch. Its gradient is B / b times that of the batch, so that over parts that are averaged by
        their sizes it is that of the batch.
    """
    with torch.enable_grad():
        leaf = at_least_float32(everyone.detach()).requires_grad_()
        loss = koleo_loss(leaf, radius=radius)
        (gradient,) = torch.autograd.grad(loss, leaf)
    # Linear in the features, with the gradient of the batch; its own value is taken off again.
    linear = (features * gradient[rows]).sum() * (len(everyone) / len(features))
    return loss.detach() + linear - linear.detach()


def sinkhorn(logits: Tensor, *, temperature: float) -> Tensor:
    """Turn outputs into targets that use all prototypes equally: ``(B, K)`` -> ``(B, K)``, rows sum to 1.

    Three Sinkhorn-Knopp iterations in float32, over the rows of all processes. Source: dinov2
    loss/dino_clstoken_loss.py.
    """
    # The largest value is taken off first: the factor cancels in the iterations, and exp cannot overflow.
    scaled = logits.float() / temperature
    # There may be no row here (no patch is masked) while other processes have some.
    largest = collectives.largest(scaled.max() if len(scaled) else scaled.new_tensor(-torch.inf))
    q = torch.exp(scaled - largest)
    for _ in range(SINKHORN_ITERATIONS):
        q = q / collectives.total(q.sum(dim=0, keepdim=True)).clamp_min(1e-30)
        q = q / q.sum(dim=1, keepdim=True)
    return q


def add_logs(logs: Tensor) -> Tensor:
    """Return the logs of the sums over processes, element by element, of what ``logs`` are the logs of; -inf is 0."""
    largest = collectives.largest(logs).clamp_min(torch.finfo(logs.dtype).min)
    return collectives.total(torch.exp(logs - largest)).log() + largest


class Centre(nn.Module):
    """A running mean of the teacher's outputs, which is taken off before the softmax."""

    def __init__(self, num_prototypes: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(num_prototypes))
        self.centre: Tensor

    def forward(self, logits: Tensor, *, temperature: float) -> Tensor:
        """Turn outputs ``(B, K)`` into targets ``(B, K)`` with the centre so far."""
        return F.softmax((logits - self.centre) / temperature, dim=-1)

    def sum_of(self, logits: Tensor) -> Tensor:
        """Add up outputs ``(B, K)`` as ``move`` needs them: ``(K,)``."""
        return logits.sum(dim=0, dtype=self.centre.dtype)

    def move(self, summed: Tensor, *, num_rows: int) -> None:
        """Move the centre to the mean of the outputs of all processes, of which this one's add up to ``summed``."""
        mean = collectives.mean_of_rows(summed, num_rows=num_rows)
        if mean is not None:  # the mean of nothing, where no patch is masked, is not a number
            self.centre.lerp_(mean, 1 - CENTRE_MOMENTUM)
