"""CaiT: [CLS] joins in class-attention blocks at the end. ``trunk`` holds the blocks."""

from specvit.comparators.class_attention.settings import ClassAttention

__all__ = ["ClassAttention"]
