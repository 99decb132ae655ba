"""CaiT: [CLS] enters after the self-attention blocks and reads the patches by class attention.

Source: Touvron et al. 2021, "Going deeper with Image Transformers" (arXiv 2103.17239), section 3;
facebookresearch/deit, cait_models.py. Deviations: no talking heads, and layer scales only where the plain model
has them, so that the class attention is all that differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.comparators.base import Comparator
from specvit.models.parameter_counts import count_block_parameters
from specvit.models.scales import Scale
from specvit.settings import PositiveInt, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


@settings
class ClassAttention(Comparator):
    """CaiT: class-attention blocks at the end, and no [CLS] in the blocks before; registers stay with the patches."""

    name: ClassVar[str] = "class_attention"
    comparator: Literal["class_attention"] = "class_attention"

    num_blocks: PositiveInt = 2
    """Class-attention blocks after the backbone's own; 2 in the paper."""

    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
        """Append the class-attention blocks, where [CLS] enters."""
        from specvit.comparators.class_attention.trunk import ClassAttentionTrunk

        return ClassAttentionTrunk.install(plain, seed=seed, num_blocks=self.num_blocks)

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Count the appended blocks; q, k and v are apart, but as many weights as a plain block's."""
        return self.num_blocks * count_block_parameters(scale.width, layer_scale=layer_scale)
