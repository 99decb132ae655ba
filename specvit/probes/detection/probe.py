"""Detection: a small anchor-free head on the grid of frozen patch tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.scores import require_boxes
from specvit.probes.selection import best, require_finite, require_fitted, split_off_tenth
from specvit.settings import PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from specvit.probes.detection.boxes import Cells
    from specvit.probes.detection.fitting import HeadFit


@settings
class Detection(Probe):
    """Detect objects by a one-stage head on the last layer's patch tokens, one cell a patch.

    Channels standardised over the training split, a 1x1 convolution and one 3x3 convolution each for classes and
    boxes; focal, GIoU and IoU-fit losses; per-class non-maximum suppression. The head learns boxes in whole pixels of
    the square image. AP is that of these boxes, or with ``keep: encoded`` of those of the image's file, in its own
    pixels and not rounded.

    Source: the protocol of dense probes (frozen backbone, last layer) with FCOS (Tian et al., arXiv
    2006.09214) as head. Deviations: one level of the size of the patch grid, one convolution a branch, a few
    hundred steps; of an image one square is looked at, the whole one squashed or, with ``keep: encoded``, the centre,
    where what remains of an object counts as one; AP leaves crowds out, and objects without a pixel in the square.
    Further ones in ``specvit.probes.detection``.

    Noisier than the other probes, and a secondary figure: after a short pretraining at 32 px the extent of an
    object, not its class, is what tokens fail to tell, and trained backbones stay close to the floors.
    """

    name: ClassVar[str] = "detection"
    needs: ClassVar[str] = "boxes"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("ap", "AP"), Metric("ap50", "AP50"))

    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (3e-3, 1e-2, 3e-2)
    """Learning rates of AdamW, to choose from; of equals the first is taken."""
    steps: PositiveInt = 400
    """Steps that a head is fitted for."""
    batch_size: PositiveInt = 32
    """Images a step; all of them, if there are fewer."""
    width: PositiveInt = 48
    """Channels of the head."""

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with the learning rate chosen on a tenth of it, and score on ``val``.

        Args:
            train: Patch tokens and boxes to fit on.
            val: Patch tokens and boxes to report on.
            num_classes: Number of classes of the boxes.
            seed: Decides which tenth of ``train`` is held out, the initial weights and the batches.

        Returns:
            ``ap`` and ``ap50`` in %.

        Raises:
            DataError: If boxes are missing, lie outside of the image, hold an unknown class, or a split has none.
            DivergenceError: If a feature, or a weight of the fitted head, is not a finite number.
        """
        import torch

        from specvit.probes.detection.average_precision import score_detections
        from specvit.probes.detection.decoding import detect

        cells = self._cells(val, num_classes=num_classes, split="val")
        fit = self._prepare(train, num_classes=num_classes, seed=seed)
        head = fit.run(torch.arange(len(train)), lr=self._choose(fit, train, seed=seed))
        require_fitted(*head.parameters(), probe=self.name)
        images = torch.arange(len(val))
        score = score_detections(detect(head, val.patches, images, cells), val, images, num_classes=num_classes)
        return {"ap": score.ap, "ap50": score.ap50}

    def _choose(self, fit: HeadFit, train: ProbeSplit, *, seed: int) -> float:
        """Return the learning rate with the best AP on the tenth; the first if a part has no box."""
        from specvit.probes.detection.average_precision import score_detections
        from specvit.probes.detection.decoding import detect

        assert train.boxes is not None
        fitted, held_out = split_off_tenth(len(train), train.labels, seed=seed)
        has_boxes = ((train.boxes[part][..., 4] >= 0).any() for part in (fitted, held_out))
        if len(self.lrs) == 1 or not all(has_boxes):
            return self.lrs[0]
        scores: dict[float, float] = {}
        for lr in self.lrs:
            found = detect(fit.run(fitted, lr=lr), train.patches, held_out, fit.cells)
            scores[lr] = score_detections(found, train, held_out, num_classes=fit.num_classes).ap
        return best(scores)

    def _prepare(self, train: ProbeSplit, *, num_classes: int, seed: int) -> HeadFit:
        from specvit.probes.detection.fitting import HeadFit
        from specvit.probes.detection.targets import assign

        cells = self._cells(train, num_classes=num_classes, split="train")
        assert train.boxes is not None
        return HeadFit(
            tokens=train.patches,
            targets=assign(train.boxes, cells),
            cells=cells,
            num_classes=num_classes,
            width=self.width,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
        )

    def _cells(self, part: ProbeSplit, *, num_classes: int, split: str) -> Cells:
        """Check a split, and return the cells of its images."""
        from specvit.probes.detection.boxes import Cells

        image_size = require_boxes(
            part.boxes, num_classes=num_classes, image_size=part.image_size, probe=self.name, split=split
        )
        require_finite(part.patches, probe=self.name, split=split)
        return Cells(grid=part.grid, image_size=image_size)
