"""What a comparator is: another published change to the plain ViT, to stand beside own [CLS] weights."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from specvit.models.scales import Scale
from specvit.settings import settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from specvit.training.recipe import Recipe


@settings
class Comparator(ABC):
    """Another paper's change of a plain ViT.

    A subclass adds ``comparator: Literal["its_name"] = "its_name"``, sets ``name`` to the same text, and keeps
    its torch code in another module, imported where a method needs it: settings load without torch.
    """

    name: ClassVar[str]
    changes_model: ClassVar[bool] = True
    """Whether the backbone is no longer a plain ViT, so that its weights cannot be saved as one."""

    @abstractmethod
    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
        """Turn a plain ViT into the comparator, in place; the weights that both have stay as they are.

        Args:
            plain: timm's model as ``build_vit`` makes it, without own weights.
            seed: The trial's seed; what is drawn anew comes from a stream of its own.

        Returns:
            ``plain``, which ``specvit.models.vit.encode`` takes as before.
        """

    @abstractmethod
    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Count the parameters that the comparator adds to the plain ViT, by arithmetic.

        Args:
            scale: Width and depth.
            layer_scale: Whether the plain model's blocks have layer scales.
        """

    def effect(self, depth: int) -> object:
        """Return what decides all that it does to a model of ``depth`` blocks: its settings, unless some round alike.

        Comparators of equal effects are one arm.
        """
        del depth
        return self

    def build_regulariser(self, backbone: VisionTransformer, *, num_classes: int, seed: int) -> nn.Module | None:
        """Build what adds terms to the recipe's loss while ``backbone`` trains; none unless overridden.

        The terms are means over images: a batch may be cut into parts, whose terms are then averaged.

        Args:
            backbone: The model that trains, itself and not a copy of it.
            num_classes: Number of classes of the labels.
            seed: The trial's seed.

        Returns:
            A module that turns patches and their labels into terms (see ``Learner.extra_losses``), or None.
        """
        del backbone, num_classes, seed
        return None

    def check_recipe(self, recipe: Recipe) -> None:
        """Check that a recipe can train the comparator.

        Raises:
            ConfigError: If it lacks what the comparator learns from.
        """
        del recipe

    @property
    def text(self) -> str:
        """Return the name, with the settings that are not at their defaults: ``jumbo(slots=4)``."""
        fields = [field for field in dataclasses.fields(self) if field.name != "comparator"]
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields if getattr(self, f.name) != f.default]
        return self.name + (f"({', '.join(changed)})" if changed else "")
