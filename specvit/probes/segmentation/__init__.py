"""Segmentation from frozen patch tokens, a file for each protocol.

``Segmentation`` holds the settings of all protocols. A protocol is a ``Fitter`` of ``base``, listed in ``fitters``: it
fits for several candidates of its hyper-parameter, and never sees the split that is reported on.
"""

from specvit.probes.segmentation.probe import Segmentation

__all__ = ["Segmentation"]
