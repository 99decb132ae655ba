"""Attentive classification: a learned query over frozen tokens.

``Attentive`` holds the settings; ``pooling`` trains all candidates side by side, each as if it were alone.
"""

from specvit.probes.attentive.probe import Attentive

__all__ = ["Attentive"]
