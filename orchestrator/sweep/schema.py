"""What a sweep file can say, and what is known once it has been read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from orchestrator.sweep.controls import ControlText
from orchestrator.sweep.declared.comparison import ComparisonSettings
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.naming import check_name
from orchestrator.sweep.problems import value_text
from orchestrator.sweep.pruning_settings import AnyPruner, NoPruning
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trackers import Addresses, SelectedTrackers
from specvit.comparators import COMPARATORS, AnyComparator
from specvit.config import ExternalBackbone, ModelSettings, RungSettings
from specvit.data import AnyDataSource
from specvit.data.sources.scenes import Scenes
from specvit.errors import ConfigError
from specvit.probes import SelectedProbes
from specvit.recipes import AnyRecipe
from specvit.settings import Flag, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, settings

MAX_TRIALS = 100_000

SECTIONS: dict[str, Any] = {"model": ModelSettings, "data": AnyDataSource, "objective": AnyRecipe}
"""The sections whose fields can vary from group to group, with their types."""

DISCRIMINATORS = {"data": "source", "objective": "recipe", "pruning": "pruner"}
"""The sections whose fields depend on one of them, and which one that is."""

INNER_KINDS = ("comparator", "tracker", "source")
"""The fields that tell the kind of a part which is no section: it stands in a list, or is a probe's own data."""

FORMS = {"seeds": ("growing", "fixed"), "vary": ("product", "joint")}
"""What pydantic calls the two forms of a field in the places of its errors: that of a mapping, then that of a list."""

VARY_PATH = re.compile(rf"({'|'.join(SECTIONS)})\.[a-z_][a-z0-9_]*")
"""A field that can vary: a section, a dot, a field."""


def _list_seeds(value: object) -> object:
    """Return the list of seeds for their number."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_TRIALS:
            raise ConfigError(f"must be a list of seeds, or their number from 1 to {MAX_TRIALS}, not {value}")
        return list(range(value))
    return value


def _check_unique(seeds: tuple[int, ...]) -> tuple[int, ...]:
    value, count = Counter(seeds).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"must hold each seed once, but {value} comes {count} times")
    return seeds


def _switch_on(value: object) -> object:
    """Read ``knn:`` with nothing behind it as ``knn: {}``; ``knn: false`` is off."""
    if isinstance(value, dict):
        return {name: {} if probe is None else None if probe is False else probe for name, probe in value.items()}
    return value


def _form_of(field: str) -> Discriminator:
    """Return what tells the two forms of a field from each other."""
    return Discriminator(lambda value: FORMS[field][not isinstance(value, Mapping | GrowingSeeds)])


def _check_is_list(value: object) -> object:
    """Refuse what is neither form of ``vary``."""
    if not isinstance(value, list | tuple):
        rule = "must be a mapping (field: [values]) or a list of mappings (field: value)"
        raise ConfigError(f"{rule}, not {value_text(value)}")
    return value


def _check_values(value: object) -> object:
    if value == []:
        raise ConfigError("must not be empty: an empty grid has no trials")
    return value


Name = Annotated[str, AfterValidator(check_name)]
Seeds = Annotated[
    tuple[NonNegativeInt, ...],
    Field(min_length=1),
    AfterValidator(_check_unique),
    BeforeValidator(
        _list_seeds,
        json_schema_input_type=Annotated[int, Field(ge=1, le=MAX_TRIALS)]
        | Annotated[list[NonNegativeInt], Field(min_length=1)],
    ),
]
AnySeeds = Annotated[
    Annotated[GrowingSeeds, Tag(FORMS["seeds"][0])] | Annotated[Seeds, Tag(FORMS["seeds"][1])], _form_of("seeds")
]
Texts = Annotated[tuple[str, ...], Field(min_length=1)]
ComparatorEntry = Annotated[
    AnyComparator, BeforeValidator(COMPARATORS.read_name), Field(json_schema_extra=COMPARATORS.allow_names)
]
Axis = Annotated[tuple[Any, ...], Field(min_length=1)]
AxisPath = Annotated[str, Field(pattern=rf"^{VARY_PATH.pattern}$")]
JointSetting = Annotated[dict[AxisPath, Annotated[Any, AfterValidator(_check_values)]], Field(min_length=1)]
Vary = Annotated[
    Annotated[dict[AxisPath, Axis], Tag(FORMS["vary"][0])]
    | Annotated[
        tuple[JointSetting, ...], Field(min_length=1), BeforeValidator(_check_is_list), Tag(FORMS["vary"][1])
    ],
    _form_of("vary"),
]
Floor = Literal["random_init", "raw_pixels"]


@settings
class Ablation:
    """The axes inside a group: what the arms do to the backbone."""

    components: Texts | None = None
    """Components, joined by ``+``, crossed with ``blocks``: ``[none, norm, qkv, norm+qkv]``."""
    blocks: Texts | None = None
    """Block ranges, each given to every component that has no range of its own; default ``[all]``."""
    specialize: Texts | None = None
    """Specializations written out, beside or instead of ``components``: ``[norm@all+qkv@first-third]``. ``paper`` is
    the paper's arm: ``norm@all+qkv@first-third``, in models with layer scales also ``layerscale@all``; the same trials
    as those texts."""
    init: Annotated[tuple[Literal["copy", "independent"], ...], Field(min_length=1)] = ("copy",)
    """How own weights start: as copies of the shared ones, or drawn anew."""
    modes: Texts = ("full",)
    """How much of a weight is own, for the components that name no mode themselves: ``full``, ``gate`` (own
    weights blended with the shared ones by a share a channel), ``gate:token`` (by a share that depends on the token),
    ``lora:R`` (the shared ones plus a matrix of rank R)."""
    tokens: Annotated[tuple[Literal["cls", "placebo"], ...], Field(min_length=1)] = ("cls",)
    """Which token gets the own weights: [CLS], or one fixed patch, as a control for their mere number."""
    placebo_position: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """Row and column of the placebo's patch in the grid of the whole image, also of a placebo among the ``controls``;
    default: the middle."""
    registers_with: Annotated[tuple[Literal["cls", "patches"], ...], Field(min_length=1)] = ("cls",)
    """Whether registers share the weights of [CLS] or those of the patches."""
    own_lr: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    """Factors on the learning rate of own weights: ``[1.0, 0.5]`` has each arm at the rate of the shared weights and at
    half of it. Their weight decay, which is a part of each step that goes by the rate, changes along."""
    own_weight_decay: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (1.0,)
    """Factors on the weight decay of own weights; 0 = none. Arms whose own weights are vectors alone, which never
    decay, come once."""
    comparators: Annotated[tuple[ComparatorEntry, ...], Field(min_length=1)] | None = None
    """Other papers' changes to the plain model, each an arm: a name, or ``{comparator: jumbo, slots: 4}``."""


@settings
class SweepFile:
    """A sweep: pretrain Vision Transformers with own [CLS] weights in places, then probe them."""

    objective: AnyRecipe
    """The pretraining recipe, by ``recipe``, and its constants."""
    probes: Annotated[SelectedProbes, BeforeValidator(_switch_on)]
    """Probes on the frozen features, each with its settings; ``{}`` or nothing takes the defaults, ``false`` switches
    one off that the extended file has."""
    extends: str | None = None
    """Another sweep file, whose fields are taken over: its path, from the folder of this file. Mappings are merged by
    field, lists and values replaced, as is a section with another ``recipe``, ``source``, ``pruner`` or ``protocol``;
    null takes a field away. ``name`` is not taken over."""
    name: Name | None = None
    """Name of the folder of its results; default: the file's name without its ending."""
    question: str = ""
    """What the sweep is to answer; printed above the table."""
    model: ModelSettings = Field(default_factory=ModelSettings)
    """The backbone."""
    data: AnyDataSource = Field(default_factory=Scenes)
    """The images, by ``source``; default: the embedded scenes."""
    rungs: RungSettings = Field(default_factory=RungSettings)
    """The cheap probes on the way."""
    seeds: AnySeeds = (0, 1, 2)
    """Seeds, or their number; every arm runs with each of them. Or seeds that grow: ``{start: 4, most: 16}`` gives arms
    that are not decided by the first four more of them."""
    ablate: Ablation = Field(default_factory=Ablation)
    """The axes inside a group: its arms, beside the baseline, which is always there."""
    vary: Vary = Field(default_factory=dict)
    """What makes groups. Axes, which are crossed: a field of model, data or objective (``model.scale``) and its values.
    Or a list of joint settings, each a group: ``[{model.scale: nano, objective.lr: 1e-3}, {model.scale: micro,
    objective.lr: 5e-4}]``; a field with a list of values makes a group with each of them."""
    primary_metric: str | None = None
    """The metric whose verdicts are the sweep's claims, e.g. ``miou``; all others are exploratory. Default: the one
    that pruning judges by, if it is named; else ``miou``, else the first dense one (masks, depth, boxes), else the
    first."""
    smallest_effect: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Smallest difference of interest by metric, in its unit: ``{miou: 1.0}``. An arm whose interval lies within it to
    both sides is ``equivalent``. To be chosen before the results are seen; takes no part in a trial's identity."""
    comparison: ComparisonSettings = ComparisonSettings()
    """How tables compare arms with the baseline: by which model, and by which variance."""
    baseline_seeds: PositiveInt | None = None
    """Seeds of the baseline in all, where it is to have more than the arms: those that follow the largest of ``seeds``.
    Needs ``comparison: {model: unblocked}``. About sqrt(k) times as many as each of k arms make differences most
    precise for the number of trials (Dunnett 1955). Default: as many as the arms."""
    floors: tuple[Floor, ...] = ("random_init", "raw_pixels")
    """Rows to stand above: a backbone that was never trained, and no backbone at all."""
    controls: tuple[ControlText, ...] = ()
    """Rows below the arms whose difference to the baseline should be none: ``repeat``, the baseline again from initial
    weights that are perturbed by a relative 1e-6; ``placebo``, the own weights of the arm with most of them, given to
    one fixed patch (``ablate.placebo_position``) in place of [CLS]; ``placebo:norm@all``, those of other places. They
    run with every seed of the baseline, are never pruned, and widen no interval of an arm."""
    external: tuple[ExternalBackbone, ...] = ()
    """Finished backbones from elsewhere, as rows of every table. The same probes look at them, with the first seed
    alone, since nothing is trained; they are paired with nothing."""
    pruning: AnyPruner = Field(default_factory=NoPruning)
    """Who judges at the rungs which trials are hopeless."""
    resources: Resources = Field(default_factory=Resources)
    """What one trial occupies."""
    priority: tuple[str, ...] = ()
    """Arms that come first within a seed, after baselines, controls and floors, as their rows are called in the table;
    the others follow, the largest first. Takes no part in a trial's identity."""
    time_budget_h: PositiveFloat | None = None
    """Hours that a run may take. Seeds that do not fit are left out, the last ones first, and the table says so."""
    max_gpu_hours: PositiveFloat | None = None
    """GPU hours that all runs of the sweep may take together; likewise."""
    max_retries: NonNegativeInt = 2
    """How often a trial that fails is tried again, before it is recorded as failed."""
    stall_timeout_s: PositiveFloat = 1800
    """Seconds without progress after which a trial is killed and tried again. It has to be longer than the longest
    probe."""
    start_timeout_s: PositiveFloat = 1800
    """Seconds that a trial is pending at most, given a place without a worker that starts on it, before it waits again
    for another one. It has to be longer than it takes a node to fetch the data."""
    checkpoint_every_s: NonNegativeFloat = 60
    """Least seconds between two times of saving the state of a running trial, from which it goes on if it is
    interrupted; 0 = never. Takes no part in a trial's identity."""
    checkpoint_max_share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.01
    """Share of a running trial's time, above 0, that the saving of its states may take: those of large models are saved
    less often than every ``checkpoint_every_s``. 1 = as often as that, whatever it takes. Takes no part in a trial's
    identity."""
    keep_weights: Flag | None = None
    """Whether to keep the weights of every trained backbone, DINOv2's student and teacher both, as
    ``weights/ARM-SEED-ID/NAME.safetensors`` beside the tables, with an index in ``weights/index.csv``. They are what a
    probe that comes later looks at. Not given: where those of all trials take a GiB at most, which those of the
    embedded sweeps do. Takes no part in a trial's identity: trials that have been run without it have none."""
    diagnostics: Flag = False
    """Whether to look into every backbone at its end: cosines between [CLS] and patches, norms and attention,
    block by block; written as ``diagnostics.csv``."""
    trackers: SelectedTrackers = ()
    """Experiment trackers that are told of every trial while it runs, each by its name or as ``{tracker: mlflow, ..}``:
    ``tensorboard``, ``mlflow``, ``wandb``, ``trackio``. Takes no part in a trial's identity."""
    notify: Addresses = ()
    """Webhook that gets a message, JSON that Slack reads, when a run ends, is stopped or fails: an address, or several.
    ``$SPECSWEEP_NOTIFY`` stands for those in the environment variable of this name, which also counts where nothing is
    given. Takes no part in a trial's identity, and is not kept in any copy of the file."""


class _SchemaGenerator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        # pydantic builds a serializer for every default of every field, of which most are plain.
        return dft if type(dft) in (bool, int, float, str, NoneType) else super().encode_default(dft)


def sweep_json_schema(*, written_out: bool = False) -> dict[str, Any]:
    """Return the JSON schema of the sweep file, for editors.

    Args:
        written_out: Whether to require what a sweep needs; else a file may leave that to the one that it extends, or to
            its groups.

    Returns:
        A schema of draft 2020-12 that accepts every valid sweep file, but for a null that takes a field away within a
        section of the file that it extends.
    """
    schema = TypeAdapter(SweepFile).json_schema(schema_generator=_SchemaGenerator)
    for section in DISCRIMINATORS:
        # A field that tells the kind may be absent, as it may be varied; then "exactly one fits" is too strict.
        union = schema["properties"][section]
        union["anyOf"] = union.pop("oneOf")
        for kind in union["discriminator"]["mapping"].values() if not written_out else ():
            schema["$defs"][kind.rpartition("/")[2]].pop("required", None)
    for probe in schema["properties"]["probes"]["properties"].values():
        probe["anyOf"].append({"const": False})
    if not written_out:
        required = schema.pop("required")
        schema |= {"if": {"required": ["extends"]}, "else": {"required": required}}
        for name in schema["properties"].keys() - set(required):
            field = schema["properties"][name]
            about = {key: field.pop(key) for key in ("description", "default") if key in field}
            schema["properties"][name] = {**about, "anyOf": [field, {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "specsweep sweep file",
    }
