"""Depth from frozen patch tokens, a file for each protocol.

``Depth`` holds the settings of all protocols. A protocol is a ``Fitter`` of ``base``: it fits for several candidates of
its hyper-parameter, and never sees the split that is reported on.
"""

from specvit.probes.depth.probe import Depth

__all__ = ["Depth"]
