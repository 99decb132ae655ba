"""The backbone: timm's ViT, with own weights for some tokens, and pretrained weights from files.

``VitConfig`` says what to build, ``build_vit`` builds it, ``encode`` runs it; ``SCALES`` is the table of sizes.
Importing ``timm_registry`` registers the models with timm.

* Without own weights a model is timm's, bit for bit; shared weights keep timm's names and never depend on the arm.
* A model is built right: nothing is patched into it later, and it knows its configuration.
* ``config`` and ``scales`` load without torch: sweeps are planned with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specvit.models.config import HighNorm, VitConfig, config_of
from specvit.models.scales import SCALES, Scale

if TYPE_CHECKING:
    from specvit.models.vit import build_vit, encode, num_parameters

__all__ = ["SCALES", "HighNorm", "Scale", "VitConfig", "build_vit", "config_of", "encode", "num_parameters"]


def __getattr__(name: str) -> Any:
    if name in ("build_vit", "encode", "num_parameters"):
        from specvit.models import vit

        return getattr(vit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
