"""Logistic regression: the solver, and the coordinates that make it fast. Probes of several targets share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MAX_ITERATIONS = 200
"""Several times what overlapping classes take. Where classes are nearly separated, a large C ends here, short
of its optimum by an amount that changes few predictions."""
WIDE = 1024
"""Features wider than this (raw pixels) are fitted in float32: half the time, and no prediction hangs on it."""
_GRADIENT_TOLERANCE = 1e-6
"""Largest entry of the gradient at the end, in coordinates in which the curvature is 1 or less."""
_LOSS_TOLERANCE = 1e-7
"""Least gain of an iteration, as a share of the loss at the start."""


@dataclass(frozen=True)
class Basis:
    """The coordinates in which a classifier is fitted: standardised, then rotated to principal axes.

    A rotation leaves an L2 penalty as it is, so it changes no prediction; but on its own axes the data's
    curvature is a diagonal, by which the solver can be scaled.

    Attributes:
        mean: ``(D,)`` means of the training features; float64, or float32 if they are wide.
        scale: ``(D,)`` their standard deviations; infinite where a feature is constant, so that it counts for
            nothing.
        axes: ``(D, R)`` orthonormal columns; R = D, or the number of images if that is smaller.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Basis:
        """Compute the basis of ``(N, D)`` training features."""
        import torch

        features = features.to(torch.float32 if features.shape[1] > WIDE else torch.float64)
        mean, scale = mean_and_scale(features)
        standardised = (features - mean) / scale
        if len(features) < features.shape[1]:
            # The weights of the optimum are combinations of the features, so their span is all it takes.
            axes = torch.linalg.svd(standardised, full_matrices=False)[2].T
        else:
            axes = torch.linalg.eigh(standardised.T @ standardised)[1]
        return cls(mean=mean, scale=scale, axes=axes)

    def rotate(self, features: Tensor) -> Tensor:
        """Map ``(N, D)`` features to ``(N, R)`` coordinates of the basis' precision."""
        return ((features.to(self.axes) - self.mean) / self.scale) @ self.axes


def mean_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and scale of features, standardised by ``(features - mean) / scale``.

    Args:
        features: ``(N, D)`` float features.

    Returns:
        ``(D,)`` means and ``(D,)`` standard deviations; infinite where a feature is constant, so that it counts
        for nothing.
    """
    import torch

    std, mean = torch.std_mean(features, dim=0, correction=0)
    # Below this the spread of a feature is the rounding of float32, not a signal to be blown up.
    return mean, std.where(std > 1e-6 * features.abs().amax(0), torch.inf)


@dataclass(frozen=True)
class Classifier:
    """A fitted logistic regression.

    Attributes:
        weight: ``(R, K)``, one column for every class seen in fitting.
        bias: ``(K,)``.
        classes: ``(K,)`` int64 the classes seen in fitting, ascending.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return the ``(N,)`` int64 likeliest classes of ``(N, R)`` features on the fit's axes."""
        return self.classes[(features @ self.weight + self.bias).argmax(1)]


def fit_path(
    features: Tensor, labels: Tensor, cs: Sequence[float], *, num_classes: int
) -> dict[float, Classifier]:
    """Fit a logistic regression for every C, each from the solution of the one before.

    Minimises sum of cross-entropies * C + 1/2 * squared norm of the weights; the bias is free of penalty. The
    softmax is over the classes that occur. Solved by full-batch L-BFGS, with every axis scaled by the
    curvature that an undecided classifier has there, which makes it fast on principal axes.

    Args:
        features: ``(N, D)`` float64 or float32, preferably on principal axes.
        labels: ``(N,)`` int64.
        cs: The values of C, best in ascending order.
        num_classes: Number of classes.

    Returns:
        The classifier of every C.
    """
    counts = labels.bincount(minlength=num_classes)
    classes = counts.nonzero().flatten()
    prior = counts[classes] / len(labels)
    targets = (classes[:, None] == labels).to(features)
    curvature = features.square().mean(0) / len(classes)
    path: dict[float, Classifier] = {}
    weight, bias = features.new_zeros(features.shape[1], len(classes)), prior.to(features).log()
    for c in cs:
        decay = 1 / (c * len(labels))
        units = (curvature + decay).rsqrt()[:, None]
        weight, bias = _minimise(features, targets, weight, bias, decay=decay, units=units)
        path[c] = Classifier(weight=weight, bias=bias, classes=classes)
    return path


def _minimise(
    features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, decay: float, units: Tensor
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + decay / 2 * squared norm; ``weight / units`` is what the solver moves.

    ``targets`` are ``(K, N)``. Beside them no more than two arrays of that size are held at a time.
    """
    import torch

    # Classes are rows here: products and softmax over a few long rows take a quarter of the time of those over
    # many short ones.
    point = torch.cat([(weight / units).T, bias[:, None]], dim=1)
    scaled, units = features * units.T, units.T

    def loss_and_gradient() -> Tensor:
        log_shares = torch.addmm(point[:, -1:], point[:, :-1], scaled.T).log_softmax(0)
        weights = point[:, :-1] * units
        loss = decay / 2 * weights.square().sum() - (log_shares * targets).sum() / len(scaled)
        residuals = log_shares.exp_().sub_(targets).div_(len(scaled))
        slope = residuals @ scaled + decay * weights * units
        point.grad = torch.cat([slope, residuals.sum(1, keepdim=True)], dim=1)
        return loss

    solver = torch.optim.LBFGS(
        [point],
        max_iter=_MAX_ITERATIONS,
        max_eval=2 * _MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=_LOSS_TOLERANCE * float(loss_and_gradient()),
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    solver.step(loss_and_gradient)  # type: ignore[no-untyped-call]
    return (point[:, :-1] * units).T.contiguous(), point[:, -1].clone()
