"""Token pooling: half-way up, patches give way to medoids of themselves.

Source: Marin et al. 2021, "Token Pooling in Vision Transformers" (arXiv 2110.03860), sections 3 and 4 (weighted
k-medoids). Deviations: tokens are pooled once, not after every block; at the end each patch position takes its
medoid's token, so that dense probes find a token everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from specvit.comparators.base import Comparator
from specvit.models.scales import Scale
from specvit.settings import NonNegativeInt, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


@settings
class TokenPooling(Comparator):
    """A share of the patches, chosen by k-medoids, weighted by the attention that they receive."""

    name: ClassVar[str] = "token_pooling"
    comparator: Literal["token_pooling"] = "token_pooling"

    after: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.5
    """Share of the blocks that still see all patches; rounded, at least one block before and one after."""
    keep: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    """Share of the patches that are kept; rounded, at least one. [CLS] and registers always stay."""
    iterations: NonNegativeInt = 3
    """Rounds of assigning patches to medoids and moving the medoids; 0 keeps the most attended patches."""

    def num_before(self, depth: int) -> int:
        """Return how many of ``depth`` blocks still see all patches."""
        return max(1, min(depth - 1, round(self.after * depth)))

    def effect(self, depth: int) -> object:
        """Return after which block it pools, what it keeps, and how often it assigns."""
        return self.name, self.num_before(depth), self.keep, self.iterations

    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
        """Pool the patches between two of the blocks."""
        from specvit.comparators.token_pooling.trunk import TokenPoolingTrunk

        num_before = self.num_before(len(plain.blocks))
        shape = {"num_before": num_before, "keep": self.keep, "iterations": self.iterations}
        return TokenPoolingTrunk.install(plain, seed=seed, **shape)

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Return 0."""
        del scale, layer_scale
        return 0
