"""What a model is built from, kept at the model, so that a file of its weights can say how to build it again.

Torch is not needed to read this: a sweep is planned without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from specvit.errors import ConfigError
from specvit.models.scales import SCALES, Scale
from specvit.specialization.language import NO_SPECIALIZATION
from specvit.specialization.token_rows import PatchRow, PrefixRows, SpecializedRows

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

ATTRIBUTE = "specvit_config"
"""Name under which a model keeps its configuration."""

TIMM_CLS_STD = 1e-6
"""Standard deviation that timm draws [CLS] with."""

BACKBONE_OPTIONS: Mapping[str, Any] = MappingProxyType({"num_classes": 0, "dynamic_img_size": True})
"""Arguments of timm's VisionTransformer that make a backbone: no head, images of any size."""


@dataclass(frozen=True)
class HighNorm:
    """How a model deals with tokens of very high norm.

    Attributes:
        num_registers: Learned tokens after [CLS].
        attention_bias: Whether every head attends to a learned key and value besides the tokens'.
    """

    num_registers: int = 0
    attention_bias: bool = False


_REGISTERS = re.compile(r"registers:([1-9][0-9]{0,2})")


def parse_high_norm(text: str) -> HighNorm:
    """Parse ``vanilla``, ``registers:N`` or ``attention_bias``.

    Raises:
        ConfigError: If the text is none of them, or N is 0.
    """
    if text == "vanilla":
        return HighNorm()
    if text == "attention_bias":
        return HighNorm(attention_bias=True)
    match = _REGISTERS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"must be vanilla, attention_bias, or registers:N with a number N from 1 to 999, not {text!r}"
        )
    return HighNorm(num_registers=int(match[1]))


def check_high_norm(text: str) -> str:
    """Return a text that ``parse_high_norm`` takes.

    Raises:
        ConfigError: If it does not.
    """
    parse_high_norm(text)
    return text


class _Model(Protocol):
    """The settings of the backbone, ``specvit.config.ModelSettings``."""

    @property
    def scale(self) -> str: ...
    @property
    def patch_size(self) -> int: ...
    @property
    def high_norm(self) -> str: ...


class _Recipe(Protocol):
    """What of a recipe's settings is a matter of the backbone, ``specvit.training.recipe.Recipe``."""

    @property
    def layer_scale(self) -> float: ...
    @property
    def cls_position(self) -> bool: ...
    @property
    def cls_std(self) -> float: ...
    @property
    def drop_path(self) -> float: ...
    @property
    def drop_path_uniform(self) -> bool: ...
    def drops_subsets(self) -> bool: ...


class _Treatment(Protocol):
    """Which tokens an arm gives weights of their own, and where, ``specvit.config.Treatment``."""

    @property
    def specialize(self) -> str: ...
    @property
    def tokens(self) -> str: ...
    @property
    def registers_with(self) -> str: ...
    @property
    def placebo_position(self) -> tuple[int, int] | None: ...


@dataclass(frozen=True)
class VitConfig:
    """Everything that a model's function depends on, besides its weights.

    Attributes:
        scale: Width, depth and heads.
        image_size: Side of the images in pixels, or height and width.
        patch_size: Side of a patch in pixels.
        specialization: Which weights some tokens have for themselves, as sweep files say it; none = timm's plain model.
        rows: The tokens with own weights.
        high_norm: Registers or attention biases.
        layer_scale: Initial value of the layer scales; 0 = none.
        drop_path: Stochastic depth rate of the last block, in [0, 1), rising linearly from 0 in the first.
        drop_path_uniform: Whether all blocks have that rate.
        drop_path_subset: Whether blocks compute a fixed number of images, in place of zeroing residuals.
        cls_position: Whether [CLS] has a position embedding (not so in DeiT-III).
        cls_std: Standard deviation of the normal distribution that [CLS] is drawn from.
        options: Further arguments of timm's VisionTransformer; none given = those of a backbone.

    Raises:
        ConfigError: If the patches do not tile the image.
    """

    scale: Scale
    image_size: int | tuple[int, int]
    patch_size: int
    specialization: str = NO_SPECIALIZATION
    rows: SpecializedRows = field(default_factory=PrefixRows)
    high_norm: HighNorm = field(default_factory=HighNorm)
    layer_scale: float = 0.0
    drop_path: float = 0.0
    cls_position: bool = True
    cls_std: float = TIMM_CLS_STD
    drop_path_uniform: bool = False
    drop_path_subset: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: dict(BACKBONE_OPTIONS))

    def __post_init__(self) -> None:
        if any(side % self.patch_size for side in self.sides):
            raise ConfigError(f"model.patch_size: must divide the image size {self.image_size}, not {self.patch_size}")

    @classmethod
    def from_settings(
        cls, model: _Model, recipe: _Recipe, *, image_size: int, treatment: _Treatment | None = None
    ) -> VitConfig:
        """Return the configuration of the backbone that a trial trains.

        Args:
            model: The settings of the backbone.
            recipe: What it is trained with.
            image_size: Side of the images in pixels.
            treatment: What the arm does to it; None = the plain backbone.

        Raises:
            ConfigError: If the settings do not fit each other.
        """
        high_norm, side = parse_high_norm(model.high_norm), image_size // model.patch_size
        plain = cls(
            SCALES[model.scale],
            image_size=image_size,
            patch_size=model.patch_size,
            high_norm=high_norm,
            layer_scale=recipe.layer_scale,
            cls_position=recipe.cls_position,
            cls_std=recipe.cls_std,
            drop_path=recipe.drop_path,
            drop_path_uniform=recipe.drop_path_uniform,
            drop_path_subset=recipe.drops_subsets(),
        )
        if treatment is None:
            return plain
        rows = find_rows(
            tokens=treatment.tokens,
            registers_with=treatment.registers_with,
            num_registers=high_norm.num_registers,
            grid=(side, side),
            placebo_position=treatment.placebo_position,
        )
        return replace(plain, specialization=treatment.specialize, rows=rows)

    @property
    def sides(self) -> tuple[int, int]:
        """Return height and width of the images, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def to_json(self) -> str:
        """Write the configuration as JSON.

        Raises:
            ConfigError: If an option, such as a class of layers, cannot be written.
        """
        for name, value in self.options.items():
            try:
                json.dumps(value)
            except TypeError:
                raise ConfigError(
                    f"{name}: must be a number, text, a truth value or a list to be saved, not {value!r}"
                ) from None
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> VitConfig:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If the text is something else.
        """
        try:
            fields = json.loads(text)
            rows, size = fields.pop("rows"), fields.pop("image_size")
            return cls(
                scale=Scale(**fields.pop("scale")),
                image_size=tuple(size) if isinstance(size, list) else size,
                rows=_read_rows(rows),
                high_norm=HighNorm(**fields.pop("high_norm")),
                **fields,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"not the configuration of a model: {error}") from None


def find_rows(
    *,
    tokens: str,
    registers_with: str,
    num_registers: int,
    grid: tuple[int, int],
    placebo_position: tuple[int, int] | None = None,
) -> SpecializedRows:
    """Find the tokens that get own weights.

    Args:
        tokens: ``cls``, or ``placebo``: one fixed patch in its place.
        registers_with: Whether registers go with [CLS] (``cls``) or with the patches (``patches``).
        num_registers: Number of registers.
        grid: Rows and columns of patches at the model's image size.
        placebo_position: Row and column of that patch; None = the middle of the grid.

    Raises:
        ConfigError: If the position lies outside the grid.
    """
    if tokens == "placebo":
        position = placebo_position or (grid[0] // 2, grid[1] // 2)
        return PatchRow(num_prefix=1 + num_registers, grid=grid, position=position)
    return PrefixRows(1 + num_registers if registers_with == "cls" else 1)


def _read_rows(fields: Mapping[str, Any]) -> SpecializedRows:
    if "count" in fields:
        return PrefixRows(**fields)
    grid, position = (tuple(fields[name]) for name in ("grid", "position"))
    return PatchRow(num_prefix=fields["num_prefix"], grid=grid, position=position)


def config_of(model: VisionTransformer) -> VitConfig:
    """Return the configuration of a model as it is now: its head or image size may have been changed.

    Raises:
        ConfigError: If the model does not know it, since it was not built by ``build_vit``.
    """
    config = getattr(model, ATTRIBUTE, None)
    if not isinstance(config, VitConfig):
        raise ConfigError("the model does not know its configuration: build it with specvit.models.vit.build_vit")
    height, width = model.patch_embed.img_size
    options = {**config.options, "num_classes": model.num_classes}
    if model.global_pool != options.get("global_pool", "token"):
        # timm keeps the place of the norm when it changes the pooling.
        options |= {"global_pool": model.global_pool, "fc_norm": hasattr(model.fc_norm, "weight")}
    return replace(
        config,
        image_size=height if height == width else (height, width),
        patch_size=model.patch_embed.patch_size[0],
        options=options,
    )
