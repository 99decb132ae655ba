"""DINOv2: self-distillation of views and of masked patches.

``settings`` holds the constants, their source and what deviates from it; ``learner`` student and teacher, with
``head``, ``losses`` and ``masking``.
"""

from specvit.recipes.dinov2.settings import DinoV2, DinoV2Cpu, DinoV2Long, DinoV2Short

__all__ = ["DinoV2", "DinoV2Cpu", "DinoV2Long", "DinoV2Short"]
