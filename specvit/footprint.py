"""How much memory a trial takes, by arithmetic on its settings: no model is built, and torch is not needed.

Training holds, in bytes: weights, gradients and the optimizer's two averages of each, DINOv2's teacher, the views of
the whole batch, and of the images that are computed at once (``micro_batch``) what the backward pass needs. Of a block
that is, for N tokens of D channels, 16 N D numbers: its inputs of both norms and their outputs, queries, keys and
values, what attention read, and the MLP's hidden layer before and after its GELU at 4 N D each; layer scales keep 2
more. Blocks that compute a subset of the images (DINOv2) keep that share of it. Of heads with many prototypes, outputs
and targets count. What probes hold is ``specvit.probe_footprint``'s.

The tests hold this to 15% of the peaks that torch's profiler measures on CPUs. On GPUs, where autocast has the larger
part of what a block keeps in 2 bytes a number, it has not been measured; what CUDA, its libraries and the fragments
between blocks of memory take comes on top. Comparators and recipes of other packages are not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from specvit.config import TrialConfig
from specvit.data import DataSource
from specvit.models.config import parse_high_norm
from specvit.models.parameter_counts import count_block_parameters
from specvit.models.scales import SCALES
from specvit.probe_footprint import WIDE, Counting, known_counts, probe_bytes
from specvit.recipes.deit3.settings import DeiT3
from specvit.recipes.dinov2.settings import DinoV2
from specvit.recipes.mae.settings import Mae
from specvit.training.recipe import Recipe

NARROW = 2
"""Bytes of a bfloat16, to which autocast narrows on GPUs."""

_CPU_BATCH, _GPU_BATCH = 32, 256
"""Images whose features are computed at once (``specvit.probes.features``)."""

LIBRARIES = 2**30
"""Bytes of the machine's memory that a process holds with torch loaded, before it has data: some 0.7 GiB on CPUs."""

_WIDE_A_BLOCK = 2
"""Numbers a token and channel that a block keeps in float32 in any case: the inputs of its norms."""
_NARROW_A_BLOCK = 14
"""Those that autocast narrows."""
_NARROW_OF_SCALES = 2
"""Those that layer scales add."""
_NARROW_OF_BIASES = 2
"""Those that attention biases add, keys and values with one more row."""
_AT_THE_END = 6
"""Numbers a token and channel that the final norm keeps, and the first block's backward pass has in hand."""
_DRAWN_AT_ONCE, _DRAWN_AT_ONCE_DEIT3 = 3, 5
"""Copies of a batch's views that are at hand while they are drawn."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a process at the peak of a training, part by part.

    Attributes:
        weights: What is trained, and the teacher.
        gradients: Theirs, as far as they are there at the peak.
        optimizer: Its averages.
        activations: What the backward pass needs of the images that are computed at once, heads without prototypes'
            outputs.
        heads: Prototypes at length 1, outputs and targets.
        views: Images and views of the whole batch.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    heads: int
    views: int

    @property
    def total(self) -> int:
        """Return their sum."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.heads + self.views


@dataclass(frozen=True)
class Footprint:
    """Bytes that a process of a trial takes at most.

    Attributes:
        gpu: Of the GPU; 0 where it computes on the CPU; None where its training is not known.
        machine: Of the machine, the images of its sources apart, which trials share; None where something is not known.
        features: What its probes hold and make of it, a part of ``machine``; None where the number of images is not
            known.
        training: The parts of the training; None where there is none, or it is not known.
    """

    gpu: int | None
    machine: int | None
    features: int | None
    training: TrainingMemory | None


@dataclass(frozen=True)
class _Pass:
    """A forward pass of the backbone: so many views of an image, of so many tokens and pixels."""

    views: int
    tokens: int
    pixels: int


def training_memory(
    config: TrialConfig, *, num_parameters: int, processes: int = 1, narrow: int = WIDE
) -> TrainingMemory | None:
    """Compute the memory that a process of a trial holds at the peak of its training.

    Args:
        config: The trial.
        num_parameters: Of its backbone.
        processes: How many share its batch.
        narrow: Bytes of what autocast narrows: 2 on GPUs.

    Returns:
        The parts, or None where there is no training, or it is of a recipe or a comparator that is not known here.
    """
    recipe, scale = config.objective, SCALES[config.model.scale]
    is_known = isinstance(recipe, (DinoV2, DeiT3, Mae)) and config.treatment.comparator is None
    if not (config.treatment.is_trained and is_known):
        return None
    patch, side = config.model.patch_size, config.data.image_size
    high_norm = parse_high_norm(config.model.high_norm)
    prefix = 1 + high_norm.num_registers
    own = -(-recipe.batch_size // processes)
    at_once = min(recipe.micro_batch or own, own)
    passes = forward_passes(recipe, side=side, patch=patch, prefix=prefix)
    kept = (1 - recipe.drop_path) if recipe.drops_subsets() else 1.0
    narrow_numbers = (
        _NARROW_A_BLOCK + _NARROW_OF_SCALES * (recipe.layer_scale > 0) + _NARROW_OF_BIASES * high_norm.attention_bias
    )
    a_block = kept * (WIDE * _WIDE_A_BLOCK + narrow * narrow_numbers)
    tokens = sum(each.views * each.tokens for each in passes)
    largest = max(each.views * each.tokens for each in passes)
    activations = int(at_once * scale.width * (tokens * scale.depth * a_block + largest * _AT_THE_END * WIDE))

    trained = num_parameters + count_head_parameters(recipe, width=scale.width, patch=patch)
    teacher, heads = 0, 0
    if isinstance(recipe, DinoV2):
        teacher, num_patches = trained, passes[0].tokens - prefix
        learning = (2 + recipe.num_locals) * at_once + _masked(recipe, at_once, num_patches=num_patches)
        activations += learning * (WIDE * scale.width + narrow * (4 * recipe.head_hidden + 3 * recipe.head_bottleneck))
        heads = _head_bytes(recipe, at_once, num_patches=num_patches)
    elif isinstance(recipe, Mae):
        whole, decoded = (side // patch) ** 2, WIDE * _WIDE_A_BLOCK + narrow * _NARROW_A_BLOCK
        activations += at_once * (whole + 1) * recipe.decoder_width * (recipe.decoder_depth * decoded + 2 * WIDE)
        activations += 4 * WIDE * at_once * 3 * side * side  # pixels that are painted, and those they are compared with

    sizes = [WIDE * recipe.batch_size * each.views * each.pixels for each in passes]
    encoded = _is_encoded(config.data)
    images = sum(sizes) // WIDE if encoded else WIDE * recipe.batch_size * 3 * side * side
    at_hand = _DRAWN_AT_ONCE_DEIT3 if isinstance(recipe, DeiT3) else _DRAWN_AT_ONCE
    # Views are joined and normalised one kind after the other.
    drawing = images + sum(sizes) + max(at_hand * size + sum(sizes[:number]) for number, size in enumerate(sizes))
    views = images + sum(sizes)

    weights = WIDE * (trained + teacher) + (narrow * trained if narrow < WIDE else 0)
    gradients, moments = WIDE * trained, 2 * WIDE * trained
    # Gradients come as activations go; of a batch that is cut, those of the parts before are there all along.
    if at_once == own:
        gradients, activations, heads = max((gradients, 0, 0), (0, activations, heads), key=sum)
    if drawing > activations + heads + gradients + views:
        gradients, activations, heads, views = 0, 0, 0, drawing
    return TrainingMemory(weights, gradients, moments, activations, heads, views)


def _is_encoded(data: DataSource) -> bool:
    return getattr(data, "keep", "arrays") == "encoded"


def _masked(recipe: DinoV2, at_once: int, *, num_patches: int) -> int:
    """Return how many patches of so many images are masked: of a part of a batch, of most parts at most."""
    crops, (low, high) = 2 * at_once, recipe.mask_ratio
    mean = recipe.mask_probability * (low + high) / 2
    square = recipe.mask_probability * (low * low + low * high + high * high) / 3
    spread = math.sqrt(max(0.0, crops * (square - mean * mean) * (1 - at_once / recipe.batch_size)))
    return int(num_patches * min(crops * high, crops * mean + 2 * spread))


def _head_bytes(recipe: DinoV2, at_once: int, *, num_patches: int) -> int:
    """Return what prototypes take beside themselves: theirs at length 1, outputs, and targets, of so many images."""
    masked, views = _masked(recipe, at_once, num_patches=num_patches), (2 + recipe.num_locals) * at_once
    prototypes = WIDE * recipe.num_prototypes * recipe.head_bottleneck
    # The teacher's for [CLS] and for patches, the student's; targets; then what is larger, the student's outputs with
    # their logs and products with targets, or the gradients of its prototypes.
    unit = prototypes * (3 if recipe.shared_head else 4)
    targets = WIDE * recipe.num_prototypes * (2 * at_once + masked)
    outputs = WIDE * recipe.num_prototypes * (2 * views + 3 * masked + 3 * at_once)
    return unit + targets + max(outputs, prototypes * (4 if at_once < recipe.batch_size else 2))


def forward_passes(recipe: Recipe, *, side: int, patch: int, prefix: int) -> list[_Pass]:
    """Return the forward passes of a step, the one of the whole images, or of the global views, first."""

    def of(views: int, size: int, *, seen: float = 1.0) -> _Pass:
        return _Pass(views, prefix + max(1, int((size // patch) ** 2 * seen + 1e-6)), 3 * size * size)

    if isinstance(recipe, DinoV2):
        local = [of(recipe.num_locals, recipe.local_size)] if recipe.num_locals else []
        return [of(2, recipe.global_size or side), *local]
    return [of(1, side, seen=1 - recipe.mask_ratio if isinstance(recipe, Mae) else 1.0)]


def count_head_parameters(recipe: Recipe, *, width: int, patch: int) -> int:
    """Count the parameters of what a recipe trains beside the backbone; classifiers, which are small, not."""
    if isinstance(recipe, DinoV2):
        hidden = recipe.head_hidden
        bottlenecks = [recipe.head_bottleneck]
        if not recipe.shared_head:
            bottlenecks.append(recipe.patch_bottleneck or recipe.head_bottleneck)
        return width + sum(
            (width + 1) * hidden + (hidden + 1) * (hidden + bottleneck) + recipe.num_prototypes * bottleneck
            for bottleneck in bottlenecks
        )
    if isinstance(recipe, Mae):
        inner = recipe.decoder_width
        blocks = recipe.decoder_depth * count_block_parameters(inner, layer_scale=False)
        return (width + 1) * inner + inner + blocks + 2 * inner + (inner + 1) * 3 * patch * patch
    return 0


def footprint(
    config: TrialConfig,
    *,
    num_parameters: int,
    processes: int = 1,
    gpus: float = 0.0,
    counting: Counting = known_counts,
) -> Footprint:
    """Compute the memory that the main process of a trial takes, which alone has probes.

    Args:
        config: The trial.
        num_parameters: Of its backbone.
        processes: How many share its batch.
        gpus: GPUs of each.
        counting: How many images a source has.
    """
    on_gpu = gpus > 0 and config.treatment.kind != "raw_pixels"
    if config.treatment.external is not None:  # its shape is known once its file was read
        return Footprint(None if on_gpu else 0, None, None, None)
    narrow = NARROW if on_gpu else WIDE
    training = training_memory(config, num_parameters=num_parameters, processes=processes, narrow=narrow)
    features = probe_bytes(config, counting=counting)
    is_known = training is not None or not config.treatment.is_trained
    if not is_known:
        return Footprint(None if on_gpu else 0, None, features, None)
    stays = WIDE * num_parameters  # beside features: also what the training leaves
    if training is not None:
        stays = training.weights + training.optimizer * 3 // 2
    trained = 0 if training is None else training.total
    extraction = _extraction_bytes(config, batch=_GPU_BATCH if on_gpu else _CPU_BATCH, narrow=narrow)
    if on_gpu:
        recipe, pinned = config.objective, 0
        if _is_encoded(config.data):  # crops of a step and of the next
            sizes = forward_passes(recipe, side=config.data.image_size, patch=1, prefix=0)
            pinned = 2 * recipe.batch_size // processes * sum(each.views * each.pixels for each in sizes)
        machine = None if features is None else LIBRARIES + max(pinned, features)
        return Footprint(max(trained, stays + extraction), machine, features, training)
    probing = probe_bytes(config, extracting=extraction, counting=counting)
    machine = None if probing is None else LIBRARIES + max(trained, stays + probing)
    return Footprint(0, machine, features, training)


def _extraction_bytes(config: TrialConfig, *, batch: int, narrow: int) -> int:
    """Return what a block takes of the images whose features are computed at once, without a backward pass."""
    if config.treatment.kind == "raw_pixels":
        return 0
    largest = max(((probe.data or config.data).probed_size for probe in config.probes), default=0)
    tokens = 1 + parse_high_norm(config.model.high_norm).num_registers + (largest // config.model.patch_size) ** 2
    return batch * tokens * SCALES[config.model.scale].width * (2 * WIDE + 9 * narrow)
