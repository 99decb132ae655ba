"""DINOv2's student, teacher, views and losses. Settings and sources: ``specvit.objectives.dinov2``.

Shapes: B images, L local views, P patches of a global view, M masked patches, K prototypes, D channels.
"""

from __future__ import annotations

import copy

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.augment import ColourSettings, normalise, random_crops
from specvit.learners.base import Batch, Learner
from specvit.learners.dino_head import DinoHead, DinoNetwork
from specvit.learners.dino_losses import Centre, dino_loss, ibot_loss, koleo_loss, sinkhorn
from specvit.learners.masking import sample_masks
from specvit.objectives.dinov2 import DinoV2
from specvit.schedules import cosine, linear
from specvit.seeding import derive_seed, numpy_stream
from specvit.vit import encode

_JITTER = {
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "jitter_probability": 0.8,
    "grey_probability": 0.2,
}
VIEW_COLOURS = {
    "global 1": ColourSettings(**_JITTER, blur_probability=1.0),  # type: ignore[arg-type]
    "global 2": ColourSettings(**_JITTER, blur_probability=0.1, solarize_probability=0.2),  # type: ignore[arg-type]
    "local": ColourSettings(**_JITTER, blur_probability=0.5),  # type: ignore[arg-type]
}
"""Source: dinov2 data/augmentations.py."""


class DinoV2Learner(Learner):
    """Train a student to agree with its own moving average, across views and on hidden patches."""

    def __init__(self, backbone: VisionTransformer, recipe: DinoV2, *, global_size: int, seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.global_size = global_size
        width = backbone.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "heads"))
            cls_head = self._head(width, recipe.head_bottleneck)
            patch_bottleneck = recipe.patch_bottleneck or recipe.head_bottleneck
            patch_head = cls_head if recipe.shared_head else self._head(width, patch_bottleneck)
        self.student = DinoNetwork(backbone, cls_head=cls_head, patch_head=patch_head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.cls_centre = Centre(recipe.num_prototypes)
        self.patch_centre = Centre(recipe.num_prototypes)

    def _head(self, width: int, bottleneck: int) -> DinoHead:
        return DinoHead(
            width,
            hidden=self.recipe.head_hidden,
            bottleneck=bottleneck,
            num_prototypes=self.recipe.num_prototypes,
        )

    @property
    def probed(self) -> VisionTransformer:
        """Return the teacher's backbone or the student's, as the recipe says."""
        return (self.teacher if self.recipe.probe == "teacher" else self.student).backbone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the DINO, iBOT and KoLeo terms of a batch."""
        recipe = self.recipe
        global_views, local_views = self._views(batch)
        masked, weights = self._masks(batch, num_crops=len(global_views))
        cls_targets, patch_targets = self._targets(global_views, masked, progress=batch.progress)

        student = self.student
        tokens = encode(student.backbone, global_views, masked=masked, mask_token=self.mask_token)
        extra = self.extra_losses(tokens.patches)
        cls = [tokens.cls]
        if local_views is not None:
            cls.append(encode(student.backbone, local_views).cls)
        cls_logits, patch_logits = student.project(cls, tokens.patches[masked])
        by_view = cls_logits.view(-1, len(batch.images), recipe.num_prototypes)

        dino = dino_loss(cls_targets, by_view[:2], by_view[2:], temperature=recipe.student_temp)
        ibot = ibot_loss(
            patch_targets,
            patch_logits,
            weights=weights,
            num_crops=len(global_views),
            temperature=recipe.student_temp,
        )
        koleo = torch.stack([koleo_loss(view) for view in tokens.cls.chunk(2)]).sum()
        return {
            "dino": recipe.dino_weight * dino,
            "ibot": recipe.ibot_weight * ibot,
            "koleo": recipe.koleo_weight * koleo,
            **extra,
        }

    def clip_groups(self, trainable: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Part the heads from the rest (backbone, mask token, a regulariser), if the recipe clips them separately.

        Source: dinov2 train/train.py, which clips the modules of the student one by one.
        """
        if not self.recipe.clip_separately:
            return [trainable]
        student = self.student
        heads = [student.cls_head] if self.recipe.shared_head else [student.cls_head, student.patch_head]
        groups = [list(head.parameters()) for head in heads]
        in_heads = {id(parameter) for group in groups for parameter in group}
        return [[parameter for parameter in trainable if id(parameter) not in in_heads], *groups]

    def before_update(self, progress: float) -> None:
        """Keep the prototypes fixed at the start."""
        if progress >= self.recipe.freeze_prototypes:
            return
        for head in (self.student.cls_head, self.student.patch_head):
            head.prototypes.weight.grad = None

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        momentum = cosine(progress, self.recipe.ema, self.recipe.ema_end)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum
            )

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Cut the views: ``(2 B, 3, H, W)`` global and ``(L B, 3, S, S)`` local ones, view by view."""
        recipe = self.recipe

        def cut(name: str, number: int, size: int, scale: tuple[float, float]) -> Tensor:
            colour = VIEW_COLOURS[f"{name} {number}" if name == "global" else name] if recipe.colour else None
            if colour is not None and not recipe.blur_scales:
                colour = colour.blurred_for(size)
            return random_crops(
                batch.images,
                size=size,
                scale=scale,
                generator=batch.stream(f"{name} {number}"),
                colour=colour,
            )

        global_views = [cut("global", n, self.global_size, recipe.global_scale) for n in (1, 2)]
        local_views = [cut("local", n, recipe.local_size, recipe.local_scale) for n in range(recipe.num_locals)]
        return normalise(torch.cat(global_views)), normalise(torch.cat(local_views)) if local_views else None

    def _masks(self, batch: Batch, *, num_crops: int) -> tuple[Tensor, Tensor]:
        """Draw ``(2 B, P)`` masks, and ``(M,)`` weights of the masked patches."""
        patch_height, patch_width = self.student.backbone.patch_embed.patch_size
        masks = sample_masks(
            num_crops,
            grid=(self.global_size // patch_height, self.global_size // patch_width),
            probability=self.recipe.mask_probability,
            ratio=self.recipe.mask_ratio,
            rng=numpy_stream(batch.seed, "masks", batch.step),
        )
        masked = torch.from_numpy(masks).to(batch.images.device)
        share = masked.sum(dim=1, keepdim=True).clamp(min=1).reciprocal()
        return masked, share.expand_as(masked)[masked]

    @torch.no_grad()
    def _targets(self, global_views: Tensor, masked: Tensor, *, progress: float) -> tuple[Tensor, Tensor]:
        """Compute the teacher's targets: ``(2, B, K)`` of [CLS], ``(M, K)`` of the masked patches."""
        recipe = self.recipe
        self.teacher.eval()
        temperature = linear(
            progress, recipe.teacher_temp_start, recipe.teacher_temp, until=recipe.teacher_temp_warmup
        )
        tokens = encode(self.teacher.backbone, global_views)
        cls, patches = self.teacher.project([tokens.cls], tokens.patches[masked])
        if recipe.centering == "sinkhorn":
            cls, patches = (sinkhorn(logits, temperature=temperature) for logits in (cls, patches))
        else:
            cls = self.cls_centre(cls, temperature=temperature)
            patches = self.patch_centre(patches, temperature=temperature)
        return cls.view(2, -1, recipe.num_prototypes), patches
