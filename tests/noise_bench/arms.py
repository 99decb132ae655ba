"""The arms of the bench: a baseline, a real arm, their repeats, and controls whose effect is known to be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from dataclasses import dataclass, replace

from specvit.config import Treatment, TrialConfig

from .settings import Setting, with_seed

BASELINE = "none"
REAL = "norm@all+qkv@first-third"
"""The real arm: the paper's own, as in ``sweeps/recipes.yaml``."""
TWINS = {"repeat": BASELINE, f"{REAL} repeat": REAL}
"""Arms that are another arm again, from weights a millionth away: the first is an A/A arm."""
TERMS = {"without dino": "dino_weight", "without ibot": "ibot_weight"}
STEPS = {"fewer steps": 0.8, "slightly fewer steps": 0.95}
CONTROLS = {
    **{arm: f"{1 - share:.0%} fewer steps" for arm, share in STEPS.items()},
    "half head": "half the width of the recipe's head or decoder",
    "large patches": "patches of twice the side; crops that they do not tile are enlarged",
    **{arm: f"the weight {field} set to 0" for arm, field in TERMS.items()},
}
"""Positive controls: every one makes the features worse, for reasons that no seed can hide."""
HEAD_FIELDS = ("head_hidden", "decoder_width")
ARMS = (BASELINE, REAL, *TWINS, *CONTROLS)


@dataclass(frozen=True)
class Task:
    """Trainings that one worker does in a row: a run, and the twin that is compared with it step by step.

    Attributes:
        setting: What is trained.
        seed: The trial's seed.
        arm: The run.
        twin: Its repeat, or None.
        record_run: Whether the run is to be probed and recorded; else it is trained for its twin's sake.
    """

    setting: Setting
    seed: int
    arm: str
    twin: str | None = None
    record_run: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        """Return what it trains."""
        return (self.arm,) if self.twin is None else (self.arm, self.twin)


def arm_config(setting: Setting, arm: str, seed: int) -> TrialConfig | None:
    """Return the trial of an arm; None if the setting's recipe or images do not have what a control changes."""
    config = with_seed(setting.baseline, seed)
    match TWINS.get(arm, arm):
        case "none":
            return config
        case _ if arm in STEPS:
            return replace(config, objective=_shorter(config, STEPS[arm]))
        case "half head":
            return _half_head(config)
        case "large patches":
            return _large_patches(config)
        case _ if arm in TERMS:
            return _without(config, TERMS[arm])
        case specialize:
            return replace(config, treatment=Treatment(specialize=specialize))


def tasks(setting: Setting, seed: int, *, done: Container[str], wanted: Container[str] = ARMS) -> list[Task]:
    """List what is left to do for a seed.

    Args:
        setting: What is trained.
        seed: The trial's seed.
        done: Arms whose runs are recorded.
        wanted: Arms that are to be.
    """
    twin_of = {run: twin for twin, run in TWINS.items()}

    def is_left(arm: str | None) -> bool:
        return arm in wanted and arm not in done

    found = []
    for arm in (BASELINE, REAL, *CONTROLS):
        twin = twin_of[arm] if is_left(twin_of.get(arm)) else None
        if (twin or is_left(arm)) and arm_config(setting, arm, seed) is not None:
            found.append(Task(setting, seed, arm, twin, record_run=is_left(arm)))
    return found


def _shorter(config: TrialConfig, share: float) -> object:
    recipe = config.objective
    if recipe.epochs is not None:
        return replace(recipe, epochs=share * recipe.epochs)
    return replace(recipe, steps=max(1, round(share * recipe.steps)))


def _half_head(config: TrialConfig) -> TrialConfig | None:
    recipe = config.objective
    field = next((field.name for field in dataclasses.fields(recipe) if field.name in HEAD_FIELDS), None)
    if field is None:
        return None
    try:
        return replace(config, objective=replace(recipe, **{field: getattr(recipe, field) // 2}))
    except ValueError:  # a width of no use to the recipe, e.g. no multiple of its heads
        return None


def _without(config: TrialConfig, weight: str) -> TrialConfig | None:
    """Take a term out of the loss, where the recipe has it."""
    if not getattr(config.objective, weight, 0.0):
        return None
    return replace(config, objective=replace(config.objective, **{weight: 0.0}))


def _large_patches(config: TrialConfig) -> TrialConfig | None:
    side = 2 * config.model.patch_size
    if config.data.image_size % side:
        return None
    # The next multiple, so that no view gets smaller.
    crops = {name: -(-size // side) * side for name, size in config.objective.crop_sizes().items()}
    return replace(
        config,
        model=replace(config.model, patch_size=side),
        objective=replace(config.objective, **crops),
    )
