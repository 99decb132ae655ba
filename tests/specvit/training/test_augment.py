"""Augmentation of batches against torchvision, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from specvit.training.augment import (
    MEAN,
    STD,
    ColourSettings,
    _hue_matrix,
    blur_matrix,
    normalise,
    random_blur,
    random_crops,
    recolour,
    resampling_matrix,
)
from specvit.training.crops import ASPECT_RATIO, sample_boxes

GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _images(num: int = 6, height: int = 32, width: int = 32, *, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(num, 3, height, width, generator=_generator(9))


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 16), (32, 32, 32), (20, 48, 24), (33, 17, 40)])
def test_cutting_and_resizing_equals_torchvisions_antialiased_resized_crop(
    height: int, width: int, size: int, cubic: bool
) -> None:
    images = _images(8, height, width)
    boxes = sample_boxes(8, height=height, width=width, scale=(0.05, 1.0), generator=_generator())
    top, left, box_height, box_width = boxes.unbind(1)
    rows = resampling_matrix(top, box_height, source=height, target=size, cubic=cubic)
    columns = resampling_matrix(left, box_width, source=width, target=size, cubic=cubic)
    crops = rows.unsqueeze(1) @ images @ columns.transpose(1, 2).unsqueeze(1)
    mode = InterpolationMode.BICUBIC if cubic else InterpolationMode.BILINEAR
    for image, box, crop in zip(images, boxes.tolist(), crops, strict=True):
        expected = tv.resized_crop(image, *box, size=[size, size], interpolation=mode, antialias=True)
        torch.testing.assert_close(crop, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cubic", [False, True])
def test_random_crops_are_resized_crops_of_the_drawn_boxes_flipped_or_not(cubic: bool) -> None:
    images = _images(24)
    crops = random_crops(images, size=16, scale=(0.3, 1.0), generator=_generator(4), cubic=cubic)
    boxes = sample_boxes(24, height=32, width=32, scale=(0.3, 1.0), generator=_generator(4)).tolist()
    mode = InterpolationMode.BICUBIC if cubic else InterpolationMode.BILINEAR
    num_flipped = 0
    for image, box, crop in zip(images, boxes, crops, strict=True):
        expected = tv.resized_crop(image, *box, size=[16, 16], interpolation=mode, antialias=True).clamp(0, 1)
        flipped = not torch.allclose(crop, expected, atol=1e-5)
        num_flipped += flipped
        if flipped:
            torch.testing.assert_close(crop, expected.flip(-1), rtol=0, atol=1e-5)
    assert 4 <= num_flipped <= 20  # of 24, at one half: outside with a chance of 2 in 10,000


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, False), (1.0, True)])
def test_crops_flip_never_and_always_at_the_ends_of_the_probability(probability: float, flipped: bool) -> None:
    images = _images(4)
    crops = random_crops(images, size=32, scale=(1.0, 1.0), generator=_generator(), flip_probability=probability)
    # The whole square is the only square box of full area; other aspect ratios do not fit into it.
    boxes = sample_boxes(4, height=32, width=32, scale=(1.0, 1.0), generator=_generator())
    assert (boxes == torch.tensor([0, 0, 32, 32])).all()
    torch.testing.assert_close(crops, images.flip(-1) if flipped else images, rtol=0, atol=1e-6)


def test_boxes_stay_in_the_image_and_within_the_limits_of_area_and_aspect_ratio() -> None:
    height, width, scale = 300, 200, (0.2, 0.6)
    boxes = sample_boxes(4000, height=height, width=width, scale=scale, generator=_generator())
    top, left, box_height, box_width = boxes.double().unbind(1)
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + box_height).max() <= height
    assert (left + box_width).max() <= width
    share, ratio = box_height * box_width / (height * width), box_width / box_height
    rounding = 0.02  # sides of about a hundred pixels are rounded to whole ones
    assert scale[0] * (1 - rounding) <= share.min()
    assert share.max() <= scale[1] * (1 + rounding)
    assert share.min() < scale[0] + 0.01
    assert share.max() > scale[1] - 0.03
    assert ASPECT_RATIO[0] * (1 - rounding) <= ratio.min() < ASPECT_RATIO[0] + 0.02
    assert ASPECT_RATIO[1] - 0.02 < ratio.max() <= ASPECT_RATIO[1] * (1 + rounding)


def test_boxes_that_always_fit_have_uniform_area_and_log_uniform_ratio() -> None:
    boxes = sample_boxes(20_000, height=600, width=600, scale=(0.1, 0.5), generator=_generator()).double()
    share = boxes[:, 2] * boxes[:, 3] / 600**2
    log_ratio = torch.log(boxes[:, 3] / boxes[:, 2])
    # Means and standard deviations of uniform distributions, (b - a) / sqrt(12); 0.005 is over five standard errors.
    assert float(share.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(share.std()) == pytest.approx(0.4 / math.sqrt(12), abs=0.005)
    assert float(log_ratio.mean()) == pytest.approx(0.0, abs=0.006)
    assert float(log_ratio.std()) == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), abs=0.005)
    # A box of h x w has (600 - h + 1) x (600 - w + 1) places, all equally likely.
    place = boxes[:, 0] / (600 - boxes[:, 2])
    assert float(place.mean()) == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize(
    ("height", "width", "box"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (10, 10, (0, 0, 10, 10))]
)
def test_a_box_that_never_fits_is_the_largest_central_one(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    # An area of 900% fits into no image. By hand: the long side is cut to 10 x 4/3 = 13, from (100 - 13) // 2 on.
    boxes = sample_boxes(3, height=height, width=width, scale=(9.0, 9.0), generator=_generator())
    assert boxes.tolist() == [list(box)] * 3


def test_each_image_of_a_batch_has_its_own_parameters() -> None:
    same = _images(1).expand(16, -1, -1, -1).contiguous()
    colour = ColourSettings(brightness=0.4, jitter_probability=1.0)
    for views in (
        random_crops(same, size=16, scale=(0.2, 0.8), generator=_generator()),
        recolour(same, colour, generator=_generator()),
        random_blur(same, sigma=(5.0, 20.0), generator=_generator()),
    ):
        assert len(torch.unique(views.flatten(1), dim=0)) == 16


ADJUST: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
}


def _jitter_factors(kind: str, images: Tensor, *, strength: float) -> list[float]:
    """Jitter one kind alone, and find each image's factor by torchvision's function of that kind."""
    settings = ColourSettings(**{kind: strength}, jitter_probability=1.0)  # type: ignore[arg-type]
    factors = []
    for image, got in zip(images, recolour(images, settings, generator=_generator()), strict=True):
        # Each is linear in its factor f: result = (1 - f) x result at 0 + f x image.
        start = ADJUST[kind](image, 0.0)
        direction = image - start
        factors.append(float(((got - start) * direction).sum() / direction.square().sum()))
        # torchvision's weights of grey add up to 0.9999: its grey is up to 7e-5 darker here.
        torch.testing.assert_close(got, ADJUST[kind](image, factors[-1]), rtol=0, atol=1e-4)
    return factors


@pytest.mark.parametrize("kind", ADJUST)
def test_one_kind_of_jitter_equals_torchvisions_by_some_factor_within_the_limits(kind: str) -> None:
    factors = _jitter_factors(kind, _images(12, low=0.35, high=0.65), strength=0.3)  # far from clamping
    assert 0.7 - 1e-3 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.3 + 1e-3


def test_jitter_of_all_kinds_equals_torchvisions_applied_one_after_the_other() -> None:
    images = _images(12, low=0.35, high=0.65)
    factors = [_jitter_factors(kind, images, strength=0.3) for kind in ADJUST]
    assert len({tuple(values) for values in factors}) == 3  # each kind has its own draws
    settings = ColourSettings(brightness=0.3, contrast=0.3, saturation=0.3, jitter_probability=1.0)
    jittered = recolour(images, settings, generator=_generator())
    for image, got, *each in zip(images, jittered, *factors, strict=True):
        expected = image
        for adjust, factor in zip(ADJUST.values(), each, strict=True):
            expected = adjust(expected, factor)
        torch.testing.assert_close(got, expected, rtol=0, atol=3e-4)


def test_jitter_applies_to_the_share_of_images_that_its_probability_says() -> None:
    images = _images(2000, 2, 2, low=0.4, high=0.6)
    jittered = recolour(images, ColourSettings(brightness=0.3, jitter_probability=0.8), generator=_generator())
    changed = (jittered - images).abs().flatten(1).amax(1) > 1e-5
    # Standard error sqrt(.8 x .2 / 2000) = 0.009.
    assert float(changed.float().mean()) == pytest.approx(0.8, abs=0.04)


def test_grey_equals_torchvisions_and_has_equal_channels() -> None:
    images = _images()
    grey = recolour(images, ColourSettings(grey_probability=1.0), generator=_generator())
    # torchvision's weight of red is 0.2989 in place of 0.299.
    torch.testing.assert_close(grey, tv.rgb_to_grayscale(images, 3), rtol=0, atol=1.1e-4)
    torch.testing.assert_close(grey, (images * GREY).sum(1, keepdim=True).expand_as(grey), rtol=0, atol=1e-6)


def test_colour_settings_of_zero_change_nothing() -> None:
    images = _images()
    torch.testing.assert_close(recolour(images, ColourSettings(), generator=_generator()), images, rtol=0, atol=1e-6)


def test_hue_rotation_keeps_luminance_and_moves_colours() -> None:
    images = _images(low=0.45, high=0.55)
    turned = recolour(images, ColourSettings(hue=0.5, jitter_probability=1.0), generator=_generator())
    luminance = [(x * GREY).sum(1) for x in (turned, images)]
    torch.testing.assert_close(luminance[0], luminance[1], rtol=0, atol=1e-5)
    assert float((turned - images).abs().mean()) > 0.01


def test_hue_rotations_add_up_to_a_full_turn() -> None:
    third = _hue_matrix(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(third @ third @ third, torch.eye(3), rtol=0, atol=1e-5)
    assert not torch.allclose(third, torch.eye(3), atol=0.1)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_equals_torchvisions_in_the_interior(sigma: float) -> None:
    images = _images(2, 40, 40)
    blur = blur_matrix(torch.tensor([sigma, sigma]), size=40).unsqueeze(1)
    kernel = 2 * 8 + 1  # wide enough: beyond 8 pixels the kernel of sigma 2 is 3e-4 of its peak
    expected = tv.gaussian_blur(images, [kernel, kernel], [sigma, sigma])
    inside = slice(10, 30)
    torch.testing.assert_close(
        (blur @ images @ blur.transpose(2, 3))[..., inside, inside], expected[..., inside, inside], rtol=0, atol=5e-4
    )


@pytest.mark.parametrize("size", [12, 96, 224])
def test_a_blur_for_a_size_has_its_sigma_in_the_pixels_of_crops_of_that_size(size: int) -> None:
    colour = ColourSettings(blur_probability=1.0, blur_sigma=(1.5, 1.5)).blurred_for(size)
    images = torch.rand(2, 3, size, size, generator=_generator())
    # The whole image, not resized, only blurred.
    got = random_crops(
        images, size=size, scale=(1.0, 1.0), flip_probability=0.0, colour=colour, generator=_generator()
    )
    inside = slice(5, -5) if size > 12 else slice(5, 7)
    expected = tv.gaussian_blur(images, [31 if size > 31 else 11] * 2, [1.5, 1.5])
    torch.testing.assert_close(got[..., inside, inside], expected[..., inside, inside], rtol=0, atol=2e-3)


def test_blur_keeps_a_flat_image_and_a_sigma_of_zero_keeps_every_image() -> None:
    blur = blur_matrix(torch.tensor([0.0, 3.0]), size=12)
    assert torch.equal(blur[0], torch.eye(12))
    torch.testing.assert_close(blur.sum(2), torch.ones(2, 12))


def test_random_blur_draws_sigma_for_224_pixels_and_scales_it_with_the_image() -> None:
    images = _images(3, 32, 32)
    blurred = random_blur(images, sigma=(7.0, 7.0), generator=_generator())
    blur = blur_matrix(torch.ones(3), size=32).unsqueeze(1)  # 7 px of 224 are 1 px of 32
    torch.testing.assert_close(blurred, blur @ images @ blur.transpose(2, 3), rtol=0, atol=1e-6)


def test_crops_with_blur_are_the_plain_crops_blurred() -> None:
    images = _images(6)
    colour = ColourSettings(blur_probability=1.0, blur_sigma=(14.0, 14.0))
    # Bilinear weights are not negative, so that clamping changes nothing, before or after the blur.
    settings = {"size": 16, "scale": (0.3, 1.0), "cubic": False}
    plain = random_crops(images, **settings, generator=_generator(2))
    blurred = random_crops(images, **settings, generator=_generator(2), colour=colour)
    blur = blur_matrix(torch.ones(6), size=16).unsqueeze(1)  # 14 px of 224 are 1 px of 16
    torch.testing.assert_close(blurred, blur @ plain @ blur.transpose(2, 3), rtol=0, atol=1e-5)


def test_solarisation_equals_torchvisions() -> None:
    images = _images()
    solarised = recolour(images, ColourSettings(solarize_probability=1.0), generator=_generator())
    torch.testing.assert_close(solarised, tv.solarize(images, 0.5), rtol=0, atol=1e-6)


def test_normalise_takes_off_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    images = _images(2)
    torch.testing.assert_close(normalise(images), tv.normalize(images, list(MEAN), list(STD)))


def test_equal_generators_give_equal_views_and_the_global_one_is_not_touched() -> None:
    images = _images()
    colour = ColourSettings(0.4, 0.4, 0.2, 0.1, 0.8, 0.2, 0.5, solarize_probability=0.2)
    before = torch.get_rng_state()

    def views(seed: int) -> Tensor:
        return random_crops(images, size=16, scale=(0.2, 1.0), generator=_generator(seed), colour=colour)

    first = views(0)
    torch.manual_seed(123)
    assert torch.equal(views(0), first)
    assert not torch.equal(views(1), first)
    torch.set_rng_state(before)
    random_blur(images, sigma=(0.1, 2.0), generator=_generator())
    views(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_views_stay_within_zero_and_one_and_their_input_is_not_changed() -> None:
    images = (_images(16) > 0.5).float()  # bicubic resizing overshoots most at hard edges
    before = images.clone()
    colour = ColourSettings(0.4, 0.4, 0.2, 0.1, 0.8, 0.2, 0.5, solarize_probability=0.2)
    views = random_crops(images, size=20, scale=(0.2, 1.0), generator=_generator(), colour=colour)
    assert views.shape == (16, 3, 20, 20)
    assert 0.0 <= float(views.min()) <= float(views.max()) <= 1.0
    assert torch.equal(images, before)
