"""In-context segmentation: patches take the labels of the patches that they are nearest to, and nothing is fitted."""

from __future__ import annotations

from typing import ClassVar

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.scores import require_masks
from specvit.probes.selection import require_finite
from specvit.settings import PositiveFloat, PositiveInt, settings


@settings
class InContext(Probe):
    """Segment by soft nearest neighbours in a memory of labelled training patches.

    No weight is fitted and no hyper-parameter chosen: ``k`` and ``temperature`` are the published ones.

    Source: Hummingbird (Balazevic et al. 2023, arXiv 2306.01667); what the paper leaves open is as in
    vpariza/open-hummingbird-eval, hbird/hbird_eval.py: 30 neighbours, temperature 0.02, tokens at length 1, images of
    512 px (504 for patches of 14), memories of 102,400, 1,024,000 and 10,240,000 patches, the last being the paper's.
    Deviations: neighbours are exact, where the source searches by ScaNN or faiss; images enter the memory once and as
    they are, where the source enters one or more random crops of each, with jittered colours; an ignored pixel has no
    label, where the source's counts for class 0; a memory is at most ``memory_size``, by default a thousandth of the
    paper's.
    """

    name: ClassVar[str] = "in_context"
    needs: ClassVar[str] = "masks"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("in_context_miou", "in-context mIoU"),)

    memory_size: PositiveInt = 10_240
    """Largest number of patches in the memory, the same number of every image, those first whose classes are rare in
    their image. Published: 10 240 000. A patch takes 4 bytes a channel and a class: 10 240 000 of ViT-S and ADE20K
    22 GB; looking up Q patches of D channels in M takes 2 Q M D operations of a CPU."""
    k: PositiveInt = 30
    """Number of neighbours that a patch takes its label from; of a smaller memory, all."""
    temperature: PositiveFloat = 0.02
    """A neighbour weighs exp(cosine / temperature)."""

    def num_copied(
        self, num_images: int, *, num_patches: int, cls_dim: int, patch_dim: int, num_classes: int | None  # noqa: ARG002
    ) -> float:
        """Return what the memory takes without its labels, and the tokens that it is made of."""
        return 2 * min(self.memory_size, num_images * num_patches) * patch_dim

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Fill the memory from ``train``, and score on ``val``.

        Args:
            train: Patch tokens and masks to remember.
            val: Patch tokens and masks to report on.
            num_classes: Number of classes of the masks.
            seed: Decides which patches the memory holds; they are the same for every backbone.

        Returns:
            ``in_context_miou`` in %. A class that the memory lacks is never predicted.

        Raises:
            DataError: If masks are missing, of a wrong size, hold an unknown class or no class at all.
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        from specvit.probes.in_context.memory import Memory, draw_memory
        from specvit.probes.segmentation.base import score

        for part, split in ((val, "val"), (train, "train")):
            require_masks(part.masks, num_classes=num_classes, grid=part.grid, probe=self.name, split=split)
            require_finite(part.patches, probe=self.name, split=split)
        patches, labels = draw_memory(train, at_most=self.memory_size, num_classes=num_classes, seed=seed)
        memory = Memory.of(train.patches.flatten(0, 1)[patches], labels, k=self.k, temperature=self.temperature)
        (miou,) = score(memory, val, torch.arange(len(val)), num_classes=num_classes)
        return {"in_context_miou": miou}
