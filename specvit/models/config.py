"""What a model was built from, kept at the model, so that a file of its weights can say how to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from specvit.errors import ConfigError
from specvit.models.high_norm import HighNorm
from specvit.models.scales import Scale
from specvit.specialization.token_rows import PatchRow, PrefixRows, SpecializedRows

ATTRIBUTE = "specvit_config"
"""Name under which a model keeps its configuration."""

BACKBONE_OPTIONS: Mapping[str, Any] = MappingProxyType({"num_classes": 0, "dynamic_img_size": True})
"""Arguments of timm's VisionTransformer that make a backbone: no head, images of any size."""


@dataclass(frozen=True)
class VitConfig:
    """Describe a model: everything that its function depends on, besides its weights.

    Attributes:
        scale: Width, depth and heads.
        image_size: Side of the images in pixels, or height and width.
        patch_size: Side of a patch in pixels.
        specialization: Canonical text.
        rows: The tokens with own weights.
        high_norm: Registers or attention biases.
        layer_scale: Initial value of the layer scales; 0 = none.
        drop_path: Stochastic depth rate of the last block.
        cls_position: Whether [CLS] has a position embedding.
        options: Further arguments of timm's VisionTransformer; none given = those of a backbone.
    """

    scale: Scale
    image_size: int | tuple[int, int]
    patch_size: int
    specialization: str = "none"
    rows: SpecializedRows = field(default_factory=PrefixRows)
    high_norm: HighNorm = field(default_factory=HighNorm)
    layer_scale: float = 0.0
    drop_path: float = 0.0
    cls_position: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: dict(BACKBONE_OPTIONS))

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
