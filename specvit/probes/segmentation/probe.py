"""Segmentation from patch tokens, by one of four protocols."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.protocols import resolve_protocol
from specvit.probes.scores import require_masks
from specvit.probes.selection import best, require_finite, split_off_tenth
from specvit.settings import Fraction, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from specvit.probes.segmentation.base import Fitter, Training

Protocol = Literal["ridge", "logistic", "linear", "knn"]

DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "ridge": {"penalties": (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5), "balance": 0.75, "upsample": "bilinear"},
        "logistic": {
            "cs": (1e-6, 3.7e-5, 1.4e-3, 0.052, 1.9, 72.0, 2.7e3, 1e5),
            "max_patches": 65_536,
            "upsample": "nearest",
        },
        "linear": {"lrs": (1e-3, 1e-2), "steps": 1000, "batch_size": 16, "dropout": 0.1, "upsample": "bilinear"},
        "knn": {"ks": (1, 3, 10, 30), "max_patches": 65_536},
    }
)
"""The fields of every protocol, with the values that they have where none are given; the first one lists the
candidates of the hyper-parameter that is chosen."""


@settings
class Segmentation(Probe):
    """Segment with what a protocol fits to patch tokens and the classes of their pixels.

    ``ridge`` is a linear map in closed form, the one for sweeps: it takes a second. The others are those of
    published tables: ``logistic`` and ``knn`` of CAPI, ``linear`` of DINOv3; each says in its module of
    ``segmenters`` where it deviates. A field that is None takes the protocol's default if it belongs to the
    protocol, and stays None if it does not.

    Deviations in all protocols: one square of an image is segmented, the whole one squashed or, with ``keep: encoded``,
    its centre, where DINOv2 and DINOv3 slide windows over it; and training images are not scaled and cropped at random.

    Whichever the protocol, the metric is ``miou``: numbers of two protocols do not compare, so a table holds
    those of one, which is a setting of the sweep.
    """

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[str] = "masks"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("miou", "mIoU"),)
    at_rungs: ClassVar[bool] = True

    protocol: Protocol = "ridge"
    """``ridge``: ridge regression of every pixel's one-hot class. ``logistic``: logistic regression of a patch's
    majority class. ``linear``: batch norm and a 1x1 convolution, trained on the pixels' cross-entropy.
    ``knn``: the nearest training patches vote pixel by pixel."""
    penalties: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``ridge``: weights of the squared norm of the map against the mean squared error, to choose from; of
    equals the first is taken. Default: 1 to 1e-5 by tens."""
    balance: Fraction | None = None
    """For ``ridge``: a pixel weighs the frequency of its class to the power of minus ``balance``. 0 = all pixels
    alike, where rare classes are hardly ever predicted; 1 = all classes alike, where they are predicted too
    often. Intersection over union pays for both errors, which would suggest 0.5; but least squares shrinks the
    scores of rare classes further, so the default is higher, 0.75."""
    cs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``logistic``: weights C of the summed cross-entropy against half the squared norm of the weights, to
    choose from; of equals the first is taken. Default: the source's 8 from 1e-6 to 1e5, to two digits."""
    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``linear``: peak learning rates to choose from; of equals the first is taken. Default: 1e-3 (the
    source's) and 1e-2."""
    steps: PositiveInt | None = None
    """For ``linear``: number of optimizer steps. Default: 1000; the source's is 40 000."""
    batch_size: PositiveInt | None = None
    """For ``linear``: images a step. Default: 16."""
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] | None = None
    """For ``linear``: share of the channels that are dropped, image by image, while the head is trained.
    Default: 0.1."""
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """For ``knn``: numbers of neighbours to choose from; of equals the first is taken. Default: 1, 3, 10, 30."""
    max_patches: PositiveInt | None = None
    """For ``logistic`` and ``knn``: number of labelled patches to fit to, drawn by the seed if there are more.
    Default: 65 536, at which a probe takes seconds to a minute of a core."""
    upsample: Literal["bilinear", "nearest"] | None = None
    """For all but ``knn``: how scores get from the patch grid to pixels. Default: ``bilinear``, but for
    ``logistic``, as published, ``nearest``."""

    @model_validator(mode="after")
    def _resolve(self) -> Segmentation:
        resolve_protocol(self, self.protocol, DEFAULTS)
        return self

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with the hyper-parameter chosen on a tenth of it, and score on ``val``.

        Args:
            train: Patch tokens and masks to fit on.
            val: Patch tokens and masks to report on.
            num_classes: Number of classes of the masks.
            seed: Decides which tenth of ``train`` is held out, and what a protocol draws.

        Returns:
            ``miou`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If masks are missing, of a wrong size, hold an unknown class or no class at all.
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        from specvit.probes.segmentation.base import score

        self._check(val, num_classes=num_classes, split="val")
        training = self._training(train, num_classes=num_classes, seed=seed)
        fitter = self._fitter(training)
        segmenter = fitter.fit_whole(self._choose(fitter, training))
        (miou,) = score(segmenter, val, torch.arange(len(val)), num_classes=num_classes)
        return {"miou": miou}

    def _choose(self, fitter: Fitter, training: Training) -> float:
        """Return the candidate with the best mIoU on the tenth; the first if a part has no labelled pixel."""
        from specvit.probes.segmentation.base import score

        candidates: tuple[float, ...] = getattr(self, next(iter(DEFAULTS[self.protocol])))
        if len(candidates) == 1 or not training.can_choose:
            return candidates[0]
        segmenter = fitter.fit_part(candidates)
        mious = score(segmenter, training.split, training.held_out, num_classes=training.num_classes)
        return best(dict(zip(candidates, mious, strict=True)))

    def _training(self, train: ProbeSplit, *, num_classes: int, seed: int) -> Training:
        from specvit.probes.segmentation.base import Training

        self._check(train, num_classes=num_classes, split="train")
        fitted, held_out = split_off_tenth(len(train), train.labels, seed=seed)
        return Training(split=train, fitted=fitted, held_out=held_out, num_classes=num_classes, seed=seed)

    def _fitter(self, training: Training) -> Fitter:
        """Build the fitter of the protocol; the candidates are not among its settings."""
        from specvit.probes.segmentation.fitters import FITTERS

        _, *names = DEFAULTS[self.protocol]
        return FITTERS[self.protocol](training, **{name: getattr(self, name) for name in names})

    def _check(self, part: ProbeSplit, *, num_classes: int, split: str) -> None:
        require_masks(part.masks, num_classes=num_classes, grid=part.grid, probe=self.name, split=split)
        require_finite(part.patches, probe=self.name, split=split)
