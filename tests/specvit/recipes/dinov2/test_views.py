"""What DINOv2's teacher and student see: views, their colours and masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from specvit.recipes.dinov2 import learner as dinov2
from specvit.recipes.dinov2.learner import VIEW_COLOURS
from specvit.training.augment import ColourSettings

from .small_learners import B, P, make_batch, make_learner


def test_the_teacher_sees_whole_globals_and_the_student_masked_globals_and_locals(
    encoded: list[dict[str, Any]],
) -> None:
    learner = make_learner().train()
    learner.losses(make_batch())
    teacher, student_global, student_local = encoded
    assert teacher["model"] is learner.teacher.backbone
    assert not teacher["training"]
    assert teacher.get("masked") is None
    assert student_global["model"] is student_local["model"] is learner.student.backbone
    assert student_global["training"]
    assert torch.equal(student_global["images"], teacher["images"])
    assert student_global["images"].shape == (2 * B, 3, 16, 16)
    assert student_global["masked"].shape == (2 * B, P)
    assert int(student_global["masked"].any(1).sum()) == B  # half of the globals
    assert student_global["mask_token"] is learner.mask_token
    assert student_local["images"].shape == (2 * B, 3, 8, 8)  # two local views
    assert student_local.get("masked") is None


def test_global_views_have_the_size_that_the_recipe_gives_and_masks_fit_them(encoded: list[dict[str, Any]]) -> None:
    make_learner(global_size=12).losses(make_batch())
    assert encoded[0]["images"].shape == encoded[1]["images"].shape == (2 * B, 3, 12, 12)
    assert encoded[1]["masked"].shape == (2 * B, 9)


@pytest.mark.parametrize(("scales", "sigma"), [(True, 2.0 * 16 / 224), (False, 2.0)])
def test_the_blur_of_a_crop_is_in_its_own_pixels_or_shrinks_with_it(
    monkeypatch: pytest.MonkeyPatch, scales: bool, sigma: float
) -> None:
    seen: list[tuple[int, float]] = []

    def spy(images: Tensor, *, size: int, colour: ColourSettings, **_: Any) -> Tensor:
        seen.append((size, colour.blur_sigma[1] * size / 224))
        return torch.zeros(len(images), 3, size, size)

    monkeypatch.setattr(dinov2, "random_crops", spy)
    make_learner(blur_scales=scales)._views(make_batch())
    assert [size for size, _ in seen] == [16, 16, 8, 8]
    expected = [sigma, sigma, *([sigma / 2] * 2 if scales else [sigma] * 2)]
    assert [largest for _, largest in seen] == pytest.approx(expected)


def test_arms_of_a_pair_get_equal_views_and_masks_and_equal_losses_from_copies(
    encoded: list[dict[str, Any]],
) -> None:
    plain, arm = make_learner(), make_learner("norm+qkv+mlp+final_norm")
    losses = [learner.losses(make_batch()) for learner in (plain, arm)]
    for one, other in zip(encoded[:3], encoded[3:], strict=True):
        assert torch.equal(one["images"], other["images"])
    assert torch.equal(encoded[1]["masked"], encoded[4]["masked"])
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_views_and_masks_change_from_step_to_step(encoded: list[dict[str, Any]]) -> None:
    learner = make_learner()
    learner.losses(make_batch(step=0))
    learner.losses(make_batch(step=1))
    assert not torch.equal(encoded[1]["images"], encoded[4]["images"])
    assert not torch.equal(encoded[1]["masked"], encoded[4]["masked"])


def test_weights_of_masked_patches_add_up_to_one_per_masked_crop() -> None:
    masked = make_learner().draw(make_batch()).masked
    crop_of_patch = masked.nonzero()[:, 0]
    totals = torch.zeros(2 * B).index_add(0, crop_of_patch, dinov2.mask_weights(masked))
    torch.testing.assert_close(totals, masked.any(1).float())


def test_colours_of_the_views_are_the_published_ones() -> None:
    for name, blur, solarize in (("global 1", 1.0, 0.0), ("global 2", 0.1, 0.2), ("local", 0.5, 0.0)):
        colour = VIEW_COLOURS[name]
        assert (colour.brightness, colour.contrast, colour.saturation, colour.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (colour.jitter_probability, colour.grey_probability) == (0.8, 0.2)
        assert (colour.blur_probability, colour.solarize_probability) == (blur, solarize)
