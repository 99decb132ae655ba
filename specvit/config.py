"""The settings of one trial: everything that decides its numbers, and nothing else."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from specvit.comparators import AnyComparator
from specvit.data import AnyDataSource, DataSource
from specvit.models.config import check_high_norm
from specvit.models.scales import ScaleName
from specvit.probes import SelectedProbes
from specvit.recipes import AnyRecipe, Recipe
from specvit.settings import Flag, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, settings

PROTOCOL_VERSION = 2
"""Raised when the code changes what a configuration computes, so that old results are not taken for new.

2: shared weights get no gradient from rows with own weights; up to then they got its rounding error."""


PERTURBATION = 1e-6
"""What a repeat perturbs the initial weights of its arm by, see ``Treatment.perturbation``."""


@settings
class ModelSettings:
    """The backbone that is ablated."""

    path_fields: ClassVar[frozenset[str]] = frozenset({"checkpoint"})
    """Fields that say where something lies, not what it is, as ``DataSource.path_fields``."""

    scale: ScaleName = "nano"
    """A row of the table of scales."""
    patch_size: PositiveInt = 4
    """Side of a patch, in pixels; divides the image size."""
    high_norm: Annotated[str, AfterValidator(check_high_norm)] = "vanilla"
    """What is done about tokens of very high norm: ``vanilla`` (nothing), ``registers:N`` (N learned tokens
    beside [CLS]), ``attention_bias`` (a learned key and value in every head)."""
    checkpoint: str | None = None
    """A plain ViT that every trained arm starts from, own weights as copies of its weights: a safetensors or
    ``.pth`` file that all nodes see, a pretrained model's name in timm, or ``hf-hub:OWNER/REPOSITORY``. This
    one line says it; ``ablate.init`` still says whether own weights are copies."""
    checkpoint_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the checkpoint's file. It need not be given: it is found out before the first trial."""


@settings
class ExternalBackbone:
    """A finished backbone from elsewhere, which the probes look at beside the arms; it is not trained."""

    path_fields: ClassVar[frozenset[str]] = frozenset({"name", "checkpoint"})
    """Fields that say what it is called and where it lies, not what it is, as ``DataSource.path_fields``."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What its row is called."""
    checkpoint: Annotated[str, Field(min_length=1)]
    """A pretrained model's name in timm; ``hf-hub:OWNER/REPOSITORY``; or a file that all nodes see: one that
    ``specvit.checkpoints.save_model`` wrote, as sweeps keep them, or plain weights, safetensors or ``.pth``."""
    checkpoint_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the checkpoint's file. It need not be given: it is found out before the first trial."""
    model: str | None = None
    """timm's name of the architecture, where the checkpoint is a file of plain weights: ``vit_small_patch16_224``."""
    mean: tuple[float, float, float] | None = None
    """Mean of red, green and blue, from 0 to 1, that it wants images normalised by. Not given: the one that timm has of
    its pretrained models, and else ImageNet's."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Standard deviation, likewise."""


@settings
class Treatment:
    """What an arm does to the backbone; the rest of the configuration it shares with its group."""

    kind: Literal["specialize", "comparator", "random_init", "raw_pixels", "external"] = "specialize"
    """``specialize``: pretrain, with own [CLS] weights in places. ``comparator``: pretrain, the backbone changed
    as another paper does. ``random_init`` and ``raw_pixels`` are the floors of a table: a backbone that was never
    trained, and no backbone at all. ``external``: a backbone that was trained elsewhere."""
    specialize: str = "none"
    """Where there are own weights, e.g. ``norm@all+qkv(lora:8)@first-third``; ``none`` = nowhere, the baseline."""
    init: Literal["copy", "independent"] = "copy"
    """Own weights start as a copy of the shared ones, or are drawn anew."""
    tokens: Literal["cls", "placebo"] = "cls"
    """Which token gets the own weights: [CLS], or, as a control for their mere number, one fixed patch."""
    placebo_position: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """Row and column of that patch in the grid of the whole image; none given = the middle."""
    registers_with: Literal["cls", "patches"] = "cls"
    """Whether registers share the weights of [CLS] or those of the patches."""
    own_lr: PositiveFloat = 1.0
    """Factor on the learning rate of own weights, and so on the step of their weight decay, which goes by that rate."""
    own_weight_decay: NonNegativeFloat = 1.0
    """Factor on the weight decay of own weights that decay at all: matrices do, norms, biases and the like do not."""
    perturbation: NonNegativeFloat = 0.0
    """Standard deviation of the factor, less 1, that every initial weight is multiplied by: ``1e-6`` repeats an arm but
    for its rounding. See ``specvit.models.perturbation``."""
    comparator: AnyComparator | None = None
    """The other paper's change, where ``kind`` is ``comparator``."""
    external: ExternalBackbone | None = None
    """The backbone, where ``kind`` is ``external``."""

    @property
    def is_trained(self) -> bool:
        """Return whether there is a pretraining: floors and external backbones have none."""
        return self.kind in ("specialize", "comparator")

    @model_validator(mode="after")
    def _check_fields(self) -> Treatment:
        for kind in ("comparator", "external"):
            if (self.kind == kind) != (getattr(self, kind) is not None):
                raise ValueError(f"{kind} must be given exactly where kind is {kind!r}, not {self.kind!r}")
            if self.kind == kind and self.specialize != "none":
                raise ValueError(f"specialize must be 'none' where kind is {kind!r}, not {self.specialize!r}")
        for name in ("own_lr", "own_weight_decay"):
            if self.specialize == "none" and getattr(self, name) != 1:
                raise ValueError(f"{name} must be 1 where there are no own weights, not {getattr(self, name)}")
        if self.perturbation and not self.is_trained:
            raise ValueError(f"perturbation must be 0 where kind is {self.kind!r}, not {self.perturbation}")
        return self


RUNG_SCORED_SHARE = 0.25
"""Share of a rung's images that are scored; the probes are fitted on the others."""


@settings
class RungSettings:
    """The cheap probes on the way: curves, and the ground on which trials are pruned.

    They look at the training split alone (most of the images to fit, a quarter to score), so that pruning
    never chooses on the reported split. Where labels or masks train the backbone, it is not trained on the images
    that are scored, or the arm that learns them by heart would be ahead.

    Why images of the training split, and not others: a source read from files has no third split, scoring on a part
    of the reported one would choose on it, and taking that part out of it would make its numbers other than everyone's.
    What is trained does not depend on whether trials are pruned, by what, or how often there are rungs.
    """

    count: NonNegativeInt = 3
    """Number of rungs, evenly spread over the run; the end of the run is not one of them."""
    num_images: Annotated[int, Field(strict=True, ge=2)] = 512
    """Training images that a rung looks at; a quarter of them is scored. A probe whose target none of the fitted or
    none of the scored images has (no labelled pixel, no box) is left out of the rung."""
    probes: tuple[str, ...] = ()
    """Names of the probes to run; empty = those of ``knn`` and ``segmentation`` that are on, or else the first."""
    held_out: Flag = True
    """Whether a recipe that learns from labels or masks is not trained on the images that rungs score, the same ones
    for all arms of a seed. Other recipes are trained on all images in any case, and so are all where there are no
    rungs; probes at the end are fitted on all. false = rungs score what was trained on: not to be pruned by."""

    def num_scored(self, num_images: int) -> int:
        """Return how many images of a training split of ``num_images`` are scored."""
        return max(1, int(min(self.num_images, num_images) * RUNG_SCORED_SHARE))

    def num_held_out(self, recipe: Recipe, num_images: int) -> int:
        """Return how many images of a training split of ``num_images`` are left out of the pretraining."""
        is_honest_anyway = not recipe.required_targets() or self.count == 0
        return 0 if is_honest_anyway or not self.held_out else self.num_scored(num_images)


def default_rung_probes(probes: SelectedProbes) -> tuple[str, ...]:
    """Return the probes that rungs run if none are named: those on that are cheap, or else the first that is on."""
    return tuple(probe.name for probe in probes if probe.at_rungs) or tuple(probe.name for probe in probes[:1])


@settings
class TrialConfig:
    """One arm with one seed, fully resolved: two equal configurations give two equal results."""

    treatment: Treatment
    model: ModelSettings
    data: AnyDataSource
    objective: AnyRecipe
    probes: SelectedProbes
    rungs: RungSettings
    seed: NonNegativeInt
    diagnostics: Flag = False
    """Whether to look into the backbone at the end; see ``specvit.diagnostics.diagnose``."""

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Return where its images come from, each once: those of the pretraining, then those of probes."""
        own = (probe.data for probe in self.probes)
        return tuple(dict.fromkeys((self.data, *(source for source in own if source is not None))))
