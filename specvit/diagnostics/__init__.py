"""What [CLS] and patches look like inside a ViT: cosines, norms and attention, block by block.

``diagnose.diagnose`` measures a model on images; a ``Measurement`` is one number with its place, to travel and be
stored without torch. Models are looked at by hooks, and are afterwards as they were.
"""

from specvit.diagnostics.measurement import Measurement

__all__ = ["Measurement"]
