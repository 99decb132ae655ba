"""DeiT-III's classifier and losses. Settings and sources: ``specvit.objectives.deit3``.

Shapes: B images of H x W pixels, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.augment import normalise
from specvit.learners.base import Batch, Learner
from specvit.learners.deit3_augment import augment_images, augment_masks
from specvit.learners.dense_loss import dense_loss, mixed_class_counts
from specvit.mixing import Mixing, sample_mixing
from specvit.objectives.deit3 import DeiT3
from specvit.seeding import derive_seed, numpy_stream
from specvit.vit import encode


class DeiT3Learner(Learner):
    """Train a backbone to name the classes of mixed images, and with a dense loss those of their patches."""

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
            num_mask_classes: Number of classes of the masks; of no use without a dense loss.
            seed: The trial's seed, from which the classifiers are drawn.
        """
        super().__init__()
        self.recipe = recipe
        self.num_classes = num_classes
        self.num_mask_classes = num_mask_classes
        self.backbone = backbone
        self.head = _classifier(backbone.embed_dim, num_classes, seed=derive_seed(seed, "heads"))
        if recipe.dense_weight > 0:
            dense_seed = derive_seed(seed, "dense head")
            self.dense_head = _classifier(backbone.embed_dim, num_mask_classes, seed=dense_seed)

    @property
    def probed(self) -> VisionTransformer:
        """Return the backbone."""
        return self.backbone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the binary cross-entropy of a batch, a mean over images and classes, and the dense loss."""
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
        tokens = encode(self.backbone, normalise(mixing.images(images)))
        logits = self.head(tokens.cls)
        # Binarised after mixing: every class with a share in the image counts as present.
        bce = F.binary_cross_entropy_with_logits(logits, (targets > 0).to(logits.dtype))
        patch_labels = mixing.patch_labels(batch.labels, size=size, patch_size=self._patch_size)
        return {
            "bce": bce,
            **self._dense_losses(batch, tokens.patches, mixing),
            **self.extra_losses(tokens.patches, patch_labels),
        }

    @property
    def _patch_size(self) -> tuple[int, int]:
        height, width = self.backbone.patch_embed.patch_size
        return height, width

    def _dense_losses(self, batch: Batch, patches: Tensor, mixing: Mixing) -> dict[str, Tensor]:
        """Compute the weighted dense loss of patches ``(B, P, D)``, if the recipe has one."""
        if self.recipe.dense_weight == 0:
            return {}
        counts = mixed_class_counts(
            augment_masks(batch, self.recipe),
            mixing,
            num_classes=self.num_mask_classes,
            patch_size=self._patch_size,
        )
        return {"dense": self.recipe.dense_weight * dense_loss(self.dense_head(patches), counts)}


def _classifier(width: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Draw a linear classifier as timm does: truncated normal, std 0.02, bias 0."""
    with torch.random.fork_rng(devices=[]):
        classifier = nn.Linear(width, num_classes)
        torch.manual_seed(seed)
        nn.init.trunc_normal_(classifier.weight, std=0.02)
    nn.init.zeros_(classifier.bias)
    return classifier
