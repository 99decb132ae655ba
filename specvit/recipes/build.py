"""From the settings of a recipe to the learner that trains a backbone: the one place that knows both."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from specvit.data import Dataset
from specvit.recipes.deit3.dense_loss import check_masks
from specvit.recipes.deit3.learner import DeiT3Learner
from specvit.recipes.deit3.settings import DeiT3
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2
from specvit.recipes.mae.learner import MaeLearner
from specvit.recipes.mae.settings import Mae
from specvit.training.learner import Learner
from specvit.training.recipe import Recipe


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
        image_size = dataset.train.images.shape[-1]
        if isinstance(recipe, DinoV2):
            return DinoV2Learner(backbone, recipe, global_size=recipe.global_size or image_size, seed=seed)
        if isinstance(recipe, DeiT3):
            num_masks = len(dataset.mask_names)
            if recipe.dense_weight > 0:
                check_masks(dataset.train.masks, num_classes=num_masks, field="objective.dense_weight")
            num_classes = len(dataset.class_names)
            return DeiT3Learner(backbone, recipe, num_classes=num_classes, num_mask_classes=num_masks, seed=seed)
        if isinstance(recipe, Mae):
            return MaeLearner(backbone, recipe, image_size=image_size, seed=seed)
    return recipe.build(backbone, dataset, seed=seed)
