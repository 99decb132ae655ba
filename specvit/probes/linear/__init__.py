"""Linear classification of frozen image features.

``Linear`` holds the settings of both protocols; ``sgd`` trains many classifiers side by side, each as if it were alone.
"""

from specvit.probes.linear.probe import Linear

__all__ = ["Linear"]
