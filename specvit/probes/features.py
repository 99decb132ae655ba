"""Frozen features: extracted once per split, they serve all probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from specvit.probes.base import PatchFeatures
from specvit.training.augment import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from timm.models.vision_transformer import VisionTransformer

BATCH_SIZE = 256
CPU_BATCH_SIZE = 32
"""Activations of more images fall out of a core's cache, which costs a third of the speed."""


@torch.inference_mode()
def backbone_features(
    model: VisionTransformer,
    split: Split,
    *,
    device: Device,
    num_blocks: int = 0,
    patch_features: PatchFeatures = "tokens",
) -> ProbeSplit:
    """Compute the tokens of a split after the final norm.

    Args:
        model: A ViT; its mode is restored afterwards.
        split: N images of H x W pixels.
        device: Where the model is.
        num_blocks: Of how many of the last blocks [CLS] is kept besides, see ``record_cls``; 0 = none.
        patch_features: What is kept of the patches.

    Returns:
        Features in float32 on the CPU: [CLS] ``(N, D)`` and patches ``(N, P, D)``, beside the targets.
    """
    was_training = model.training
    model.eval()
    kept = _Kept(len(split), patch_features)
    batch_size = min(BATCH_SIZE, CPU_BATCH_SIZE) if device.torch_device.type == "cpu" else BATCH_SIZE
    with record_cls(model, num_blocks) as recorded:
        for start in range(0, len(split), batch_size):
            images, rows = split.read(slice(start, start + batch_size))
            with device.autocast():
                tokens = encode(model, normalised(images.copy(), device))
            kept.add(rows, cls=tokens.cls, patches=tokens.patches, blocks=list(recorded))
            recorded.clear()
    model.train(was_training)
    height, width = model.patch_embed.patch_size
    return kept.of(split, grid=(split.images.shape[2] // height, split.images.shape[3] // width))


def pixel_features(split: Split, *, patch_size: int, patch_features: PatchFeatures = "tokens") -> ProbeSplit:
    """Return pixels as features, the floor below every backbone.

    Args:
        split: N images of H x W pixels.
        patch_size: Side of a patch in pixels.
        patch_features: What is kept of the patches.

    Returns:
        In place of [CLS] the whole image ``(N, 3 H W)``, in place of patch tokens the pixels of each patch
        ``(N, P, 3 patch_size^2)``, in [0, 1].
    """
    kept = _Kept(len(split), patch_features)
    for start in range(0, len(split), BATCH_SIZE):
        pixels, rows = split.read(slice(start, start + BATCH_SIZE))
        images = torch.from_numpy(pixels.copy()).float().div_(255)
        kept.add(rows, cls=images.flatten(1), patches=patchify(images, (patch_size, patch_size)))
    return kept.of(split, grid=(split.images.shape[2] // patch_size, split.images.shape[3] // patch_size))


def subset(split: Split, indices: NDArray[np.int64]) -> Split:
    """Return some images of a split, with their targets."""
    return split.take(indices)


class _Kept:
    """The features that are kept of a split, filled batch by batch: a list of batches would lie beside them."""

    def __init__(self, num_images: int, patch_features: PatchFeatures) -> None:
        self._num_images = num_images
        self._patch_features = patch_features
        self._features: dict[str, Tensor] = {}
        self._rows: list[NDArray[np.int64]] = []
        self._start = 0

    def add(
        self, rows: NDArray[np.int64], *, cls: Tensor, patches: Tensor, blocks: Sequence[Tensor] = ()
    ) -> None:
        """Keep of the images that follow what is to be kept.

        Args:
            rows: ``(B,)`` which images of the split they are.
            cls: ``(B, D)``.
            patches: ``(B, P, D)``.
            blocks: Of each of the last blocks, [CLS] ``(B, D)``.
        """
        self._rows.append(rows)
        found = {"cls": cls, "patches": patches if self._patch_features == "tokens" else patches[:, :0]}
        if self._patch_features == "mean":
            found["patch_means"] = patches.float().mean(1)
        if blocks:
            found["intermediate_cls"] = torch.stack(list(blocks), dim=1)
        for name, batch in found.items():
            if name not in self._features:
                self._features[name] = torch.empty(self._num_images, *batch.shape[1:])
            self._features[name][self._start : self._start + len(batch)] = batch.float().cpu()
        self._start += len(rows)

    def of(self, split: Split, *, grid: tuple[int, int]) -> ProbeSplit:
        """Return the features with the targets of their images: bad ones may have been left out for others."""
        rows = np.concatenate(self._rows)
        split = split if np.array_equal(rows, np.arange(len(split))) else split.take(rows)
        # Copied: shared arrays are read-only, which torch cannot promise.
        labels, masks, depth, boxes = (
            None if array is None else torch.from_numpy(array.copy())
            for array in (split.labels, split.masks, split.depth, split.boxes)
        )
        return ProbeSplit(
            **self._features,
            labels=labels,
            masks=masks,
            depth=depth,
            boxes=boxes,
            grid=grid,
            image_size=(split.images.shape[2], split.images.shape[3]),
            own=split.images.own if isinstance(split.images, EncodedImages) else {},
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
