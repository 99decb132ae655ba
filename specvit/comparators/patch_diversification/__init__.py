"""Patch diversification: losses that keep patches apart, in ``regulariser``; the model is the plain one."""

from specvit.comparators.patch_diversification.settings import PatchDiversification

__all__ = ["PatchDiversification"]
