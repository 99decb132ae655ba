"""DINOv2's student, teacher, views and losses. Settings and sources: ``specvit.recipes.dinov2.settings``.

Shapes: B images, L local views, P patches of a global view, M masked patches, K prototypes, D channels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.data import Dataset
from specvit.models.batch_slice import BatchSlice, sampling_as_whole_batch
from specvit.models.vit import encode
from specvit.recipes.dinov2.head import DinoHead, DinoNetwork
from specvit.recipes.dinov2.losses import (
    Centre,
    dino_loss,
    ibot_loss,
    koleo_loss,
    koleo_of_part,
    mask_weights,
)
from specvit.recipes.dinov2.masking import sample_masks
from specvit.recipes.dinov2.measures import agreement, constant_loss, entropy, masked_share, mean_output
from specvit.recipes.dinov2.settings import DinoV2
from specvit.recipes.dinov2.targets import TeacherRows, balanced_targets, centred_targets
from specvit.recipes.dinov2.tensors import DinoTargets, DinoViews, StudentOutputs
from specvit.seeding import derive_seed, numpy_stream
from specvit.training import collectives
from specvit.training.augment import ColourSettings, normalise, random_crops
from specvit.training.crops import Crop
from specvit.training.learner import Batch, SlicedLearner
from specvit.training.learnt import SPREAD
from specvit.training.optimizer import cosine, linear

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


class DinoV2Learner(SlicedLearner[DinoViews, DinoTargets]):
    """A student that learns to agree with its own moving average, across views and on hidden patches."""

    def __init__(self, backbone: VisionTransformer, recipe: DinoV2, *, global_size: int, seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.term_weights = {"dino": recipe.dino_weight, "ibot": recipe.ibot_weight, "koleo": recipe.koleo_weight}
        self.global_size = global_size
        self.crops = (
            *(Crop(f"global {number}", global_size, recipe.global_scale) for number in (1, 2)),
            *(Crop(f"local {number}", recipe.local_size, recipe.local_scale) for number in range(recipe.num_locals)),
        )
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

    @classmethod
    def from_recipe(cls, recipe: DinoV2, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Self:
        """Build the learner for a data set; see ``specvit.recipes.build``."""
        image_size = dataset.train.image_size
        return cls(backbone, recipe, global_size=recipe.global_size or image_size, seed=seed)

    def _head(self, width: int, bottleneck: int) -> DinoHead:
        return DinoHead(
            width,
            hidden=self.recipe.head_hidden,
            bottleneck=bottleneck,
            num_prototypes=self.recipe.num_prototypes,
        )

    @property
    def eval_backbone(self) -> VisionTransformer:
        """Return the teacher's backbone or the student's, as the recipe says."""
        return (self.teacher if self.recipe.probe == "teacher" else self.student).backbone

    def backbones(self) -> dict[str, VisionTransformer]:
        """Return the student's and the teacher's backbone."""
        return {"student": self.student.backbone, "teacher": self.teacher.backbone}

    def draw(self, batch: Batch) -> DinoViews:
        """Cut the views of a batch and draw their masks."""
        global_views, local_views = self._views(batch)
        return DinoViews(global_views, local_views, self._masks(batch, num_crops=len(global_views)), batch.progress)

    @torch.no_grad()
    def targets(self, views: DinoViews, parts: Sequence[BatchSlice]) -> Iterator[DinoTargets]:
        """Compute the teacher's targets, centred over the whole batch, and what KoLeo needs of it."""
        cls, patches = zip(*(self._teach(views, part) for part in parts), strict=True)
        student_cls = self._student_cls(views, parts) if len(parts) > 1 and self.recipe.koleo_weight > 0 else None
        cls_targets = self._centred(self.teacher.cls_head, cls, self.cls_centre, progress=views.progress)
        patch_targets = self._centred(self.teacher.patch_head, patches, self.patch_centre, progress=views.progress)
        for part in parts:
            yield DinoTargets(next(cls_targets).view(2, part.size, -1), next(patch_targets), student_cls)

    def slice_losses(self, views: DinoViews, part: BatchSlice, targets: DinoTargets) -> dict[str, Tensor]:
        """Compute the DINO, iBOT and KoLeo terms of a part."""
        return self._weighted_terms(self._student_outputs(views, part), part, targets)

    def measure_slice(self, views: DinoViews, part: BatchSlice, targets: DinoTargets) -> dict[str, Tensor]:
        """Compute the terms of a part, of its [CLS] targets the entropy and how far the student agrees, and means."""
        outputs, temperature = self._student_outputs(views, part), self.recipe.student_temp
        measures = self.unweighted(self._weighted_terms(outputs, part, targets))
        measures["_masked_crops"] = masked_share(outputs.masked)
        if self.recipe.dino_weight > 0:
            measures["teacher_entropy"] = entropy(targets.cls).mean(dtype=torch.float64)
            measures["teacher_agreement"] = agreement(targets.cls, outputs.cls_logits[:2])
            measures["_mean_target"] = targets.cls.mean(dim=(0, 1), dtype=torch.float64)
            measures["_mean_output"] = mean_output(outputs.cls_logits, temperature=temperature)
        if self.recipe.ibot_weight > 0:
            # Weighted as in the term, so that each adds up to the share of the crops that are masked.
            weights = mask_weights(outputs.masked).double() / len(outputs.masked)
            measures["_patch_targets"] = weights @ targets.patches.double()
            measures["_patch_outputs"] = weights @ (outputs.patch_logits.double() / temperature).softmax(dim=-1)
        return measures

    def trivial_losses(self, averages: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what one output for all images costs, a pair and a masked crop; other crops count as 0 in iBOT."""
        trivial, share = {}, averages["_masked_crops"]
        if "_mean_target" in averages:
            trivial["dino"] = constant_loss(averages["_mean_target"], averages["_mean_output"])
        if "_patch_targets" in averages and share > 0:
            means = averages["_patch_targets"] / share, averages["_patch_outputs"] / share
            trivial["ibot"] = float(share) * constant_loss(*means)
        return trivial

    def summarise(self, averages: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the metrics, with the entropy of the mean [CLS] target: ln K = all prototypes used, 0 = collapsed.

        N images with sharp targets can show no more than ln 2 N, where that is less. By Sinkhorn-Knopp it is ln K
        always: a teacher that collapses has uniform targets then, and the DINO term stands at ln K.
        """
        metrics = super().summarise(averages)
        if "_mean_target" in averages:
            metrics[SPREAD] = float(entropy(averages["_mean_target"]))
        return metrics

    def _student_outputs(self, views: DinoViews, part: BatchSlice) -> StudentOutputs:
        """Let the student see a part."""
        student = self.student
        global_views, masked = part.of(views.global_views), part.of(views.masked)
        tokens = encode(student.backbone, global_views, masked=masked, mask_token=self.mask_token)
        extra = self.extra_losses(tokens.patches)
        cls = [tokens.cls]
        if views.local_views is not None:
            cls.append(encode(student.backbone, part.of(views.local_views)).cls)
        cls_logits, patch_logits = student.project(cls, tokens.patches[masked])
        by_view = cls_logits.view(-1, part.size, self.recipe.num_prototypes)
        return StudentOutputs(tokens.cls, by_view, patch_logits, masked, extra)

    def _weighted_terms(self, outputs: StudentOutputs, part: BatchSlice, targets: DinoTargets) -> dict[str, Tensor]:
        recipe, by_view = self.recipe, outputs.cls_logits
        dino = dino_loss(targets.cls, by_view[:2], by_view[2:], temperature=recipe.student_temp)
        ibot = ibot_loss(
            targets.patches,
            outputs.patch_logits,
            weights=mask_weights(outputs.masked),
            num_crops=len(outputs.masked),
            temperature=recipe.student_temp,
        )
        terms = {"dino": dino, "ibot": ibot, "koleo": self._koleo(outputs.cls, part, targets.student_cls)}
        return {**{name: self.term_weights[name] * term for name, term in terms.items()}, **outputs.extra}

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
        """Drop the prototypes' gradients at the start, where they stay fixed."""
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
        views = [self._view(batch, crop) for crop in self.crops]
        return normalise(torch.cat(views[:2])), normalise(torch.cat(views[2:])) if len(views) > 2 else None

    def _view(self, batch: Batch, crop: Crop) -> Tensor:
        """Cut one view of every image: ``(B, 3, S, S)`` in [0, 1]."""
        colour = VIEW_COLOURS.get(crop.name, VIEW_COLOURS["local"]) if self.recipe.colour else None
        if colour is not None and not self.recipe.blur_scales:
            colour = colour.blurred_for(crop.size)
        view = random_crops(
            batch.images,
            size=crop.size,
            scale=crop.scale,
            generator=batch.stream(crop.name),
            colour=colour,
            cut=batch.crops.get(crop.name),
            held=batch.held,
        )
        return batch.whole(view)

    def _masks(self, batch: Batch, *, num_crops: int) -> Tensor:
        """Draw ``(2 B, P)`` masks."""
        patch_height, patch_width = self.student.backbone.patch_embed.patch_size
        masks = sample_masks(
            num_crops,
            grid=(self.global_size // patch_height, self.global_size // patch_width),
            probability=self.recipe.mask_probability,
            ratio=self.recipe.mask_ratio,
            rng=numpy_stream(batch.seed, "masks", batch.step),
        )
        return torch.from_numpy(masks).to(batch.images.device)

    def _teach(self, views: DinoViews, part: BatchSlice) -> tuple[Tensor, Tensor]:
        """Compute what the teacher puts into its heads' bottlenecks: ``(2 b, .)`` [CLS], ``(m, .)`` masked patches."""
        teacher = self.teacher.eval()
        tokens = encode(teacher.backbone, part.of(views.global_views))
        patches = tokens.patches[part.of(views.masked)]
        return teacher.cls_head.embed(tokens.cls), teacher.patch_head.embed(patches)

    def _centred(
        self, head: DinoHead, embedded: Sequence[Tensor], centre: Centre, *, progress: float
    ) -> Iterator[Tensor]:
        """Turn what is in a head's bottleneck into targets, part by part."""
        recipe, rows = self.recipe, TeacherRows(head, embedded)
        temperature = linear(
            progress, recipe.teacher_temp_start, recipe.teacher_temp, until=recipe.teacher_temp_warmup
        )
        if recipe.centering == "sinkhorn":
            return balanced_targets(rows, temperature=temperature)
        return centred_targets(rows, centre, temperature=temperature)

    def _student_cls(self, views: DinoViews, parts: Sequence[BatchSlice]) -> Tensor:
        """Compute the student's [CLS] of the whole batch's global views: ``(2, B, D)``."""
        student_cls = []
        for part in parts:
            with sampling_as_whole_batch(part):
                tokens = encode(
                    self.student.backbone,
                    part.of(views.global_views),
                    masked=part.of(views.masked),
                    mask_token=self.mask_token,
                )
            student_cls.append(tokens.cls.reshape(2, part.size, -1))
        return collectives.gather(torch.cat(student_cls, dim=1), dim=1)

    def _koleo(self, cls: Tensor, part: BatchSlice, student_cls: Tensor | None) -> Tensor:
        """Compute KoLeo of the whole batch, summed over the global views, from a part's [CLS] ``(2 b, D)``."""
        radius = self.recipe.koleo_radius
        if part.is_whole:
            return torch.stack([koleo_loss(view, radius=radius) for view in cls.chunk(2)]).sum()
        if self.recipe.koleo_weight == 0:
            return cls.new_zeros(())
        by_view = cls.reshape(2, part.size, -1)
        if student_cls is None:  # one part a process: this pass shows them all
            student_cls = collectives.gather(by_view, dim=1)
        rows = slice(part.start, part.stop)
        return torch.stack(
            [
                koleo_of_part(own, everyone, rows, radius=radius)
                for own, everyone in zip(by_view, student_cls, strict=True)
            ]
        ).sum()

