"""Detection by a one-stage head on frozen patch tokens.

``Detection`` holds the settings; ``targets`` assigns objects to cells, ``fitting`` fits the head, ``decoding`` reads
boxes off it, ``average_precision`` scores them as COCO does. Boxes are in pixels, half open.
"""

from specvit.probes.detection.probe import Detection

__all__ = ["Detection"]
