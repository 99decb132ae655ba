"""Frozen features: extracted once per split, they serve all probes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.augment import normalise
from specvit.data import Split
from specvit.device import Device
from specvit.patches import patchify
from specvit.probes import ProbeSplit
from specvit.vit import encode

BATCH_SIZE = 256


def to_unit(images: NDArray[np.uint8], device: Device) -> Tensor:
    """Move images to the device as float32 in [0, 1]."""
    return torch.from_numpy(images).to(device.torch_device).float().div_(255)


def normalised(images: NDArray[np.uint8], device: Device) -> Tensor:
    """Move images to the device as what a backbone takes: float32 ``(B, 3, H, W)``."""
    return normalise(to_unit(images, device))


@torch.inference_mode()
def backbone_features(model: VisionTransformer, split: Split, *, device: Device) -> ProbeSplit:
    """Compute the tokens of a split after the final norm.

    Args:
        model: A ViT; its mode is restored afterwards.
        split: N images of H x W pixels.
        device: Where the model is.

    Returns:
        Features in float32 on the CPU: [CLS] ``(N, D)`` and patches ``(N, P, D)``, beside the targets.
    """
    was_training = model.training
    model.eval()
    cls, patches = [], []
    for start in range(0, len(split), BATCH_SIZE):
        with device.autocast():
            tokens = encode(model, normalised(split.images[start : start + BATCH_SIZE].copy(), device))
        cls.append(tokens.cls.float().cpu())
        patches.append(tokens.patches.float().cpu())
    model.train(was_training)
    height, width = model.patch_embed.patch_size
    grid = (split.images.shape[2] // height, split.images.shape[3] // width)
    return _probe_split(split, cls=torch.cat(cls), patches=torch.cat(patches), grid=grid)


def pixel_features(split: Split, *, patch_size: int) -> ProbeSplit:
    """Take pixels for features, the floor below every backbone.

    Args:
        split: N images of H x W pixels.
        patch_size: Side of a patch in pixels.

    Returns:
        In place of [CLS] the whole image ``(N, 3 H W)``, in place of patch tokens the pixels of each patch
        ``(N, P, 3 patch_size^2)``, in [0, 1].
    """
    images = torch.from_numpy(split.images.copy()).float().div_(255)
    patches = patchify(images, (patch_size, patch_size))
    grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
    return _probe_split(split, cls=images.flatten(1), patches=patches, grid=grid)


def subset(split: Split, indices: NDArray[np.int64]) -> Split:
    """Take some images of a split, with their targets."""
    return Split(
        images=split.images[indices],
        **{name: getattr(split, name)[indices] for name in split.targets},
    )


def _probe_split(split: Split, *, cls: Tensor, patches: Tensor, grid: tuple[int, int]) -> ProbeSplit:
    return ProbeSplit(
        cls=cls,
        patches=patches,
        grid=grid,
        labels=None if split.labels is None else torch.from_numpy(split.labels.copy()),
        masks=None if split.masks is None else torch.from_numpy(split.masks.copy()),
    )
