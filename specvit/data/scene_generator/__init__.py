"""Procedural scenes: random numbers to descriptions, descriptions to images with all targets.

``sample_scenes`` describes scenes, ``render`` draws them, ``CATEGORIES`` are the objects. Equal numbers give equal
bytes on every machine: what differs in the last bit from one to another is rounded.
"""

from specvit.data.scene_generator.categories import CATEGORIES, Category
from specvit.data.scene_generator.rendering import SceneBatch, render
from specvit.data.scene_generator.sampling import num_draws, sample_scenes

__all__ = ["CATEGORIES", "Category", "SceneBatch", "num_draws", "render", "sample_scenes"]
