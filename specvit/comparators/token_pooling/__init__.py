"""Token pooling: patches are pooled on the way. ``trunk`` holds the pooling."""

from specvit.comparators.token_pooling.settings import TokenPooling

__all__ = ["TokenPooling"]
