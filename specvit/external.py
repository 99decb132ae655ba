"""Backbones that were trained elsewhere: files of ``save_model``, and plain ViTs of timm's by their weights.

A plain ViT is built on the grid that its weights have positions for, and resamples these to the grid of the images, as
timm does (``dynamic_img_size``): once, whatever the size of the images. Heads and what else no token depends on are
left out, and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import is_model_in_modules, load_model_config_from_hf
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from specvit.checkpoints import is_saved_model, load_model
from specvit.config import ExternalBackbone
from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.messages import did_you_mean
from specvit.models.config import BACKBONE_OPTIONS
from specvit.models.pretrained_weights import HUB_PREFIX, find_checkpoint, find_pretrained, read_weights
from specvit.models.vit import num_parameters
from specvit.training.augment import MEAN, STD

_MODULES = ("vision_transformer", "deit")
"""Where timm has the ViTs whose tokens the probes can read."""
_BESIDE_TOKENS = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.")
"""Weights that no token depends on."""
_EXAMPLE = "vit_small_patch16_224"


@dataclass(frozen=True)
class InspectedBackbone:
    """A backbone that was looked at before it is used.

    Attributes:
        settings: It, with its hash, its architecture and what its images are normalised by.
        num_parameters: Its parameters.
        patch_size: Side of its patches, in pixels.
        image_size: Side of the images that it takes, in pixels; None = any.
    """

    settings: ExternalBackbone
    num_parameters: int
    patch_size: int
    image_size: int | None


def inspect_external(external: ExternalBackbone) -> InspectedBackbone:
    """Return what of a backbone its settings leave open, once its file was read and found to fit.

    Raises:
        ConfigError: If it is not a ViT that probes can look at, its weights do not fit its architecture, or its hash is
            not the given one.
        DataError: If its file is not there, or cannot be fetched or read.
    """
    is_file = _is_file(external.checkpoint)
    if not is_file and timm.is_model(external.checkpoint):
        _build_empty(external.checkpoint)  # what is no ViT is not fetched
    path = find_checkpoint(external.checkpoint)
    sha256 = _sha256(path)
    if external.checkpoint_sha256 not in (None, sha256):
        raise ConfigError(f"checkpoint_sha256 must be that of {external.checkpoint!r}, {sha256}")
    # Workers need not run in this process's folder. What is no file is a name, which they can resolve.
    checkpoint = str(path.resolve()) if is_file else external.checkpoint
    found = replace(external, checkpoint=checkpoint, checkpoint_sha256=sha256)
    image_size = None
    if is_saved_model(path):
        if external.model is not None:
            raise ConfigError(f"model must be left out, since the file itself says it, not {external.model!r}")
        model = load_model(path)
        _check_tokens(model, external.checkpoint)
        image_size = None if model.dynamic_img_size else int(model.patch_embed.img_size[0])
    else:
        found = _with_architecture(found, is_file=is_file)
        model, _ = _fit(found, path)
    found = replace(found, mean=found.mean or MEAN, std=found.std or STD)
    return InspectedBackbone(found, num_parameters(model), int(model.patch_embed.patch_size[0]), image_size)


def build_external(external: ExternalBackbone) -> VisionTransformer:
    """Build a backbone that was inspected, on the CPU. The images it takes are normalised as for our own models.

    Raises:
        ConfigError: If its weights do not fit its architecture.
        DataError: If its file cannot be read any more, or is another one.
    """
    path = find_checkpoint(external.checkpoint)
    if _sha256(path) != external.checkpoint_sha256:
        rule = f"has changed: its SHA-256 is no longer {external.checkpoint_sha256}"
        raise DataError(f"checkpoint {external.checkpoint!r} {rule}")
    if external.model is None:
        model = load_model(path)
    else:
        model, weights = _fit(external, path)
        own = {name: value.to(torch.float32, copy=True) for name, value in weights.items()}
        model.load_state_dict(own, assign=True)
    _take_our_images(model, mean=external.mean or MEAN, std=external.std or STD)
    return model


def _with_architecture(external: ExternalBackbone, *, is_file: bool) -> ExternalBackbone:
    """Return plain weights with timm's architecture, and with what timm says that their images are normalised by."""
    name, published = external.model, None
    if is_file and name is None:
        raise ConfigError(f"model is required with a file of plain weights: timm's name of the model, e.g. {_EXAMPLE}")
    if name is not None and "." in name and _published(name) is None:
        raise ConfigError(f"model must be a name of timm's, not {name!r}")
    if is_file or (name is not None and external.checkpoint.startswith(HUB_PREFIX)):
        # The name of an architecture alone says nothing of the images that these weights were trained on.
        published = _published(name) if name is not None and "." in name else None
    elif external.checkpoint.startswith(HUB_PREFIX):
        name, published = _read_hub(external.checkpoint)
    else:
        name, published = name or external.checkpoint, _published(external.checkpoint)
    assert name is not None
    mean, std = (None, None) if published is None else (tuple(published[key]) for key in ("mean", "std"))
    return replace(external, model=name.partition(".")[0], mean=external.mean or mean, std=external.std or std)


def _published(name: str) -> Mapping[str, Any] | None:
    """Return what timm knows of a pretrained model; None if there is no such one."""
    found = find_pretrained(name)
    return None if found is None else {"mean": found.mean, "std": found.std}


def _read_hub(checkpoint: str) -> tuple[str, Mapping[str, Any]]:
    """Return the architecture of a model on the hub, and what is published beside it."""
    try:
        published, name, arguments = load_model_config_from_hf(checkpoint.removeprefix(HUB_PREFIX))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:  # the hub's, and those of a bad file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"config.json of {checkpoint!r} cannot be read: {reason}; 'model' can say the model") from error
    if arguments:
        raise ConfigError(f"{checkpoint!r} is not {name} as it stands, but with other {', '.join(arguments)}")
    return name, published


def _fit(external: ExternalBackbone, path: Path) -> tuple[VisionTransformer, dict[str, Tensor]]:
    """Return a model on torch's meta device, and the weights for it, all that it has."""
    name, model_name = external.checkpoint, str(external.model)
    raw, model = read_weights(path), _build_empty(model_name)
    patch_size = int(model.patch_embed.patch_size[0])
    kernel = raw.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != patch_size:  # timm would resample it
        rule = f"its patch size must be that of {model_name}, {patch_size}, not {kernel.shape[-1]}"
        raise ConfigError(f"checkpoint {name!r}: {rule}")
    model = _build_empty(model_name, image_size=patch_size * _grid_side(raw, model, name=name))
    try:
        found: dict[str, Tensor] = checkpoint_filter_fn(dict(raw), model)
    except Exception as error:  # timm's conversions meet foreign weights with almost any error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"checkpoint {name!r}: cannot be read as {model_name}: {reason}") from error
    weights = {key: value for key, value in found.items() if not key.startswith(_BESIDE_TOKENS)}
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in dict.fromkeys([*wanted, *weights]):
        given = tuple(weights[key].shape) if key in weights else None
        if given is None or key not in wanted or given != wanted[key]:
            rule = f"its {key} must be {wanted.get(key, 'absent')} in {model_name}, not {given or 'absent'}"
            raise ConfigError(f"checkpoint {name!r}: {rule}")
    return model, weights


def _grid_side(weights: Mapping[str, Tensor], model: VisionTransformer, *, name: str) -> int:
    """Return how many patches the side of the images has that the weights have positions for."""
    known = [value for key, value in weights.items() if key.rpartition(".")[2] in ("pos_embed", "positional_embedding")]
    num_positions = next((value.shape[-2] for value in known if value.ndim > 1), 0)
    for num_prefix in (0 if model.no_embed_class else model.num_prefix_tokens, 0, 1):
        side = math.isqrt(max(0, num_positions - num_prefix))
        if side and side**2 == num_positions - num_prefix:
            return side
    raise ConfigError(f"checkpoint {name!r}: must have a pos_embed of a square grid, not of {num_positions} positions")


def _build_empty(name: str, *, image_size: int | None = None) -> VisionTransformer:
    """Build a model of timm's on torch's meta device, of what tokens depend on, for images of any size."""
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    if not is_model_in_modules(name, _MODULES):
        raise ConfigError(f"must be a VisionTransformer of timm's, which {name!r} is not")
    size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
    with torch.device("meta"):
        model: Any = timm.create_model(name, **BACKBONE_OPTIONS, **size)
    _check_tokens(model, name)
    model.fc_norm, model.attn_pool = nn.Identity(), None
    return cast("VisionTransformer", model)


def _check_tokens(model: VisionTransformer, name: str) -> None:
    if not model.has_class_token:
        raise ConfigError(f"must be a model with a [CLS] token, which {name!r} is not")
    height, width = model.patch_embed.img_size
    if height != width:
        raise ConfigError(f"must be a model of square images, not of {height}x{width} pixels as {name!r} is")


def _take_our_images(model: VisionTransformer, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Have a model that wants images normalised by ``mean`` and ``std`` take those that are normalised as ours are."""
    if (tuple(mean), tuple(std)) == (MEAN, STD):
        return
    known = [torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD, mean, std)]

    def normalise_again(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        images, *others = inputs
        our_mean, our_std, their_mean, their_std = (values.to(images) for values in known)
        return (images * our_std + our_mean - their_mean) / their_std, *others

    model.patch_embed.register_forward_pre_hook(normalise_again)


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (RuntimeError, OSError):  # no such user, a name that is too long
        return False


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
