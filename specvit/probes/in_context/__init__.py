"""In-context segmentation after Hummingbird: ``probe`` holds the settings, ``memory`` what looks patches up."""

from specvit.probes.in_context.probe import InContext

__all__ = ["InContext"]
