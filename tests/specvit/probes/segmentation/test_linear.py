import numpy as np
import pytest
import torch
from torch import nn

from specvit.probes import ProbeSplit
from specvit.probes.minibatches import minibatches
from specvit.probes.segmentation.linear import (
    BETAS,
    INIT_STD,
    WARMUP,
    WEIGHT_DECAY,
    HeadFitter,
    Schedule,
    train_heads,
)
from specvit.seeding import torch_stream


def reference_scores(train, images, queries, *, lr, schedule, upsample, seed):
    """Train torch's modules in the source's order: dropout, batch norm, 1x1 convolution, upsampling."""
    num_classes, dim = 4, train.patches.shape[2]
    norm, conv = nn.BatchNorm2d(dim), nn.Conv2d(dim, num_classes, kernel_size=1)
    with torch.no_grad():
        conv.weight[:, :, 0, 0] = torch.randn(num_classes, dim, generator=torch_stream(seed, "head")) * INIT_STD
        conv.bias.zero_()
    parameters = [*norm.parameters(), *conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=WEIGHT_DECAY)
    batches = minibatches(len(images), steps=schedule.steps, batch_size=schedule.batch_size, seed=seed)
    for step, batch in enumerate(batches):
        progress = (step + 0.5) / schedule.steps
        rise, fall = progress / WARMUP, (1 + np.cos(np.pi * (progress - WARMUP) / (1 - WARMUP))) / 2
        optimizer.param_groups[0]["lr"] = lr * (rise if progress < WARMUP else fall)
        chosen = images[batch]
        tokens = train.patches[chosen].transpose(1, 2).unflatten(2, train.grid)
        drawn = torch.rand(len(chosen), 1, dim, generator=torch_stream(seed, "dropout", step))
        kept = (drawn >= schedule.dropout).float().view(len(chosen), dim, 1, 1)
        scores = conv(norm(tokens * kept / (1 - schedule.dropout)))
        upsampled = nn.functional.interpolate(scores, size=train.masks.shape[1:], mode=upsample)
        loss = nn.functional.cross_entropy(upsampled, train.masks[chosen].long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    norm.eval()
    with torch.no_grad():
        return conv(norm(queries.transpose(1, 2)[..., None]))[..., 0].transpose(1, 2)


@pytest.mark.parametrize(("dropout", "upsample"), [(0.0, "bilinear"), (0.1, "bilinear"), (0.5, "nearest")])
def test_train_heads_equals_torch_modules_at_every_learning_rate(scenes, dropout, upsample):
    train, val = scenes(30, seed=0), scenes(10, seed=1)
    images, lrs = torch.arange(30)[2:], (1e-3, 3e-2)
    schedule = Schedule(steps=60, batch_size=8, dropout=dropout)

    readout = train_heads(train, images, lrs, schedule=schedule, upsample=upsample, seed=5)

    for lr, ours in zip(lrs, readout.scores(val.patches), strict=True):
        expected = reference_scores(
            train, images, val.patches, lr=lr, schedule=schedule, upsample=upsample, seed=5
        )
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_fit_whole_is_one_of_the_heads_of_fit_part_where_the_images_are_the_same(scenes, training_of):
    train = scenes(1, seed=0)  # a single image is fitted to and held out
    train.masks[:, 0, 0] = 1
    fitter = HeadFitter(training_of(train), steps=20, batch_size=16, dropout=0.1, upsample="bilinear")

    both, alone = fitter.fit_part((1e-3, 1e-2)).readout, fitter.fit_whole(1e-2).readout

    assert torch.equal(both.weight[1], alone.weight[0])
    assert torch.equal(both.offset, alone.offset)


def test_fit_learns_to_segment_and_leaves_the_global_generator_alone(scenes, training_of):
    train, val = scenes(60, seed=0, noise=0.1), scenes(30, seed=1, noise=0.1)
    state = torch.get_rng_state()
    fitter = HeadFitter(training_of(train), steps=300, batch_size=16, dropout=0.0, upsample="nearest")

    (first,), (second,) = (fitter.fit_whole(0.03).predict(val, torch.arange(30)) for _ in range(2))

    labelled = val.masks != 255
    # A fifth of the pixels is drawn from all 4 classes; the rest is of the class that the token tells.
    assert (first == val.masks)[labelled].float().mean() > 0.75
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_fit_class_without_a_pixel_is_never_predicted_and_images_without_one_are_left_out(scenes, training_of):
    train = scenes(20, seed=0)
    train.masks[train.masks == 1] = 255
    train.masks[3:] = 255
    train.patches[3:] = torch.nan  # nothing is learned from images without a labelled pixel
    fitter = HeadFitter(training_of(train), steps=10, batch_size=16, dropout=0.1, upsample="bilinear")

    segmenter = fitter.fit_whole(1e-2)

    assert segmenter.readout.classes.tolist() == [0, 2, 3]
    (ours,) = segmenter.predict(scenes(5, seed=1), torch.arange(5))
    assert set(ours.flatten().tolist()) <= {0, 2, 3}


def test_fit_same_draws_for_every_backbone(scenes):
    train = scenes(20, seed=0)
    schedule = Schedule(steps=15, batch_size=4, dropout=0.3)
    scaled = ProbeSplit(
        cls=train.cls, patches=train.patches * 8, grid=train.grid, labels=None, masks=train.masks
    )

    plain, larger = (
        train_heads(part, torch.arange(20), [1e-2], schedule=schedule, upsample="bilinear", seed=0)
        for part in (train, scaled)
    )

    # Batch norm takes the scale away, if batches and dropped channels are the same.
    ours, theirs = next(plain.scores(train.patches)), next(larger.scores(scaled.patches))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
