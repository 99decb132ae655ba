"""Clustering: do patch tokens fall into the classes of their pixels by themselves?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.scores import mean_iou, normalised_mutual_information, require_masks
from specvit.probes.selection import require_finite
from specvit.settings import PositiveInt, settings

if TYPE_CHECKING:
    from torch import Tensor


@settings
class Clustering(Probe):
    """Score k-means clusters of patch tokens against the classes of their pixels.

    Tokens at length 1 of a draw of training patches are clustered, into as many clusters as classes occur there; the
    classes themselves are not looked at. A patch of the reported split belongs to its nearest cluster.
    ``clustering_miou``: every cluster stands for a class of its own, by the one-to-one matching that has the largest
    summed intersection over union on the training patches (Hungarian algorithm). ``clustering_nmi``: mutual information
    of cluster and class, of pixel by pixel, divided by the mean of their entropies; it needs no matching. Where masks
    are known at their own size, the clusters of patches are resized to it by nearest neighbour, and so many pixels of
    the reported split count, as MaskContrast has it (segmentation/utils/kmeans_utils.py); on the training split,
    pixels are those of masks at the size of the images.

    Source: k-means of patch tokens with Hungarian matching, after Leopart (Ziegler and Asano 2022, arXiv 2204.13101)
    and MaskContrast (Van Gansbeke et al. 2021, arXiv 2102.06191). Deviations: clusters are found and matched on the
    training split, where the sources do both on the reported one, so that it chooses nothing; all channels, where the
    sources reduce them by PCA; no masks of the foreground.
    """

    name: ClassVar[str] = "clustering"
    needs: ClassVar[str] = "masks"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("clustering_miou", "clustering mIoU"),
        Metric("clustering_nmi", "clustering NMI"),
    )

    max_patches: PositiveInt = 16_384
    """Number of labelled patches to cluster, drawn by the seed if there are more, the same ones for every backbone."""
    restarts: PositiveInt = 3
    """Number of k-means++ starts, of which the one with the least distances is taken."""

    def num_copied(
        self, num_images: int, *, num_patches: int, cls_dim: int, patch_dim: int, num_classes: int | None  # noqa: ARG002
    ) -> float:
        """Return what the patches take that are clustered: as they are, at length 1, in float64, and distances."""
        return 5 * min(self.max_patches, num_images * num_patches) * patch_dim

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Cluster patches of ``train``, match clusters with classes there, and score on ``val``.

        Args:
            train: Patch tokens and masks to cluster and to match on.
            val: Patch tokens and masks to report on.
            num_classes: Number of classes of the masks.
            seed: Decides which patches are clustered, and the starts.

        Returns:
            ``clustering_miou`` and ``clustering_nmi`` in %. A class without a cluster is never predicted.

        Raises:
            DataError: If masks are missing, of a wrong size, hold an unknown class or no class at all.
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        from specvit.probes.clustering.kmeans import cluster, match_clusters, nearest
        from specvit.probes.knn import normalise_rows
        from specvit.probes.segmentation.base import (
            Training,
            chunks,
            confusion_at_own_size,
            count_classes,
            draw_patches,
            own_masks,
        )

        for part, split in ((val, "val"), (train, "train")):
            require_masks(part.masks, num_classes=num_classes, grid=part.grid, probe=self.name, split=split)
            require_finite(part.patches, probe=self.name, split=split)
        images = torch.arange(len(train))
        training = Training(split=train, fitted=images, held_out=images, num_classes=num_classes, seed=seed)
        patches, counts = draw_patches(training, images, at_most=self.max_patches)
        tokens = normalise_rows(train.patches.flatten(0, 1)[patches])
        num_clusters = min(int(counts.any(0).sum()), len(tokens))
        centres = cluster(tokens, num_clusters=num_clusters, restarts=self.restarts, seed=seed)
        class_of = match_clusters(_contingency(counts, nearest(tokens, centres), num_clusters))

        assert val.masks is not None
        pixels = counts.new_zeros(num_classes, num_clusters)
        values_per_image = max(val.masks[0].numel(), val.patches[0].numel())
        for chunk in chunks(torch.arange(len(val)), val, values_per_image=values_per_image):
            found = nearest(normalise_rows(val.patches[chunk].flatten(0, 1)), centres)
            own = own_masks(val, chunk)
            if own is None:
                more = count_classes(val.masks[chunk], val.grid, num_classes=num_classes)
                pixels += _contingency(more, found, num_clusters)
            else:  # there are no more clusters than classes
                on_grid = found.view(len(chunk), *val.grid)
                more = confusion_at_own_size(on_grid, own, num_classes=num_classes)
                pixels += more[:, :num_clusters].to(pixels.device)
        confusion = pixels.new_zeros(num_classes, num_classes).index_add_(1, class_of, pixels)
        return {"clustering_miou": mean_iou(confusion), "clustering_nmi": normalised_mutual_information(pixels)}


def _contingency(counts: Tensor, clusters: Tensor, num_clusters: int) -> Tensor:
    """Sum ``(B, K)`` numbers of pixels of patches over their ``(B,)`` clusters: ``(K, C)``, class by cluster."""
    return counts.new_zeros(num_clusters, counts.shape[1]).index_add_(0, clusters, counts).T
