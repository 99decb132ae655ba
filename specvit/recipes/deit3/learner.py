"""DeiT-III's augmentation, mixing and loss. Settings and sources: ``specvit.recipes.deit3.settings``.

Shapes: B images of H x W pixels, C classes, P patches, K classes of the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.data import Dataset
from specvit.device import at_least_float32
from specvit.models.batch_slice import BatchSlice
from specvit.models.vit import draw_classifier, encode
from specvit.recipes.deit3.augment import CROPS, augment_images, augment_masks
from specvit.recipes.deit3.dense_loss import check_masks, dense_loss, mixed_class_counts
from specvit.recipes.deit3.settings import DeiT3
from specvit.seeding import derive_seed, numpy_stream
from specvit.training.augment import normalise
from specvit.training.crops import Crop
from specvit.training.learner import Batch, SlicedLearner
from specvit.training.mixing import Mixing, PatchLabels, sample_mixing


@dataclass(frozen=True)
class DeiT3Views:
    """The mixed images of a batch and what is in them.

    Attributes:
        images: ``(B, 3, H, W)``, normalised.
        present: ``(B, C)`` 1 for the classes that have a share in the image, else 0.
        patch_labels: The classes of the patches.
        counts: ``(B, P, K)`` number, or weight, of the pixels of each class of the masks; None without dense loss.
    """

    images: Tensor
    present: Tensor
    patch_labels: PatchLabels
    counts: Tensor | None


class DeiT3Learner(SlicedLearner[DeiT3Views, None]):
    """A backbone that learns to name the classes of mixed images, and with a dense loss those of their patches."""

    @classmethod
    def from_recipe(cls, recipe: DeiT3, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Self:
        """Build the learner for a data set; see ``specvit.recipes.build``.

        Raises:
            ConfigError: If there are no masks for a dense loss.
            DataError: If one of them holds an unknown class.
        """
        num_classes, num_masks = len(dataset.class_names), len(dataset.mask_names)
        if recipe.dense_weight > 0:
            check_masks(dataset.train.masks, num_classes=num_masks, field="objective.dense_weight")
        learner = cls(backbone, recipe, num_classes=num_classes, num_mask_classes=num_masks, seed=seed)
        if recipe.crop == "resized" and recipe.dense_weight == 0:  # masks lie on the squares
            learner.crops = (Crop(CROPS, dataset.train.image_size, recipe.crop_scale),)
        return learner

    def __init__(
        self,
        backbone: VisionTransformer,
        recipe: DeiT3,
        *,
        num_classes: int,
        num_mask_classes: int = 0,
        seed: int,
    ) -> None:
        """Put a classifier on [CLS], and one on patches if the recipe has a dense loss.

        Args:
            backbone: The model that trains.
            recipe: Its constants.
            num_classes: C.
            num_mask_classes: K; of no use without a dense loss.
            seed: The trial's seed, from which the classifiers are drawn.
        """
        super().__init__()
        self.recipe = recipe
        self.mixes_mirror = recipe.mixup > 0 or recipe.cutmix > 0
        self.num_classes = num_classes
        self.num_mask_classes = num_mask_classes
        self.term_weights = {"dense": recipe.dense_weight}
        self.backbone = backbone
        self.head = draw_classifier(backbone.embed_dim, num_classes, seed=derive_seed(seed, "heads"))
        self.target_classes = {"labels": num_classes}
        if recipe.dense_weight > 0:
            self.target_classes = {**self.target_classes, "masks": num_mask_classes}
            dense_seed = derive_seed(seed, "dense head")
            self.dense_head = draw_classifier(backbone.embed_dim, num_mask_classes, seed=dense_seed)

    @property
    def eval_backbone(self) -> VisionTransformer:
        """Return the backbone."""
        return self.backbone

    def draw(self, batch: Batch) -> DeiT3Views:
        """Augment and mix the images of a batch, and what lies on them."""
        if batch.labels is None:
            raise ValueError("DeiT-III learns from labels, and the batch has none")
        images = augment_images(batch, self.recipe)
        size = (images.shape[-2], images.shape[-1])
        mixing = sample_mixing(
            size,
            mixup=self.recipe.mixup,
            cutmix=self.recipe.cutmix,
            rng=numpy_stream(batch.seed, "mix", batch.step),
        )
        targets = mixing.blend(F.one_hot(batch.labels, self.num_classes).float())
        return DeiT3Views(
            images=normalise(mixing.images(images)),
            # Binarised after mixing: every class with a share in the image counts as present.
            present=(targets > 0).to(targets.dtype),
            patch_labels=mixing.patch_labels(batch.labels, size=size, patch_size=self._patch_size),
            counts=self._class_counts(batch, mixing),
        )

    def targets(self, views: DeiT3Views, parts: Sequence[BatchSlice]) -> list[None]:  # noqa: ARG002
        """Return nothing: the loss of an image does not depend on the others."""
        return [None] * len(parts)

    def slice_losses(self, views: DeiT3Views, part: BatchSlice, targets: None) -> dict[str, Tensor]:  # noqa: ARG002
        """Compute the binary cross-entropy of a part, a mean over images and classes, and the dense loss."""
        tokens = encode(self.backbone, part.of(views.images))
        logits = at_least_float32(self.head(tokens.cls))
        bce = F.binary_cross_entropy_with_logits(logits, part.of(views.present).to(logits.dtype))
        labels = views.patch_labels
        labels = replace(labels, own=part.of(labels.own), other=part.of(labels.other))
        return {
            "bce": bce,
            **self._dense_losses(views.counts, tokens.patches, part),
            **self.extra_losses(tokens.patches, labels),
        }

    def measure_slice(self, views: DeiT3Views, part: BatchSlice, targets: None) -> dict[str, Tensor]:
        """Compute the terms of a part, and how frequent the classes of its images and of its pixels are."""
        measures = super().measure_slice(views, part, targets)
        measures["_present"] = part.of(views.present).double().mean(dim=0)
        if views.counts is not None:
            total = views.counts.sum(dtype=torch.float64) * part.fraction
            measures["_pixels"] = part.of(views.counts).sum(dim=(0, 1), dtype=torch.float64) / total.clamp(min=1e-30)
        return measures

    def trivial_losses(self, averages: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the entropies of the classes' frequencies: the losses of the best answer that is always the same."""
        present = averages["_present"]
        either = torch.special.entr(present) + torch.special.entr(1 - present)
        trivial = {"bce": float(either.mean())}
        if "_pixels" in averages:
            # A batch without a counted pixel adds nothing to the loss: frequencies may add up to less than 1.
            pixels = averages["_pixels"]
            trivial["dense"] = float(torch.special.entr(pixels).sum() - torch.special.entr(pixels.sum()))
        return trivial

    @property
    def _patch_size(self) -> tuple[int, int]:
        height, width = self.backbone.patch_embed.patch_size
        return height, width

    def _class_counts(self, batch: Batch, mixing: Mixing) -> Tensor | None:
        """Count the classes of the pixels of mixed masks, patch by patch, if the recipe has a dense loss."""
        if self.recipe.dense_weight == 0:
            return None
        return mixed_class_counts(
            augment_masks(batch, self.recipe),
            mixing,
            num_classes=self.num_mask_classes,
            patch_size=self._patch_size,
        )

    def _dense_losses(self, counts: Tensor | None, patches: Tensor, part: BatchSlice) -> dict[str, Tensor]:
        """Compute the weighted dense loss of a part's patches ``(b, P, D)``, if the recipe has one."""
        if counts is None:
            return {}
        # Images differ in how many of their pixels count: the mean is over those of the whole batch.
        total = counts.sum() * part.fraction
        return {
            "dense": self.recipe.dense_weight * dense_loss(self.dense_head(patches), part.of(counts), total=total)
        }
