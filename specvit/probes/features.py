"""Frozen features: extracted once per split, they serve all probes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from specvit.data import Split
from specvit.data.encoded import EncodedImages
from specvit.device import Device
from specvit.models.patches import patchify
from specvit.models.trunk import Trunk
from specvit.models.vit import encode
from specvit.probes import ProbeSplit
from specvit.training.augment import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from timm.models.vision_transformer import VisionTransformer

BATCH_SIZE = 256
CPU_BATCH_SIZE = 32
"""Activations of more images fall out of a core's cache, which costs a third of the speed."""


@torch.inference_mode()
def backbone_features(
    model: VisionTransformer, split: Split, *, device: Device, num_blocks: int = 0
) -> ProbeSplit:
    """Compute the tokens of a split after the final norm.

    Args:
        model: A ViT; its mode is restored afterwards.
        split: N images of H x W pixels.
        device: Where the model is.
        num_blocks: Of how many of the last blocks [CLS] is kept besides, see ``record_cls``; 0 = none.

    Returns:
        Features in float32 on the CPU: [CLS] ``(N, D)`` and patches ``(N, P, D)``, beside the targets.
    """
    was_training = model.training
    model.eval()
    # Filled batch by batch: a list of batches and what they are joined to would live side by side.
    cls: Tensor | None = None
    patches: Tensor | None = None
    intermediate_cls: Tensor | None = None
    read: list[NDArray[np.int64]] = []
    batch_size = min(BATCH_SIZE, CPU_BATCH_SIZE) if device.torch_device.type == "cpu" else BATCH_SIZE
    with record_cls(model, num_blocks) as recorded:
        for start in range(0, len(split), batch_size):
            images, rows = split.read(slice(start, start + batch_size))
            read.append(rows)
            with device.autocast():
                tokens = encode(model, normalised(images.copy(), device))
            cls = _filled(cls, tokens.cls, start=start, num_images=len(split))
            patches = _filled(patches, tokens.patches, start=start, num_images=len(split))
            if recorded:
                intermediate_cls = _filled(
                    intermediate_cls, torch.stack(recorded, dim=1), start=start, num_images=len(split)
                )
                recorded.clear()
    model.train(was_training)
    height, width = model.patch_embed.patch_size
    grid = (split.images.shape[2] // height, split.images.shape[3] // width)
    assert cls is not None
    assert patches is not None
    features = _probe_split(_as_read(split, read), cls=cls, patches=patches, grid=grid)
    return replace(features, intermediate_cls=intermediate_cls)


def pixel_features(split: Split, *, patch_size: int) -> ProbeSplit:
    """Return pixels as features, the floor below every backbone.

    Args:
        split: N images of H x W pixels.
        patch_size: Side of a patch in pixels.

    Returns:
        In place of [CLS] the whole image ``(N, 3 H W)``, in place of patch tokens the pixels of each patch
        ``(N, P, 3 patch_size^2)``, in [0, 1].
    """
    pixels, read = split.read(slice(None))
    images = torch.from_numpy(pixels.copy()).float().div_(255)
    patches = patchify(images, (patch_size, patch_size))
    grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
    return _probe_split(_as_read(split, [read]), cls=images.flatten(1), patches=patches, grid=grid)


def subset(split: Split, indices: NDArray[np.int64]) -> Split:
    """Return some images of a split, with their targets."""
    return split.take(indices)


def _as_read(split: Split, read: list[NDArray[np.int64]]) -> Split:
    """Return the images that were read, for their targets: bad ones may have been left out for others."""
    rows = np.concatenate(read)
    return split if np.array_equal(rows, np.arange(len(split))) else split.take(rows)


def _filled(into: Tensor | None, batch: Tensor, *, start: int, num_images: int) -> Tensor:
    """Write the features of images ``start`` onwards into those of all, which the first batch makes room for."""
    if into is None:
        into = torch.empty(num_images, *batch.shape[1:])
    into[start : start + len(batch)] = batch.float().cpu()
    return into


def _probe_split(split: Split, *, cls: Tensor, patches: Tensor, grid: tuple[int, int]) -> ProbeSplit:
    # Copied: shared arrays are read-only, which torch cannot promise.
    labels, masks, depth, boxes = (
        None if array is None else torch.from_numpy(array.copy())
        for array in (split.labels, split.masks, split.depth, split.boxes)
    )
    return ProbeSplit(
        cls=cls,
        patches=patches,
        grid=grid,
        labels=labels,
        masks=masks,
        depth=depth,
        boxes=boxes,
        image_size=(split.images.shape[2], split.images.shape[3]),
        own_masks=split.images.masks if isinstance(split.images, EncodedImages) else None,
    )


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
