"""What a table says of times and memory, in which two runs of one sweep differ."""

from __future__ import annotations

TIMES = ("seconds", "core_seconds")
COSTS = ("training_s", "training_images_per_s", "peak_memory_gib", "peak_gpu_memory_gib")
MEASURED = [*TIMES, *COSTS]
"""Columns of a CSV."""
NUM_LAST = 4
"""Columns at the end of a Markdown table: seconds, and three of the training."""
