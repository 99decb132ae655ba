"""The table of the segmentation protocols and what fits each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from specvit.probes.segmentation.base import Fitter
from specvit.probes.segmentation.knn import NearestFitter
from specvit.probes.segmentation.linear import HeadFitter
from specvit.probes.segmentation.logistic import LogisticFitter
from specvit.probes.segmentation.ridge import RidgeFitter

FITTERS: Mapping[str, Callable[..., Fitter]] = MappingProxyType(
    {"ridge": RidgeFitter, "logistic": LogisticFitter, "linear": HeadFitter, "knn": NearestFitter}
)
"""What fits each protocol: called with the training split and the protocol's settings but its candidates."""
