"""[CLS] of the last blocks, recorded while a model runs: what a linear classifier may read beside the last one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.models.trunk import Trunk


@contextmanager
def record_cls(model: VisionTransformer, num_blocks: int) -> Iterator[list[Tensor]]:
    """Record [CLS] of the last blocks, each after the model's final norm, in every forward pass.

    A comparator in the place of the blocks says itself what [CLS] is after each of its blocks. With class
    attention, blocks before [CLS] enters have none: those of the class attention are all there are.

    Args:
        model: A ViT with [CLS], plain, with own weights, or a comparator.
        num_blocks: L, how many of the last blocks; of a model with fewer, all. 0 = none.

    Yields:
        A list to which every forward pass appends L tensors ``(B, D)``, the last block's last. The caller empties
        it between two passes. A model's final norm treats each as it treats the last block's [CLS].

    Source: facebookresearch/dinov2, models/vision_transformer.py (``get_intermediate_layers`` with ``norm``).
    """
    cls: list[Tensor] = []
    final_norm: Any = model.norm
    blocks: Any = model.blocks
    sources: list[nn.Module] = blocks.cls_sources() if isinstance(blocks, Trunk) else list(blocks)

    def record(module: nn.Module, inputs: tuple[Any, ...], tokens: Tensor) -> None:
        del module, inputs
        # All tokens, since the rows of a norm with own weights are found by position.
        cls.append(final_norm(tokens)[:, 0])

    with ExitStack() as stack:
        for source in sources[-num_blocks:] if num_blocks else ():
            stack.callback(source.register_forward_hook(record).remove)
        yield cls
