"""One training loop for every recipe.

``Recipe`` is what all settings of recipes have, ``Learner`` what the loop asks of their torch side, ``pretrain`` the
loop; a ``Checkpoint`` keeps its state.

* What a step draws follows from the seed and the step alone, so a run continues bit for bit on one machine.
* A ``SlicedLearner`` computes the same whatever parts its batch is cut into, by memory or by processes.
* Collectives of processes are called in ``collectives`` alone. ``recipe`` loads without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specvit.training.recipe import Recipe

if TYPE_CHECKING:
    from specvit.training.checkpoint import Checkpoint
    from specvit.training.learner import Batch, Learner, SlicedLearner
    from specvit.training.loop import StepReport, pretrain

__all__ = ["Batch", "Checkpoint", "Learner", "Recipe", "SlicedLearner", "StepReport", "pretrain"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from specvit.training import checkpoint, learner, loop

        return next(getattr(module, name) for module in (checkpoint, learner, loop) if hasattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
