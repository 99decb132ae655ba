"""Depth from patch tokens, by one of two protocols."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from specvit.errors import DataError
from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.protocols import resolve_protocol
from specvit.probes.scores import has_depth, require_depth
from specvit.probes.selection import best, require_finite, require_fitted, split_off_tenth
from specvit.settings import Flag, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from specvit.probes.depth.base import Fitter, Limits, Task

Protocol = Literal["ridge", "bins"]
NumBins = Annotated[int, Field(strict=True, ge=2)]

DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "ridge": {"penalties": (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)},
        "bins": {"lrs": (1e-3, 1e-2, 0.1), "num_bins": 256, "steps": 500, "batch_size": 16},
    }
)
"""The fields of every protocol, with the values that they have where none are given; the first one lists the
candidates of the hyper-parameter that is chosen."""


@settings
class Depth(Probe):
    """Predict the depth of every pixel from the token of its patch.

    ``ridge`` is a linear map to depth in closed form, the one for sweeps: it takes a second. ``bins`` is
    the trained head of published tables. Each says in its module of ``depth_estimators`` where it deviates from
    its source. Either way depth is predicted on the patch grid, kept within limits and interpolated to pixels
    bilinearly. A field that is None takes the protocol's default if it belongs to the protocol, and stays None
    if it does not.

    Whichever the protocol, the metrics have the same names: numbers of two protocols do not compare, so a table
    holds those of one, which is a setting of the sweep. Each metric is computed per image, over its measured
    pixels, then averaged over the images that have one. With ``keep: encoded`` these are the pixels of the depth map's
    file; what is fitted to is depth at the size of the images all the same.

    Source: DINOv2 (arXiv 2304.07193, section 7.4) and DINOv3 (facebookresearch/dinov3, eval/depth). Deviations:
    the hyper-parameter is chosen on a held-out tenth of the training split; features are those of the last layer
    and of one view, no flip is averaged in; depth is that of one square of an image, the whole one squashed or, with
    ``keep: encoded``, its centre.
    """

    name: ClassVar[str] = "depth"
    needs: ClassVar[str] = "depth"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("depth_rmse", "depth RMSE", unit="m", higher_is_better=False),
        Metric("depth_abs_rel", "depth AbsRel", higher_is_better=False),
        Metric("depth_delta1", "depth delta1"),
    )

    protocol: Protocol = "ridge"
    """``ridge``: ridge regression of depth. ``bins``: a linear head, trained, that spreads a
    pixel over depth bins, whose mean is the depth."""
    with_cls: Flag = False
    """Whether [CLS] stands beside each patch token, as in DINOv2. Only if it is as wide as a patch token: raw pixels
    have none, what stands for it is the whole image."""
    min_depth_m: PositiveFloat | None = None
    """Least depth that is predicted, in metres. None = the least one measured in the training split."""
    max_depth_m: PositiveFloat | None = None
    """Largest depth that is predicted, in metres. None = the largest one measured in the training split. Which
    pixels count is for the data source to say."""
    penalties: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``ridge``: weights of the squared norm of the map against the mean squared error, to choose from by
    RMSE; of equals the first is taken. Default: 1 to 1e-5 by tens."""
    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``bins``: peak learning rates to choose from by RMSE; of equals the first is taken. Default: 1e-3,
    1e-2 and 0.1, more than the source's 1e-4 since steps are few."""
    num_bins: NumBins | None = None
    """For ``bins``: number of depth bins, spread evenly over the limits. Default: 256."""
    steps: PositiveInt | None = None
    """For ``bins``: number of optimizer steps. Default: 500; the source's is 38 400."""
    batch_size: PositiveInt | None = None
    """For ``bins``: images a step. Default: 16."""

    @model_validator(mode="after")
    def _check(self) -> Depth:
        low, high = self.min_depth_m, self.max_depth_m
        if low is not None and high is not None and low >= high:
            raise ValueError(f"min_depth_m must be below max_depth_m = {high:g}, not {low:g}")
        resolve_protocol(self, self.protocol, DEFAULTS)
        return self

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int  # noqa: ARG002
    ) -> dict[str, float]:
        """Fit on all of ``train``, with the hyper-parameter chosen on a tenth of it, and score on ``val``.

        Args:
            train: Features and depth to fit on.
            val: Features and depth to report on.
            num_classes: Not used: depth has no classes.
            seed: Decides which tenth of ``train`` is held out, and what a protocol draws.

        Returns:
            ``depth_rmse`` in metres, ``depth_abs_rel`` and ``depth_delta1`` in %.

        Raises:
            DataError: If depth is missing, of a wrong size, or measured nowhere, or if it leaves no range
                between the limits.
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        from specvit.probes.depth.base import score

        reported = self._task(val, split="val")
        fitter = self._fitter(train, seed=seed)
        estimator = fitter.fit(torch.arange(len(train)), [self._choose(fitter, train, seed=seed)])
        (scores,) = score(estimator, reported, torch.arange(len(val)))
        require_fitted(torch.tensor([scores.rmse, scores.abs_rel]), probe=self.name)
        return {"depth_rmse": scores.rmse, "depth_abs_rel": scores.abs_rel, "depth_delta1": scores.delta1}

    def _choose(self, fitter: Fitter, train: ProbeSplit, *, seed: int) -> float:
        """Return the candidate with the least RMSE on the tenth; the first if a part has no measured pixel."""
        from specvit.probes.depth.base import score

        candidates: tuple[float, ...] = getattr(self, next(iter(DEFAULTS[self.protocol])))
        parts = split_off_tenth(len(train), train.labels, seed=seed)
        is_usable = has_depth(fitter.task.depth).cpu()
        can_choose = all(bool(is_usable[part].any()) for part in parts)
        if len(candidates) == 1 or not can_choose:
            return candidates[0]
        fitted, held_out = parts
        scores = score(fitter.fit(fitted, candidates), fitter.task, held_out)
        losses = {c: s.rmse if math.isfinite(s.rmse) else math.inf for c, s in zip(candidates, scores, strict=True)}
        return best({candidate: -loss for candidate, loss in losses.items()})

    def _fitter(self, train: ProbeSplit, *, seed: int) -> Fitter:
        """Build the fitter of the protocol; the candidates are not among its settings."""
        from specvit.probes.depth.bins import BinsFitter
        from specvit.probes.depth.ridge import RidgeFitter

        task = self._task(train, split="train")
        limits = self._limits(task)
        if self.protocol == "ridge":
            return RidgeFitter(task, limits, seed=seed)
        assert self.num_bins is not None
        assert self.steps is not None
        assert self.batch_size is not None
        return BinsFitter(
            task, limits, seed=seed, num_bins=self.num_bins, steps=self.steps, batch_size=self.batch_size
        )

    def _task(self, part: ProbeSplit, *, split: str) -> Task:
        from specvit.probes.depth.base import Task

        require_depth(part.depth, grid=part.grid, probe=self.name, split=split)
        require_finite(part.patches, probe=self.name, split=split)
        task = Task(split=part, with_cls=self.with_cls)
        if task.reads_cls:
            require_finite(part.cls, probe=self.name, split=split)
        return task

    def _limits(self, task: Task) -> Limits:
        """Return the limits that are set, and for the others what is measured."""
        from specvit.probes.depth.base import Limits, measured_range

        measured = measured_range(task.depth)
        low = measured.low_m if self.min_depth_m is None else self.min_depth_m
        high = measured.high_m if self.max_depth_m is None else self.max_depth_m
        if low > high:
            raise DataError(
                f"probe {self.name!r}: depth must be measured between the limits, but train depth is in "
                f"[{measured.low_m:g}, {measured.high_m:g}] m and the limits are [{low:g}, {high:g}] m"
            )
        return Limits(low, high)
