"""Every probe with every protocol, so that it is done in a moment, for tests of what surrounds it."""

from __future__ import annotations

from typing import Any

FAST: dict[str, Any] = {"lrs": (0.01, 0.03), "batch_size": 16}
SHORT_PROBES: list[tuple[str, dict[str, Any]]] = [
    ("attentive", {"epochs": 1, "head_dim": 2, "weight_decays": (1e-3,), **FAST}),
    ("clustering", {}),
    ("depth", {}),
    ("depth", {"protocol": "bins", "steps": 2, "num_bins": 8, **FAST}),
    ("detection", {"steps": 2, "width": 8, **FAST}),
    ("in_context", {}),
    ("knn", {}),
    ("linear", {"cs": (1e-2, 1e-1)}),
    ("linear", {"protocol": "sgd", "epochs": 1, **FAST}),
    ("segmentation", {}),
    ("segmentation", {"protocol": "logistic", "cs": (1e-2, 1e-1)}),
    ("segmentation", {"protocol": "linear", "steps": 2, **FAST}),
    ("segmentation", {"protocol": "knn"}),
]
