"""Schedules over a run: functions of the progress in [0, 1]."""

from __future__ import annotations

import math


def cosine(progress: float, start: float, end: float) -> float:
    """Move from ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(progress: float, *, peak: float, end: float, warmup: float) -> float:
    """Rise linearly from 0 to ``peak`` during the share ``warmup`` of the run, then fall on a cosine to ``end``."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup), peak, end) if warmup < 1 else peak


def linear(progress: float, start: float, end: float, *, until: float) -> float:
    """Move linearly from ``start`` to ``end`` during the share ``until`` of the run, then stay."""
    return end if progress >= until else start + (end - start) * progress / until
