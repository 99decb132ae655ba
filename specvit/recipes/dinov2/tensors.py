"""What passes between the parts of a step of DINOv2: the views, the teacher's targets, the student's outputs.

Shapes: B images, L local views, P patches of a global view, M masked patches, K prototypes, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DinoViews:
    """What the networks see of a batch, view by view.

    Attributes:
        global_views: ``(2 B, 3, H, W)``.
        local_views: ``(L B, 3, S, S)``, or None if L is 0.
        masked: ``(2 B, P)`` bool, the patches of the global views that are hidden from the student.
        progress: How far the run is, in [0, 1).
    """

    global_views: Tensor
    local_views: Tensor | None
    masked: Tensor
    progress: float


@dataclass(frozen=True)
class DinoTargets:
    """What the student of a part (b images, m masked patches) learns from.

    Attributes:
        cls: ``(2, b, K)`` the teacher's distributions of [CLS].
        patches: ``(m, K)`` those of the masked patches.
        student_cls: ``(2, B, D)`` the student's [CLS] of the whole batch; None where it need not be known before.
    """

    cls: Tensor
    patches: Tensor
    student_cls: Tensor | None


@dataclass(frozen=True)
class StudentOutputs:
    """What the student makes of a part (b images, m masked patches).

    Attributes:
        cls: ``(2 b, D)`` [CLS] of the global views.
        cls_logits: ``(2 + L, b, K)`` its outputs for the global views, then for the local ones.
        patch_logits: ``(m, K)`` those for the masked patches.
        masked: ``(2 b, P)`` bool, which these are.
        extra: The regulariser's terms.
    """

    cls: Tensor
    cls_logits: Tensor
    patch_logits: Tensor
    masked: Tensor
    extra: dict[str, Tensor]
