"""The backbone: timm's VisionTransformer, with layers swapped in where some tokens have weights of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.errors import ConfigError
from specvit.models.attention import BiasedAttention, SplitAttention
from specvit.models.config import ATTRIBUTE as CONFIG_ATTRIBUTE
from specvit.models.config import TIMM_CLS_STD, VitConfig
from specvit.models.parameter_counts import MLP_RATIO
from specvit.models.patches import take
from specvit.models.pretrained_weights import load_plain_weights
from specvit.models.routed_layers import LowRank, OwnedPart, has_layer_scale, own_parameters, route
from specvit.models.stochastic_depth import Block, SubsetBlock
from specvit.seeding import derive_seed
from specvit.specialization.components import COMPONENTS
from specvit.specialization.language import (
    NO_SPECIALIZATION,
    Specialization,
    check_specialization,
    parse_specialization,
)
from specvit.specialization.token_rows import PrefixRows, SpecializedRows

INIT_STD = 0.02
REGISTER_STD = 1e-6


def build_vit(
    config: VitConfig,
    *,
    init: Literal["copy", "independent"] = "copy",
    seed: int | None = 0,
    pretrained: str | None = None,
    pretrained_sha256: str | None = None,
) -> VisionTransformer:
    """Build a ViT. It knows its configuration, see ``specvit.models.config.config_of``.

    The shared weights depend on ``seed`` alone: every arm starts from the same ones. For images of other sizes the
    position embeddings are resampled.

    Args:
        config: What to build.
        init: ``copy``: own weights start as copies of the shared ones, so that the model computes the same
            function as the plain one. ``independent``: they are those of a model from another seed.
        seed: Seed of the initial weights; None = they are drawn from torch's own generator.
        pretrained: A plain ViT whose weights the shared ones start from; see ``load_plain_weights``.
        pretrained_sha256: SHA-256 that its file must have; None = any.

    Returns:
        timm's model, its modules replaced in the specialized places.

    Raises:
        ConfigError: If the specialization or the pretrained weights do not fit the model.
        DataError: If the pretrained weights cannot be read.
    """
    model = _build_plain(config, seed, "init")
    if pretrained is not None:
        load_plain_weights(model, pretrained, sha256=pretrained_sha256)
    specialization = _resolve(config)
    if specialization:
        donor = model if init == "copy" else _build_plain(config, seed, "independent init")
        specialize(model, specialization, donor=donor, rows=config.rows, seed=seed)
    return model


def build_empty(config: VitConfig) -> VisionTransformer:
    """Build the model of a configuration on torch's meta device: its structure, without weights."""
    with torch.device("meta"):
        model = _build_plain(config, 0, "init")
        specialization = _resolve(config)
        if specialization:
            specialize(model, specialization, rows=config.rows)
    return model


def _resolve(config: VitConfig) -> Specialization:
    return parse_specialization(config.specialization, config.scale.depth, layer_scale=config.layer_scale > 0)


def _build_plain(config: VitConfig, seed: int | None, stream: str) -> VisionTransformer:
    block_fn = partial(
        SubsetBlock if config.drop_path_subset else Block,
        uniform_rate=config.drop_path if config.drop_path_uniform else None,
    )

    def timm_vit(*, num_registers: int = 0, embed_cls: bool = config.cls_position) -> VisionTransformer:
        return VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.scale.width,
            depth=config.scale.depth,
            num_heads=config.scale.num_heads,
            init_values=config.layer_scale or None,
            drop_path_rate=config.drop_path,
            reg_tokens=num_registers,
            no_embed_class=not embed_cls,
            **{"block_fn": block_fn, **config.options},
        )

    high_norm = config.high_norm
    with _drawing(seed, stream):
        model = timm_vit()
        if model.cls_token is not None:
            # Scaled, not drawn again, so that all else is drawn as it is for any other deviation.
            model.cls_token.data *= config.cls_std / TIMM_CLS_STD
        if high_norm.num_registers:
            # What a plain model draws is drawn first, so that the two start from the same weights.
            model = _with_registers(model, timm_vit(num_registers=high_norm.num_registers, embed_cls=False))
        attend = BiasedAttention if high_norm.attention_bias else SplitAttention
        for block in model.blocks:
            block.attn = attend(cast("Attention", block.attn))
    setattr(model, CONFIG_ATTRIBUTE, replace(config, specialization=NO_SPECIALIZATION))
    return model


@contextmanager
def _drawing(seed: int | None, *stream: str) -> Iterator[None]:
    """Draw from a stream of the seed's own; without a seed from torch's generator, as timm does."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *stream))
        yield


def _with_registers(plain: VisionTransformer, empty: VisionTransformer) -> VisionTransformer:
    """Move the weights of a plain model to one with registers, whose [CLS] token holds its own position.

    Registers have no position: they enter after positions have been added.

    Source: Darcet et al. 2023, "Vision Transformers Need Registers" (arXiv 2309.16588); their code draws
    registers with a standard deviation of 1e-6.
    """
    state = plain.state_dict()
    if not plain.no_embed_class:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    assert empty.reg_token is not None
    nn.init.normal_(empty.reg_token, std=REGISTER_STD)
    empty.load_state_dict({**state, "reg_token": empty.reg_token.detach()})
    return empty


def specialize(
    model: VisionTransformer,
    specialization: Specialization,
    *,
    donor: VisionTransformer | None = None,
    rows: SpecializedRows | None = None,
    seed: int | None = 0,
) -> None:
    """Give some tokens their own weights in ``model``, in place.

    Args:
        model: A plain timm ViT.
        specialization: The places.
        donor: A ViT of the same shape whose weights the own weights start from; None = ``model`` itself.
        rows: The tokens; None = [CLS].
        seed: Seed of what is drawn anew in any case, the matrices of low rank; None = torch's generator.

    Raises:
        ConfigError: If the specialization was resolved for another depth, needs layer scales that the model
            does not have, or a rank is above the model's width. Nothing is changed then.
    """
    check_specialization(
        specialization,
        depth=len(model.blocks),
        width=model.embed_dim,
        layer_scale=has_layer_scale(model),
    )
    _check_modules(model, specialization)
    donor, rows = donor or model, rows or PrefixRows()
    for path, parts in _parts_by_module(specialization, width=model.embed_dim).items():
        layer = route(model.get_submodule(path), donor.get_submodule(path), parts, rows)
        for part in parts:
            if part.mode.kind == "lora":
                # A stream for each, so that its draws do not depend on what else is specialized.
                with _drawing(seed, "own init", path, part.name):
                    cast("LowRank", layer.own[part.name]).draw()
        model.set_submodule(path, layer)
    config = getattr(model, CONFIG_ATTRIBUTE, None)
    if config is not None:
        setattr(model, CONFIG_ATTRIBUTE, replace(config, specialization=specialization.text, rows=rows))


def _check_modules(model: VisionTransformer, specialization: Specialization) -> None:
    """Check what the options of timm's ViT can change about its modules."""
    if not model.has_class_token:
        raise ConfigError(f"specialization {specialization.text!r}: the model has no [CLS] (class_token)")
    if own_parameters(model):
        raise ConfigError(f"specialization {specialization.text!r}: the model is specialized already")
    for component in (COMPONENTS[name] for name in specialization.modes):
        modules = {site.module for site in component.sites}
        if "norm" in modules and isinstance(model.norm, nn.Identity):
            raise ConfigError(
                f"specialization {specialization.text!r}: {component.name} needs a norm before the pooling, which "
                f"global_pool {model.global_pool!r} moves behind it"
            )
        for layer, side in (("mlp.fc1", "out_features"), ("mlp.fc2", "in_features")):
            if layer in modules and getattr(model.get_submodule(f"blocks.0.{layer}"), side) != (
                MLP_RATIO * model.embed_dim
            ):
                raise ConfigError(
                    f"specialization {specialization.text!r}: {component.name} needs an mlp_ratio of {MLP_RATIO}, "
                    "ungated"
                )


def _parts_by_module(specialization: Specialization, *, width: int) -> dict[str, list[OwnedPart]]:
    """List what is owned of each module; neighbours that share a mode make one part if it goes by channel."""
    parts: dict[str, list[OwnedPart]] = {}
    for component, block, mode in sorted(
        specialization.places(), key=lambda place: (place[1], list(COMPONENTS).index(place[0].name))
    ):
        for site in component.sites:
            path = f"blocks.{block}.{site.module}" if component.per_block else site.module
            part = OwnedPart(component.name, mode, first=site.first * width, size=site.outputs * width)
            known = parts.setdefault(path, [])
            joins = bool(known) and known[-1].mode == mode and known[-1].first + known[-1].size == part.first
            if joins and mode.goes_by_channel:
                part = OwnedPart(known[-1].name + part.name, mode, known[-1].first, known[-1].size + part.size)
                known.pop()
            known.append(part)
    return parts


class EncodedTokens(NamedTuple):
    """The tokens of B images after the final norm.

    Attributes:
        cls: ``(B, D)``.
        registers: ``(B, R, D)``.
        patches: ``(B, P, D)``, row by row.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor


def encode(
    model: VisionTransformer,
    images: Tensor,
    *,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
    visible: Tensor | None = None,
) -> EncodedTokens:
    """Compute the tokens of images, with some patches hidden or left out.

    Args:
        model: A ViT that takes any image size.
        images: ``(B, 3, H, W)`` float, normalised.
        masked: ``(B, P)`` bool, the patches to hide, or None.
        mask_token: ``(D,)`` what hidden patches are replaced by, before positions are added.
        visible: ``(B, V)`` int64, the patches to compute tokens of, each with its position; the others are
            left out, and ``P`` is ``V`` in what is returned. None = all.

    Returns:
        The tokens after the final norm.
    """
    x = model.patch_embed(images)
    if masked is not None and mask_token is not None:
        x = torch.where(masked.view(*x.shape[:3], 1), mask_token.to(x.dtype), x)
    x, num_prefix = model._pos_embed(x), model.num_prefix_tokens
    if visible is not None:
        x = torch.cat([x[:, :num_prefix], take(x[:, num_prefix:], visible)], dim=1)
    x = model.norm(model.blocks(model.norm_pre(model.patch_drop(x))))
    return EncodedTokens(x[:, 0], x[:, 1:num_prefix], x[:, num_prefix:])


def num_parameters(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def init_linear(module: nn.Module) -> None:
    """Draw the weights of all linear layers as timm does for a ViT: truncated normal, std 0.02, bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_classifier(width: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Draw a linear classifier of tokens, without touching the global stream of random numbers.

    Args:
        width: Channels of a token.
        num_classes: Number of classes.
        seed: Seed of its weights alone.
    """
    with torch.random.fork_rng(devices=[]):
        classifier = nn.Linear(width, num_classes)
        torch.manual_seed(seed)
        init_linear(classifier)
    return classifier
