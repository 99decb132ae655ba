"""From the settings of a comparator to the changed backbone and its further losses: the one place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from specvit.comparators.base import Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.class_attention.trunk import ClassAttentionTrunk
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.jumbo.trunk import JumboTrunk
from specvit.comparators.patch_diversification.regulariser import PatchRegulariser
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.comparators.token_pooling.trunk import TokenPoolingTrunk
from specvit.plugins import find_builder


def _attend_late(comparator: ClassAttention, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
    return ClassAttentionTrunk.install(plain, seed=seed, num_blocks=comparator.num_blocks)


def _widen_cls(comparator: Jumbo, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
    return JumboTrunk.install(plain, seed=seed, slots=comparator.slots, hidden=comparator.hidden(plain.embed_dim))


def _pool(comparator: TokenPooling, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
    num_before = comparator.num_before(len(plain.blocks))
    shape = {"num_before": num_before, "keep": comparator.keep, "iterations": comparator.iterations}
    return TokenPoolingTrunk.install(plain, seed=seed, **shape)


def _leave(_: PatchDiversification, plain: VisionTransformer, *, seed: int) -> VisionTransformer:  # noqa: ARG001
    return plain


CHANGES: Mapping[type[Comparator], Callable[..., VisionTransformer]] = {
    ClassAttention: _attend_late,
    Jumbo: _widen_cls,
    TokenPooling: _pool,
    PatchDiversification: _leave,
}
"""What changes the plain model, by the comparator, and for those that derive from it."""


def apply_comparator(comparator: Comparator, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
    """Turn a plain ViT into a comparator, in place; the weights that both have stay as they are.

    Args:
        comparator: One of ours, or one of another package, which changes the model itself.
        plain: timm's model as ``build_vit`` makes it, without own weights.
        seed: The trial's seed; what is drawn anew comes from a stream of its own.

    Returns:
        ``plain``, which ``specvit.models.vit.encode`` takes as before.
    """
    builder = find_builder(type(comparator), CHANGES, base=Comparator)
    return builder(comparator, plain, seed=seed)


def build_regulariser(
    comparator: Comparator, backbone: VisionTransformer, *, num_classes: int, seed: int
) -> nn.Module | None:
    """Build what adds terms to the recipe's loss while ``backbone`` trains; None = the comparator adds none.

    Args:
        comparator: One of ours, or one of another package.
        backbone: The model that trains, itself and not a copy of it.
        num_classes: Number of classes of the labels.
        seed: The trial's seed.

    Returns:
        A module that turns patches and their labels into terms (see ``Learner.extra_losses``), or None.
    """
    if isinstance(comparator, PatchDiversification):
        return PatchRegulariser(backbone, comparator, num_classes=num_classes, seed=seed)
    return comparator.build_regulariser(backbone, num_classes=num_classes, seed=seed)
