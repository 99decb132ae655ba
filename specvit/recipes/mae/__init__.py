"""MAE: a decoder paints the hidden patches.

``settings`` holds the constants, their source and what deviates from it; ``learner`` masks and loss, with
``decoder``.
"""

from specvit.recipes.mae.settings import Mae, MaeCpu

__all__ = ["Mae", "MaeCpu"]
