"""The table of the segmentation protocols and what fits each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from specvit.probes.segmenters.base import Fitter
from specvit.probes.segmenters.knn import NearestFitter
from specvit.probes.segmenters.linear import HeadFitter
from specvit.probes.segmenters.logistic import LogisticFitter
from specvit.probes.segmenters.ridge import RidgeFitter

FITTERS: Mapping[str, Callable[..., Fitter]] = MappingProxyType(
    {"ridge": RidgeFitter, "logistic": LogisticFitter, "linear": HeadFitter, "knn": NearestFitter}
)
"""What fits each protocol: called with the training split and the protocol's settings but its candidates."""
