"""Models in files: weights as safetensors, with what the model was built from in the file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.files.tensors import write_tensors
from specvit.kept_weights import find_file
from specvit.models.config import VitConfig, config_of
from specvit.models.pretrained_weights import load_plain_weights
from specvit.models.routed_layers import (
    TOKEN_GATE,
    RoutedLayerNorm,
    RoutedLayerScale,
    RoutedLinear,
    own_parameters,
)
from specvit.models.vit import build_empty
from specvit.specialization.language import NO_SPECIALIZATION

__all__ = ["fold", "is_saved_model", "load_model", "load_plain_weights", "save_model"]

METADATA_KEY = "specvit_config"


def save_model(model: VisionTransformer, path: str | Path) -> None:
    """Write a model to a file from which ``load_model`` makes it again; the file is there whole or not at all.

    Args:
        model: A model of ``build_vit``, or of timm's registry under one of our names.
        path: The file, by custom ``.safetensors``. Its folder must exist; a file of that name is replaced.

    Raises:
        ConfigError: If the model does not know what it was built from, or was changed since in a way that its
            configuration cannot say.
        SpecsweepError: If the file cannot be written.
    """
    config = config_of(model)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    empty = build_empty(config)
    _check_same_modules(model, empty)
    _check_same_shapes(state, empty.state_dict())
    write_tensors(Path(path), state, metadata={"format": "pt", METADATA_KEY: config.to_json()})


def load_model(
    path: str | Path,
    *,
    arm: str | None = None,
    seed: int | None = None,
    group: str | None = None,
    name: str | None = None,
    sha256: str | None = None,
) -> VisionTransformer:
    """Build the model of a file that ``save_model`` wrote, on the CPU, in training mode as a newly built one.

    The folder of a sweep's results serves as well: ``load_model("results/components", arm="paper", seed=20)``.

    Args:
        path: The file, or the folder of a sweep's results that keeps weights.
        arm: In a folder: the arm, as the table calls it; it can be left out where that leaves one.
        seed: Its seed, likewise.
        group: Its group, likewise.
        name: Which of the trial's backbones, e.g. ``student``; None = the one that the probes looked at.
        sha256: What a file must hash to; None = anything. Of a folder the index says it.

    Raises:
        DataError: If the file is missing, is not the one that was kept, cannot be read, or holds something else; or
            if not exactly one file is asked for.
    """
    path = Path(path)
    if path.is_dir():
        path, sha256 = find_file(path, arm=arm, seed=seed, group=group, name=name)
    elif (arm, seed, group, name) != (None,) * 4:
        raise DataError(f"{str(path)!r} is no folder of results, in which an arm could be looked for")
    if not path.is_file():
        raise DataError(f"no such model file: {str(path)!r}")
    try:
        if sha256 is not None and sha256_of(path) != sha256:
            raise DataError(f"{str(path)!r} is not the file that was kept: its SHA-256 is not {sha256}")
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
        if text is None:
            raise DataError(f"{str(path)!r} was not written by save_model; load_plain_weights reads plain weights")
        config, state = VitConfig.from_json(text), load_file(path)
        model = build_empty(config)
        _check_same_shapes(state, model.state_dict())
    except (OSError, SafetensorError, ConfigError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a model: {error}") from error
    # Copied: tensors lie in a file as they come, and kernels round differently off their memory's alignment.
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    return model


def is_saved_model(path: Path) -> bool:
    """Return whether a file is one that ``save_model`` wrote, as its metadata say.

    Raises:
        DataError: If it is called ``.safetensors`` and cannot be read as such.
    """
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a model: {error}") from error


def fold(model: VisionTransformer) -> VisionTransformer:
    """Build the plain model that computes the same, bit for bit, where own weights do not differ from shared ones.

    They do not differ where own weights equal the shared ones, or, channel by channel, a gate is 0, or the
    second matrix of a low rank is 0.

    Args:
        model: A model of ``build_vit``; it is left as it is.

    Returns:
        A model without own weights, which shares no memory with the other.

    Raises:
        ConfigError: If own weights differ; the text names the first place, in the order of the forward pass.
    """
    config = replace(config_of(model), specialization=NO_SPECIALIZATION)
    for path, module in model.named_modules():
        if isinstance(module, RoutedLinear | RoutedLayerNorm | RoutedLayerScale):
            _check_equal(path, module)
    plain = build_empty(config)
    _check_same_modules(model, build_empty(config_of(model)))
    own = own_parameters(model)
    state = {name: value.detach().clone() for name, value in model.state_dict().items() if name not in own}
    _check_same_shapes(state, plain.state_dict())
    plain.load_state_dict(state, assign=True)
    shared = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(shared[name].requires_grad)
    return plain.train(model.training)


def _check_equal(path: str, layer: RoutedLinear | RoutedLayerNorm | RoutedLayerScale) -> None:
    for part in layer.parts:
        own = dict(layer.own[part.name].named_parameters())
        if part.mode.kind == "lora":
            differs = bool(own["up"].any())
        else:
            gate = own.pop("gate", None)
            for name in TOKEN_GATE:
                own.pop(name, None)  # a sigmoid is never 0
            span = slice(part.first, part.first + part.size)
            unequal = torch.zeros(part.size, dtype=torch.bool, device=next(iter(own.values())).device)
            for name, value in own.items():
                unequal |= (value != getattr(layer, name)[span]).view(part.size, -1).any(dim=1)
            differs = bool((unequal if gate is None else unequal & (gate != 0)).any())
        if differs:
            raise ConfigError(
                f"the model cannot be folded: own {part.name} ({part.mode.text}) of {path} differs from the "
                "shared weights"
            )


def _check_same_modules(model: nn.Module, wanted: nn.Module) -> None:
    found, others = (dict(which.named_modules()) for which in (model, wanted))
    for name in sorted(found.keys() | others.keys()):
        kind, other = (type(modules.get(name)).__name__ for modules in (found, others))
        if kind != other:
            raise ConfigError(f"the model is not what its configuration says: {name} is {kind}, not {other}")


def _check_same_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    shapes, others = ({name: tuple(value.shape) for name, value in tensors.items()} for tensors in (state, wanted))
    for name in sorted(shapes.keys() | others.keys()):
        if shapes.get(name) != others.get(name):
            raise ConfigError(
                f"the model is not what its configuration says: {name} is {shapes.get(name, 'absent')}, "
                f"but should be {others.get(name, 'absent')}"
            )
