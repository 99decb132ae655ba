"""Losses that keep patches from growing alike. Settings and source are in ``settings`` beside this.

Shapes: B images, P patches, D channels, C classes. All is computed in float32 or wider.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.device import at_least_float32, full_precision
from specvit.errors import ConfigError
from specvit.models.vit import draw_classifier
from specvit.seeding import derive_seed
from specvit.training.mixing import PatchLabels


def patch_cosine(patches: Tensor) -> Tensor:
    """Return the mean absolute cosine between different patches of an image.

    Args:
        patches: ``(B, P, D)``.

    Returns:
        A scalar in [0, 1], a mean over images and ordered pairs; 0 if there is but one patch.

    Source: Gong et al. 2021, section 4, patch-wise cosine loss.
    """
    num_patches = patches.shape[1]
    with full_precision(patches):
        x = F.normalize(at_least_float32(patches), dim=-1)
        cosines = (x @ x.transpose(1, 2)).abs()
    others = ~torch.eye(num_patches, dtype=torch.bool, device=x.device)
    return (cosines * others).sum() / (len(x) * max(1, num_patches * (num_patches - 1)))


def patch_contrast(first: Tensor, last: Tensor) -> Tensor:
    """Set each last-layer patch apart from the mean of the others by what was there after the first block.

    ``-log(exp(f_i . l_i) / (exp(f_i . l_i) + exp(f_i . m_i)))``, where m_i is the mean of the last-layer patches
    other than i; no gradient passes through the first layer's patches.

    Args:
        first: ``(B, P, D)`` patches after the first block.
        last: ``(B, P, D)`` patches after the last.

    Returns:
        The mean over images and patches; log 2 where all patches are alike, 0 if there is but one patch.

    Source: Gong et al. 2021, section 4, patch-wise contrastive loss. Their code (deit/models.py) takes the
    patch embedding, before positions, for the first layer, and adds the mean of a patch's neighbours as a
    further negative; the paper's formula, as here, has neither.
    """
    num_patches = last.shape[1]
    if num_patches == 1:
        return last.sum() * 0
    first, last = at_least_float32(first.detach()), at_least_float32(last)
    others = (last.sum(dim=1, keepdim=True) - last) / (num_patches - 1)
    return F.softplus((first * (others - last)).sum(dim=-1)).mean()


def patch_mixing(logits: Tensor, labels: PatchLabels) -> Tensor:
    """Return the cross-entropy of patches against the classes of the images that their pixels come from.

    Args:
        logits: ``(B, P, C)``.
        labels: The classes; a patch with pixels of two images has both, weighted by their shares of it.

    Returns:
        The mean over images and patches.

    Source: Gong et al. 2021, section 4, patch-wise mixing loss. Their code (deit/models.py) classifies the
    mean of the patches of one image; the paper's formula, as here, has a term for each patch.
    """
    log_probabilities = at_least_float32(logits).log_softmax(dim=-1)
    num_patches = logits.shape[1]

    def of(classes: Tensor) -> Tensor:
        index = classes.view(-1, 1, 1).expand(-1, num_patches, 1)
        return log_probabilities.gather(2, index).squeeze(2)

    return -(labels.share * of(labels.own) + (1 - labels.share) * of(labels.other)).mean()


class PatchRegulariser(nn.Module):
    """A loss on the first block's patches, recorded while a model trains, and on the last ones."""

    classifier: nn.Linear | None

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        cosine_weight: float,
        contrast_weight: float,
        mixing_weight: float,
        num_classes: int,
        seed: int,
    ) -> None:
        """Watch the first block of ``backbone``.

        Args:
            backbone: The model that trains, itself and not a copy of it.
            cosine_weight: Weight of ``patch_cosine``; 0 = off, as for the others.
            contrast_weight: Weight of ``patch_contrast``.
            mixing_weight: Weight of ``patch_mixing``; without it there is no classifier of patches.
            num_classes: C.
            seed: The trial's seed, from which the classifier is drawn.
        """
        super().__init__()
        self.cosine_weight, self.contrast_weight, self.mixing_weight = cosine_weight, contrast_weight, mixing_weight
        self.term_weights = {
            "patch_cosine": cosine_weight, "patch_contrast": contrast_weight, "patch_mixing": mixing_weight
        }
        self.classifier = None
        if mixing_weight > 0:
            classifier_seed = derive_seed(seed, "patch classifier")
            self.classifier = draw_classifier(backbone.embed_dim, num_classes, seed=classifier_seed)
        self.num_prefix: int = backbone.num_prefix_tokens
        self._first: Tensor | None = None
        backbone.blocks[0].register_forward_hook(lambda block, _, output: self._keep(output, training=block.training))

    def _keep(self, output: Tensor, *, training: bool) -> None:
        self._first = output if training else None

    def release_graph(self) -> None:
        """Release the first block's patches, whose last ones did not come."""
        self._first = None

    def forward(self, last: Tensor, labels: PatchLabels | None = None) -> dict[str, Tensor]:
        """Return the terms for the images that the model saw last.

        Args:
            last: ``(B, P, D)`` their patches after the final norm.
            labels: The patches' classes, or None where the recipe knows none.

        Raises:
            ConfigError: If the patches are to be classified, but have no classes.
        """
        first, self._first = self._first, None
        if first is None:
            raise RuntimeError("the backbone must have computed these patches just before, in training mode")
        terms = {}
        if self.cosine_weight > 0:
            terms["patch_cosine"] = self.cosine_weight * patch_cosine(last)
        if self.contrast_weight > 0:
            terms["patch_contrast"] = self.contrast_weight * patch_contrast(first[:, self.num_prefix :], last)
        if self.classifier is None:
            return terms
        if labels is None:
            raise ConfigError(
                f"mixing_weight must be 0 with a recipe whose patches have no classes, not {self.mixing_weight}"
            )
        mixing = self.mixing_weight * patch_mixing(self.classifier(last), labels)
        return {**terms, "patch_mixing": mixing}
