"""Jumbo: one global token, several times as wide as a patch, with an MLP of its own.

Source: Fuller et al. 2025 (arXiv 2502.15021), section 3; antofuller/jumbo, models/jumbo.py. Deviations: what is
handed on as [CLS] is the mean of the slots (the paper's classifier reads all of them, and the mean patch), so
that heads and probes are the same for all arms; patches keep the plain model's width; slots start as [CLS] plus
noise of the published size; layer scales, which the source takes out, stay where the plain model has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.comparators.base import Comparator
from specvit.errors import ConfigError
from specvit.models.scales import Scale
from specvit.settings import PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from specvit.training.recipe import Recipe


@settings
class Jumbo(Comparator):
    """J slots in place of [CLS]: apart in attention, joined in one wide MLP that all blocks share."""

    name: ClassVar[str] = "jumbo"
    comparator: Literal["jumbo"] = "jumbo"

    slots: PositiveInt = 6
    """J, the width of the global token in widths of a patch."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the shared MLP in widths of the global token, as in the source. It has about
    2 ``mlp_ratio`` (J D)^2 weights: twice a ViT-S at the defaults."""

    def hidden(self, width: int) -> int:
        """Return the hidden width of the shared MLP in a model of the given width, at least 1."""
        return max(1, int(self.mlp_ratio * self.slots * width))

    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
        """Put the slots in the place of [CLS]."""
        from specvit.comparators.jumbo.trunk import JumboTrunk

        return JumboTrunk.install(plain, seed=seed, slots=self.slots, hidden=self.hidden(plain.embed_dim))

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Count the slots, the norms (and layer scales) of the blocks, and the shared MLP."""
        wide, hidden = self.slots * scale.width, self.hidden(scale.width)
        per_block = (2 + layer_scale) * wide
        return wide + scale.depth * per_block + 2 * wide * hidden + hidden + wide

    def check_recipe(self, recipe: Recipe) -> None:
        """Check that the baseline leaves blocks out by the same draws.

        Raises:
            ConfigError: If the recipe's stochastic depth leaves out a fixed number of images: these blocks cannot.
        """
        if recipe.drops_subsets():
            raise ConfigError(
                "objective.drop_path_subset must be false with comparator 'jumbo', whose blocks leave images out by "
                "draws of their own, so that it would differ from its baseline by more than the treatment"
            )
