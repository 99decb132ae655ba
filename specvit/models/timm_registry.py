"""The models of ``specvit.models.scales`` under names that ``timm.create_model`` knows.

``timm.create_model("specvit_small_patch16_224", specialize="norm@all+qkv@first-third")`` takes what timm's
``vit_small_patch16_224`` takes, and beside it:

- ``specialize``: where there are own weights; default ``none``, timm's model bit for bit.
- ``tokens``, ``placebo_position``, ``registers_with``, ``init``: as in ``specvit.config.Treatment``.
- ``high_norm``: as in ``specvit.config.ModelSettings``, e.g. ``registers:4``.
- ``seed``: seed of the initial weights; none given = they are drawn from torch's generator, as timm's are, so
  that one ``torch.manual_seed`` gives the two the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from specvit.errors import ConfigError
from specvit.models.config import BACKBONE_OPTIONS, VitConfig, find_rows, parse_high_norm
from specvit.models.scales import SCALES, Scale
from specvit.models.vit import build_vit

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

PATCH_SIZE = 16
IMAGE_SIZE = 224

_CHOICES = {"tokens": ("cls", "placebo"), "registers_with": ("cls", "patches"), "init": ("copy", "independent")}
_REPLACED = {
    **dict.fromkeys(("embed_dim", "depth", "num_heads"), "the name of the model gives it"),
    "reg_tokens": "use high_norm='registers:N'",
    "class_token": "the models have a [CLS] token",
}
"""Arguments of timm's ViT that these models do not take, and why."""


def model_name(scale: str) -> str:
    """Return the name under which timm knows the model of a scale."""
    return f"specvit_{scale}_patch{PATCH_SIZE}_{IMAGE_SIZE}"


default_cfgs = generate_default_cfgs(
    {
        model_name(scale): {
            "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
            "fixed_input_size": True,
            "num_classes": 1000,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for scale in SCALES
    }
)
"""What timm's data pipeline reads of a model: ImageNet's mean and standard deviation, as all recipes here use."""


def _entry_point(scale: str) -> Callable[..., Any]:
    def create(pretrained: bool = False, **options: Any) -> Any:
        return _create(scale, pretrained=pretrained, **options)

    create.__name__ = create.__qualname__ = model_name(scale)
    create.__doc__ = f"Build the ViT of scale {scale!r}; see the module."
    return create


def _create(scale: str, *, pretrained: bool, out_indices: int | Sequence[int] = 3, **options: Any) -> Any:
    name = model_name(scale)
    if pretrained:
        raise ConfigError(
            f"pretrained: must be False for {name}, of which there are no pretrained weights; "
            "load a plain ViT's with specvit.checkpoints.load_plain_weights"
        )
    for field, reason in _REPLACED.items():
        if field in options:
            raise ConfigError(f"{field}: not an argument of {name}: {reason}")
    return build_model_with_cfg(
        partial(_build, SCALES[scale]),
        name,
        False,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **options,
    )


def _build(
    scale: Scale,
    *,
    specialize: str = "none",
    tokens: str = "cls",
    placebo_position: tuple[int, int] | None = None,
    registers_with: str = "cls",
    high_norm: str = "vanilla",
    init: str = "copy",
    seed: int | None = None,
    img_size: int | tuple[int, int] = IMAGE_SIZE,
    patch_size: int = PATCH_SIZE,
    drop_path_rate: float = 0.0,
    init_values: float | None = None,
    no_embed_class: bool = False,
    dynamic_img_size: bool = False,
    **options: Any,
) -> VisionTransformer:
    for field, value in (("tokens", tokens), ("registers_with", registers_with), ("init", init)):
        if value not in _CHOICES[field]:
            raise ConfigError(f"{field}: must be {' or '.join(_CHOICES[field])}, not {value!r}")
    treatment_of_norms = parse_high_norm(high_norm)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    config = VitConfig(
        scale,
        image_size=height if height == width else (height, width),
        patch_size=patch_size,
        specialization=specialize,
        rows=find_rows(
            tokens=tokens,
            registers_with=registers_with,
            num_registers=treatment_of_norms.num_registers,
            grid=(height // patch_size, width // patch_size),
            placebo_position=placebo_position,
        ),
        drop_path=drop_path_rate,
        layer_scale=init_values or 0.0,
        cls_position=not no_embed_class,
        high_norm=treatment_of_norms,
        options={**BACKBONE_OPTIONS, "dynamic_img_size": dynamic_img_size, **options},
    )
    return build_vit(config, init="independent" if init == "independent" else "copy", seed=seed)


for _scale in SCALES:
    register_model(_entry_point(_scale))
