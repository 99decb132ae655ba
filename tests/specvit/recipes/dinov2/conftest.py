"""What DINOv2's learner encodes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from specvit.models.vit import encode
from specvit.recipes.dinov2 import learner as dinov2


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what is encoded, by which backbone."""
    calls: list[dict[str, Any]] = []

    def spy(model: Any, images: Tensor, **masking: Any) -> Tensor:
        calls.append({"model": model, "images": images, "training": model.training, **masking})
        return encode(model, images, **masking)

    monkeypatch.setattr(dinov2, "encode", spy)
    return calls
