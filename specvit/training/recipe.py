"""What a pretraining recipe is: its constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from specvit.settings import Flag, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from specvit.data import Dataset
    from specvit.training.learner import Learner

Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]


@settings
class Recipe:
    """What every recipe has: its length, its batch, its optimizer.

    A subclass adds ``recipe: Literal["its_name"] = "its_name"``, sets ``name`` to the same text, and overrides
    defaults with those of its source. Its learner holds the torch code: settings load without torch.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """Targets of the training split that the recipe learns from; empty for self-supervision."""
    resource_fields: ClassVar[frozenset[str]] = frozenset({"micro_batch"})
    """Fields that say how to compute, not what: they take no part in a trial's identity."""
    drops_patches: ClassVar[bool] = False
    """Whether the backbone sees but some patches of an image in training, so that a patch has no fixed row."""

    steps: PositiveInt = 200
    """Optimizer steps."""
    epochs: Annotated[float, Field(strict=True, gt=0, le=1e6)] | None = None
    """Passes over the training images, in place of ``steps``, which then counts for nothing: give one of the two."""
    batch_size: PositiveInt = 64
    """Images a step."""
    micro_batch: PositiveInt | None = None
    """Images that a process computes at once; their gradients add up to those of the batch. None = all of them.
    It changes a result by rounding alone, so it takes no part in a trial's identity; it is halved by itself where
    memory runs out. Views are made of the whole batch in any case."""
    optimizer: Literal["adamw", "lamb"] = "adamw"
    """``lamb`` scales the step of every matrix by its norm, so own [CLS] weights by a norm of their own; see
    ``specvit.training.optimizer``."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate at this batch size."""
    min_lr: NonNegativeFloat = 1e-6
    """Learning rate at the end of the cosine."""
    warmup: Fraction = 0.1
    """Share of the steps during which the learning rate rises linearly from 0."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay at the start; none for biases, norms, tokens, positions and layer scales."""
    weight_decay_end: NonNegativeFloat = 0.05
    """Weight decay at the end of its cosine."""
    layer_decay: Fraction = 1.0
    """Factor on the learning rate per block, counted from the last one; 1 = the same everywhere."""
    patch_embed_lr: Fraction = 1.0
    """Factor on the learning rate of the patch embedding, on top of the layer decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Rates of forgetting of the gradient's mean and of its square's, in AdamW and in LAMB."""
    clip_norm: NonNegativeFloat = 3.0
    """Largest gradient norm; 0 = no clipping."""
    drop_path: Fraction = 0.0
    """Stochastic depth rate of the last block."""
    drop_path_uniform: Flag = False
    """Whether all blocks have the rate ``drop_path``; else it rises linearly from 0 in the first block."""
    layer_scale: NonNegativeFloat = 0.0
    """Initial value of the layer scales; 0 = a model without them."""
    cls_position: Flag = True
    """Whether [CLS] has a position embedding."""
    cls_std: PositiveFloat = 1e-6
    """Standard deviation of the normal distribution that [CLS] is drawn from."""

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        default = next(field.default for field in dataclasses.fields(cast("Any", self)) if field.name == "steps")
        if self.epochs is not None and self.steps != default:
            raise ValueError(f"epochs must not be given beside steps, {self.steps}: give one, not epochs {self.epochs}")
        return self

    def for_images(self, num_images: int) -> Self:
        """Return the recipe with its length in steps, also where it is given in epochs.

        Args:
            num_images: Images of the training split.

        Returns:
            The recipe with ``steps`` and without ``epochs``. Batches run on from one epoch into the next and are
            always full, so steps are epochs x images x ``copies()`` / batch size, to the nearest whole number and
            one at least.
        """
        if self.epochs is None:
            return self
        steps = max(1, round(self.epochs * num_images * self.copies() / self.batch_size))
        return cast("Self", dataclasses.replace(cast("Any", self), steps=steps, epochs=None))

    @property
    def peak_lr(self) -> float:
        """Return the learning rate after the warm-up."""
        return self.lr

    def crop_sizes(self) -> Mapping[str, int]:
        """Return the sides of the crops that the recipe cuts, in pixels, by field; patches must tile them."""
        return {}

    def copies(self) -> int:
        """Return how often an image comes in a row in the order of images, each time to be augmented anew."""
        return 1

    def required_targets(self) -> Mapping[str, str]:
        """Return what these settings learn from: ``needs``, and what an option asks for beside.

        Returns:
            By target of the training split, the field that asks for it.
        """
        return dict.fromkeys(self.needs, "recipe")

    def drops_subsets(self) -> bool:
        """Return whether stochastic depth leaves out a fixed number of images a block, drawn for all arms alike."""
        return False

    def labels_patches(self) -> bool:
        """Return whether every patch has a class of its own in training: that of the image it was cut from."""
        return False

    def build(self, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Learner:
        """Build the learner that trains ``backbone``: for recipes of other packages to define.

        Ours are built by ``specvit.recipes.build.build_learner``, which calls this for all others.

        Args:
            backbone: The student, at its step 0.
            dataset: The images it will see, for the number of classes and the image size.
            seed: Seed of everything that the learner initialises; equal for all arms of a pair.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define build")
