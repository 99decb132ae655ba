"""DeiT-III: supervised training on mixed images, and a dense loss of ours on patches.

``settings`` holds the constants, their source and what deviates from it; ``learner`` the loss, with ``augment`` and
``dense_loss``.
"""

from specvit.recipes.deit3.settings import DeiT3, DeiT3Cpu, DeiT3DenseCpu

__all__ = ["DeiT3", "DeiT3Cpu", "DeiT3DenseCpu"]
