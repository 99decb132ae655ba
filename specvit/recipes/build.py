"""From the settings of a recipe to the learner that trains a backbone: the one place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timm.models.vision_transformer import VisionTransformer

from specvit.data import Dataset
from specvit.recipes.deit3.learner import DeiT3Learner
from specvit.recipes.deit3.settings import DeiT3
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2
from specvit.recipes.mae.learner import MaeLearner
from specvit.recipes.mae.settings import Mae
from specvit.training.learner import Learner
from specvit.training.recipe import Recipe

LEARNERS: Mapping[type[Recipe], Callable[..., Learner]] = {
    DinoV2: DinoV2Learner.from_recipe,
    DeiT3: DeiT3Learner.from_recipe,
    Mae: MaeLearner.from_recipe,
}
"""What builds the learner of a recipe, and of those that derive from it."""


def build_learner(recipe: Recipe, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Learner:
    """Build the learner that trains a backbone as a recipe says.

    Args:
        recipe: One of ours, or one of another package, which builds its learner itself.
        backbone: The student, at its step 0.
        dataset: The images it will see, for the number of classes and the image size.
        seed: Seed of everything that the learner initialises; equal for all arms of a pair.

    Raises:
        ConfigError: If the backbone or the data do not fit the recipe.
        DataError: If a mask of a dense loss holds an unknown class.
    """
    if type(recipe).build is Recipe.build:
        for settings, from_recipe in LEARNERS.items():
            if isinstance(recipe, settings):
                return from_recipe(recipe, backbone, dataset, seed=seed)
    return recipe.build(backbone, dataset, seed=seed)
