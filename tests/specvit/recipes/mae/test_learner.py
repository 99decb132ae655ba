"""MAE: its masks, its loss against NumPy, and what the backbone sees."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from specvit.device import Device
from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig, find_rows
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode
from specvit.recipes import RECIPES
from specvit.recipes.mae.learner import MaeLearner, normalise_patches, sample_visible
from specvit.recipes.mae.settings import Mae, MaeCpu
from specvit.training.augment import normalise
from specvit.training.learner import Batch
from specvit.training.optimizer import build_optimizer

SCALE = Scale(width=16, depth=2, num_heads=2)
SIZE, PATCH = 16, 4
NUM_PATCHES = (SIZE // PATCH) ** 2


def _learner(
    text: str = "none", *, tokens: Any = "cls", high_norm: HighNorm | None = None, **changes: Any
) -> MaeLearner:
    high_norm = high_norm or HighNorm()
    grid = (SIZE // PATCH, SIZE // PATCH)
    backbone = build_vit(
        VitConfig(
            SCALE,
            image_size=SIZE,
            patch_size=PATCH,
            specialization=text,
            rows=find_rows(tokens=tokens, registers_with="cls", num_registers=high_norm.num_registers, grid=grid),
            high_norm=high_norm,
        ),
    )
    return MaeLearner(backbone, MaeCpu(**changes), image_size=SIZE, seed=0)


def _batch(step: int = 0) -> Batch:
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return Batch(images=images, labels=None, step=step, steps=10, seed=0)


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_every_patch_is_visible_or_hidden(num_patches: int, ratio: float, seed: int) -> None:
    visible, hidden = sample_visible(
        5, num_patches=num_patches, mask_ratio=ratio, rng=np.random.default_rng(seed)
    )
    assert visible.shape[1] >= 1
    assert hidden.shape[1] >= 1
    assert np.all(np.diff(visible) > 0)
    both = np.sort(np.concatenate([visible, hidden], axis=1))
    assert both.tolist() == [list(range(num_patches))] * 5


@pytest.mark.parametrize(
    ("num_patches", "ratio", "num_visible"), [(196, 0.75, 49), (64, 0.75, 16), (10, 0.9, 1), (5, 0.5, 2)]
)
def test_as_many_patches_are_visible_as_the_ratio_leaves(num_patches: int, ratio: float, num_visible: int) -> None:
    visible, _ = sample_visible(2, num_patches=num_patches, mask_ratio=ratio, rng=np.random.default_rng(0))
    assert visible.shape == (2, num_visible)


def test_all_patches_are_hidden_equally_often() -> None:
    _, hidden = sample_visible(4000, num_patches=8, mask_ratio=0.75, rng=np.random.default_rng(0))
    shares = np.bincount(hidden.ravel(), minlength=8) / 4000
    assert shares == pytest.approx(np.full(8, 0.75), abs=5 * (0.75 * 0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_is_the_squared_error_of_hidden_patches(normalised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against loops over pixels in float64, the decoder replaced by known numbers, the crop by the whole image."""
    learner = _learner(normalise_pixels=normalised)
    batch = _batch()
    monkeypatch.setattr("specvit.recipes.mae.learner.random_crops", lambda images, **_: images)
    seen: dict[str, torch.Tensor] = {}

    def predict(cls: torch.Tensor, patches: torch.Tensor, **places: torch.Tensor) -> torch.Tensor:
        seen.update(places, cls=cls, patches=patches)
        generator = torch.Generator().manual_seed(2)
        seen["predicted"] = torch.randn(*places["hidden"].shape, 3 * PATCH * PATCH, generator=generator)
        return seen["predicted"]

    learner.decoder.forward = predict  # type: ignore[method-assign]
    loss = learner.losses(batch)["pixels"]
    images = normalise(batch.images).double().numpy()
    errors = []
    for image, places, guesses in zip(images, seen["hidden"].tolist(), seen["predicted"].double().numpy(), strict=True):
        for place, guess in zip(places, guesses, strict=True):
            top, left = (PATCH * number for number in divmod(place, SIZE // PATCH))
            target = image[:, top : top + PATCH, left : left + PATCH].ravel()
            if normalised:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            errors.append((guess - target) ** 2)
    assert seen["patches"].shape == (6, NUM_PATCHES // 4, SCALE.width)
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_the_trivial_loss_is_that_of_one_colour_for_all_patches(normalised: bool) -> None:
    """A decoder that paints each hidden patch in its own mean, 0, or all in the mean colour, has the trivial loss."""
    learner = _learner(normalise_pixels=normalised)
    batch = _batch()
    views = learner.draw(batch)
    colour = torch.zeros(3)
    if not normalised:
        grid = views.images.double().unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(2, 3)
        hidden = torch.stack([grid[n, :, places] for n, places in enumerate(views.hidden)])
        colour = hidden.mean(dim=(0, 2, 3, 4)).float()
    painted = colour.repeat_interleave(PATCH * PATCH)
    learner.decoder.forward = lambda *_, **places: painted.expand(*places["hidden"].shape, -1)  # type: ignore[method-assign]
    found = learner.summarise(learner.measure(batch, size=4))
    assert found["pixels_loss"] == pytest.approx(found["pixels_loss_trivial"], rel=1e-5)
    assert set(found) == {"pixels_loss", "pixels_loss_trivial"}


def test_normalised_patches_have_mean_0_and_variance_1() -> None:
    patches = normalise_patches(5 + 3 * torch.randn(2, 3, 48, dtype=torch.float64))
    assert patches.mean(dim=-1).abs().max() < 1e-12
    torch.testing.assert_close(patches.var(dim=-1), torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("high_norm", [HighNorm(), HighNorm(num_registers=2), HighNorm(attention_bias=True)])
def test_with_all_patches_visible_the_tokens_are_those_of_the_whole_image(high_norm: HighNorm) -> None:
    backbone = _learner("norm@all+qkv@first-half", high_norm=high_norm).backbone.double()
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    whole = encode(backbone, images)
    everything = encode(backbone, images, visible=torch.arange(NUM_PATCHES).expand(2, -1))
    for one, other in zip(whole, everything, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_what_is_hidden_does_not_reach_the_visible_tokens() -> None:
    backbone = _learner().backbone.double()
    images = torch.randn(1, 3, SIZE, SIZE, dtype=torch.float64)
    visible = torch.tensor([[0, 5, 15]])
    before = encode(backbone, images, visible=visible)
    images[:, :, :PATCH, PATCH : 2 * PATCH] += 1  # patch 1
    after = encode(backbone, images, visible=visible)
    assert torch.equal(before.cls, after.cls)
    assert torch.equal(before.patches, after.patches)
    images[:, :, PATCH : 2 * PATCH, PATCH : 2 * PATCH] += 1  # patch 5
    assert not torch.equal(before.cls, encode(backbone, images, visible=visible).cls)


def test_the_decoder_puts_visible_tokens_in_their_places() -> None:
    """A prediction does not depend on the order in which the visible patches are listed."""
    learner = _learner()
    decoder = learner.decoder.double()
    cls, patches = torch.randn(2, 16, dtype=torch.float64), torch.randn(2, 4, 16, dtype=torch.float64)
    visible = torch.tensor([[1, 4, 7, 9]] * 2)
    hidden = torch.tensor([[n for n in range(16) if n not in (1, 4, 7, 9)]] * 2)
    one = decoder(cls, patches, visible=visible, hidden=hidden)
    other = decoder(cls, patches.flip(1), visible=visible.flip(1), hidden=hidden.flip(1))
    assert one.shape == (2, 12, 3 * PATCH * PATCH)
    torch.testing.assert_close(one, other.flip(1), rtol=0, atol=1e-12)
    moved = decoder(cls, patches, visible=visible.flip(1), hidden=hidden)
    assert (moved - one).abs().max() > 1e-3


@pytest.mark.parametrize("text", ["norm@all+qkv@first-half", "qkv(lora:2)@all", "norm(gate)@all+mlp@all"])
def test_an_arm_starts_from_the_loss_of_its_baseline(text: str) -> None:
    assert torch.equal(_learner(text).losses(_batch(3))["pixels"], _learner().losses(_batch(3))["pixels"])


def test_masks_change_from_step_to_step() -> None:
    learner = _learner()
    assert not torch.equal(learner.losses(_batch(0))["pixels"], learner.losses(_batch(1))["pixels"])


def test_the_decoder_learns_at_the_full_rate_and_by_the_published_betas() -> None:
    recipe = MaeCpu(layer_decay=0.5, patch_embed_lr=0.1)
    learner = MaeLearner(build_vit(
        VitConfig(SCALE, image_size=SIZE, patch_size=PATCH),
    ), recipe, image_size=SIZE, seed=0)
    optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=Device(torch.device("cpu")))
    factor = {p: group["lr_factor"] for group in optimizer.param_groups for p in group["params"]}
    assert {factor[parameter] for parameter in learner.decoder.parameters()} == {1.0}
    assert factor[learner.backbone.blocks[0].attn.qkv.weight] == 0.5**2
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_a_few_steps_lower_the_loss() -> None:
    learner, batch = _learner(), _batch()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = learner.losses(batch)["pixels"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_a_patch_with_own_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="'placebo'"):
        _learner("norm@all", tokens="placebo")


def test_an_image_of_one_patch_is_refused() -> None:
    backbone = build_vit(VitConfig(SCALE, image_size=4, patch_size=4))
    with pytest.raises(ConfigError, match="at least 2 patches"):
        MaeLearner(backbone, MaeCpu(), image_size=4, seed=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"mask_ratio": 0.0}, "mask_ratio"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"decoder_width": 30, "decoder_heads": 2}, "multiple of 4"),
        ({"decoder_width": 32, "decoder_heads": 3}, "decoder_heads"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        MaeCpu(**changes)


def test_published_constants() -> None:
    recipe = Mae()
    assert RECIPES["mae"] is Mae
    assert RECIPES["mae_cpu"] is MaeCpu
    published: dict[str, Any] = {
        "batch_size": 4096, "lr": 1.5e-4 * 4096 / 256, "weight_decay": 0.05, "betas": (0.9, 0.95), "mask_ratio": 0.75,
        "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16, "warmup": 40 / 800, "crop_scale": (0.2, 1.0),
        "cls_std": 0.02,  # models_mae.py, initialize_weights
    }  # fmt: skip
    values = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    assert values["lr"] == pytest.approx(published.pop("lr"))
    assert {name: values[name] for name in published} == published
    # 800 epochs of the 1,281,167 images
    assert recipe.steps * recipe.batch_size == pytest.approx(800 * 1_281_167, rel=0.01)
