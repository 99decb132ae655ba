"""Plain ViTs' weights from files: found by name, read without pickle, fitted to a model, or refused with the reason.

Shapes: P patches, R registers, D channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.models.routed_layers import OWN, has_layer_scale, own_parameters

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_PREFIX = "hf-hub:"

_HUB_FILE = "model.safetensors"

_NESTED = ("state_dict", "model")
_HEADS = re.compile(r"(head|head_dist|fc_norm|attn_pool|pre_logits)\.")
_DRAWN = re.compile(r"(head|fc_norm|attn_pool)\.|reg_token$|.*\.(key_bias|value_bias)$")
"""Weights that a checkpoint may lack: the model keeps those that it was built with."""
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def load_plain_weights(model: VisionTransformer, checkpoint: str | Path, *, sha256: str | None = None) -> None:
    """Load the weights of a plain timm ViT into a model that is not specialized yet.

    The head is left out. Position embeddings are resampled to the model's grid (timm's bicubic filter, from a
    square grid). Where only one of the two gives [CLS] a position, the position is moved into the token, or is
    0, so that the function stays the same. Registers and attention biases that the checkpoint does not have
    keep the values they were built with. The number of heads leaves no trace in weights and is not checked.

    Args:
        model: What to load into.
        checkpoint: A ``.safetensors`` file; another file, as ``torch.load(weights_only=True)`` reads it; or
            a name as ``find_checkpoint`` takes it.
        sha256: What the file's SHA-256 must be; None = anything.

    Raises:
        ConfigError: If the model is specialized, or the checkpoint is of another width, depth or patch size
            or otherwise does not fit; the text names the field and both values.
        DataError: If the file is missing, cannot be read, or has another SHA-256.
    """
    path = find_checkpoint(str(checkpoint))
    if sha256 is not None and sha256_of(path) != sha256:
        raise DataError(f"checkpoint {str(checkpoint)!r} has changed: its SHA-256 is no longer {sha256}")
    model.load_state_dict(fit_weights(read_weights(path), model, name=str(checkpoint)), strict=False)


def find_checkpoint(text: str) -> Path:
    """Find the file of a checkpoint; one on the hub is fetched, once, into the hub's cache.

    Args:
        text: Path of a file; or a name of timm's with pretrained weights, e.g.
            ``vit_small_patch16_224.augreg_in21k``; or ``hf-hub:OWNER/REPOSITORY``.

    Raises:
        DataError: If there is no such file, or it cannot be fetched.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"no such checkpoint file: {text!r} ({error})") from error
    if path.is_file():
        return path
    if text.startswith(HUB_PREFIX):
        return _fetch(text, text.removeprefix(HUB_PREFIX), _HUB_FILE)
    if path.suffix in FILE_SUFFIXES or path.exists() or len(path.parts) > 1:
        raise DataError(f"no such checkpoint file: {text!r}")
    known = find_pretrained(text)
    if known is None or not known.hf_hub_id:
        raise DataError(f"no such checkpoint: {text!r} is no file, and timm has no pretrained model of that name")
    return _fetch(text, known.hf_hub_id, known.hf_hub_filename or _HUB_FILE)


def find_pretrained(name: str) -> PretrainedCfg | None:
    """Return what timm knows of a pretrained model, or of the default one of an architecture; None if there is none."""
    try:
        return get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # the architecture has no such one
        return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file on the CPU, unwrapped from ``state_dict`` or ``model`` and without ``module.``.

    Raises:
        DataError: If the file holds anything but tensors by name.
    """
    found: Any
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets junk with almost any error
        summary = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise DataError(f"checkpoint {str(path)!r} cannot be read: {summary}") from error
    for key in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"checkpoint {str(path)!r} must hold tensors by name")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def fit_weights(weights: Mapping[str, Tensor], model: VisionTransformer, *, name: str) -> dict[str, Tensor]:
    """Return what a model can load of a plain ViT's weights. The model may be on the meta device.

    Args:
        weights: Weights by timm's names.
        model: A model that is not specialized.
        name: What messages call the checkpoint.

    Returns:
        The model's shared weights, without its head.

    Raises:
        ConfigError: If they do not fit, as for ``load_plain_weights``.
    """
    if own_parameters(model):
        raise ConfigError(f"checkpoint {name!r}: must be loaded into a model before it is specialized")
    found = {key: value for key, value in weights.items() if not _HEADS.match(key)}
    for key in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight"):
        if key not in found:
            raise ConfigError(f"checkpoint {name!r}: is not of a ViT with [CLS] as timm names it: it has no {key}")
    own = [key for key in found if f".{OWN}." in f".{key}"]
    if own:
        raise ConfigError(f"checkpoint {name!r}: must be of a plain ViT, but has own weights ({own[0]}); fold it")
    _check_dimensions(found, model, name=name)
    fitted = found | _fit_tokens(found, model, name=name)
    _check_tensors(fitted, model, name=name)
    return fitted


def _check_dimensions(weights: Mapping[str, Tensor], model: VisionTransformer, *, name: str) -> None:
    """Compare what a sweep file can set, first the widest difference."""
    kernel = weights["patch_embed.proj.weight"]
    for key, ndim in (("cls_token", 3), ("pos_embed", 3), ("reg_token", 3), ("patch_embed.proj.weight", 4)):
        if key in weights and weights[key].ndim != ndim:
            raise ConfigError(f"checkpoint {name!r}: {key} must have {ndim} axes, not {weights[key].ndim}")
    depth = 1 + max(int(match[1]) for match in map(_BLOCK.match, weights) if match)
    num_registers = weights["reg_token"].shape[1] if "reg_token" in weights else model.num_reg_tokens
    compared: list[tuple[str, object, object]] = [
        ("width (model.scale)", weights["cls_token"].shape[-1], model.embed_dim),
        ("depth (model.scale)", depth, len(model.blocks)),
        ("patch size (model.patch_size)", kernel.shape[-1], model.patch_embed.patch_size[0]),
        ("number of image channels", kernel.shape[1], model.in_chans),
        ("number of registers (model.high_norm)", num_registers, model.num_reg_tokens),
        ("use of layer scales (objective.layer_scale)", "blocks.0.ls1.gamma" in weights, has_layer_scale(model)),
    ]
    for field, given, wanted in compared:
        if given != wanted:
            raise ConfigError(f"checkpoint {name!r}: its {field} must be that of the model, {wanted}, not {given}")


def _fit_tokens(weights: Mapping[str, Tensor], model: VisionTransformer, *, name: str) -> dict[str, Tensor]:
    """Fit ``pos_embed`` to the model's grid and prefix; positions of the prefix move where the model has them."""
    table = weights["pos_embed"]
    prefix = [key for key in ("cls_token", "reg_token") if key in weights]
    tokens = torch.cat([weights[key] for key in prefix], dim=1)  # (1, 1 + R, D)
    grid = tuple(model.patch_embed.grid_size)
    num_positions = table.shape[1]
    assert model.pos_embed is not None
    num_wanted = model.pos_embed.shape[1] - grid[0] * grid[1]
    num_prefix, old_grid = _layout(num_positions, grid, (num_wanted, 0, 1, tokens.shape[1]), name=name)
    patches = resample_abs_pos_embed(
        table[:, num_prefix:], new_size=list(grid), old_size=list(old_grid), num_prefix_tokens=0
    )
    if num_wanted == num_prefix:
        return {"pos_embed": torch.cat([table[:, :num_prefix], patches], dim=1)}
    positions = torch.zeros_like(tokens)
    positions[:, :num_prefix] = table[:, :num_prefix]
    if num_wanted:
        if num_wanted > tokens.shape[1]:
            raise ConfigError(
                f"checkpoint {name!r}: its number of registers must be that of the model, whose positions "
                f"are for {num_wanted - 1}, not {tokens.shape[1] - 1}"
            )
        return {"pos_embed": torch.cat([positions[:, :num_wanted], patches], dim=1)}
    moved = torch.split(tokens + positions, [weights[key].shape[1] for key in prefix], dim=1)
    return {"pos_embed": patches, **dict(zip(prefix, moved, strict=True))}


def _layout(
    num_positions: int, grid: tuple[int, ...], prefixes: tuple[int, ...], *, name: str
) -> tuple[int, tuple[int, ...]]:
    """Find the prefix and the grid of a table of positions; ``prefixes`` begins with the model's own."""
    layouts: list[tuple[int, tuple[int, ...]]] = []
    for num_prefix in dict.fromkeys(prefixes):
        num_patches = num_positions - num_prefix
        side = math.isqrt(max(0, num_patches))
        if num_patches == grid[0] * grid[1]:
            layouts.append((num_prefix, grid))
        elif side and side**2 == num_patches:
            layouts.append((num_prefix, (side, side)))
    own = (prefixes[0], grid)
    if own in layouts or len(layouts) == 1:
        return own if own in layouts else layouts[0]
    if not layouts:
        raise ConfigError(f"checkpoint {name!r}: its {num_positions} positions must be those of a square grid")
    readings = " or ".join(f"{prefix} + {rows} x {columns}" for prefix, (rows, columns) in layouts)
    raise ConfigError(f"checkpoint {name!r}: its {num_positions} positions can be read in two ways, {readings}")


def _check_tensors(weights: Mapping[str, Tensor], model: VisionTransformer, *, name: str) -> None:
    """Check that every shared weight of the model is there, of its shape, and nothing else."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in wanted:
        if key not in weights and not _DRAWN.match(key):
            raise ConfigError(f"checkpoint {name!r}: has no {key}, which the model has")
    for key, value in weights.items():
        if key not in wanted:
            raise ConfigError(f"checkpoint {name!r}: has {key}, which the model does not have")
        if tuple(value.shape) != wanted[key]:
            raise ConfigError(f"checkpoint {name!r}: its {key} must be {wanted[key]}, not {tuple(value.shape)}")


def _fetch(text: str, repository: str, filename: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors derive from these
        summary = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"checkpoint {text!r}: {filename} of {repository!r} cannot be fetched: {summary}") from error
