import dataclasses

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.fitting import HeadFit, channel_statistics
from specvit.probes.detection.head import DetectionHead
from specvit.probes.detection.targets import assign

CELLS = Cells(grid=(2, 3), image_size=(8, 12))


def _fit(**changes):
    tokens = torch.randn(8, 6, 5, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[4, 0, 8, 8, 1]]).expand(8, 1, 5).short()
    fields = {"num_classes": 2, "width": 4, "steps": 3, "batch_size": 4, "seed": 0, **changes}
    return HeadFit(tokens=tokens, targets=assign(boxes, CELLS), cells=CELLS, **fields)


def _weights(head):
    return torch.cat([parameter.detach().flatten() for parameter in head.parameters()])


def test_same_seed_gives_the_same_head_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again = (_weights(_fit().run(torch.arange(8), lr=0.01)) for _ in range(2))

    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, _weights(_fit(seed=1).run(torch.arange(8), lr=0.01)))


def test_fit_sees_the_given_images_alone():
    fit = _fit()
    images = torch.tensor([0, 2, 4, 6])
    expected = _weights(fit.run(images, lr=0.01))
    fit.tokens[1::2] = torch.nan

    assert torch.equal(_weights(fit.run(images, lr=0.01)), expected)


def test_first_predictions_are_the_prior_of_every_class():
    generator = torch.Generator().manual_seed(0)
    head = DetectionHead(16, num_classes=3, grid=(2, 3), width=32, generator=generator)
    predictions = head(torch.randn(50, 6, 16, generator=generator))

    assert predictions.classes.shape == (50, 6, 3)
    assert predictions.codes.shape == (50, 6, 4)
    assert predictions.fit.shape == (50, 6)
    assert 0.005 < predictions.classes.sigmoid().mean() < 0.02


def test_cell_hears_of_its_neighbours_alone():
    head = DetectionHead(5, num_classes=2, grid=(4, 4), width=8, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(1, 16, 5, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 0] += 1 + torch.arange(5)

    moved = (head(tokens).classes != head(changed).classes).any(-1).view(4, 4)

    assert moved.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_channels_are_standardised_by_the_images_of_the_fit_and_constant_ones_count_for_nothing(monkeypatch):
    monkeypatch.setattr("specvit.probes.detection.fitting._CHUNK_VALUES", 60)  # two images at a time
    tokens = 3 * torch.randn(7, 6, 5, generator=torch.Generator().manual_seed(0)) + 40
    tokens[..., 2] = 0.1
    images = torch.tensor([6, 1, 2])
    reference = StandardScaler().fit(tokens[images].flatten(0, 1).double().numpy())

    mean, std = channel_statistics(tokens, images)

    np.testing.assert_allclose(mean.numpy(), reference.mean_, rtol=1e-6)
    varying = [0, 1, 3, 4]
    np.testing.assert_allclose(std[varying].numpy(), reference.scale_[varying], rtol=1e-6)
    assert std[2] == torch.inf


def test_head_of_a_fit_sees_no_scale_of_channels():
    fit = _fit()
    scale, shift = torch.tensor([1e3, 1.0, 1e-3, 7.0, 50.0]), torch.tensor([9.0, -4.0, 0.0, 100.0, 1.0])
    rescaled = dataclasses.replace(fit, tokens=fit.tokens * scale + shift)
    head, other = (each.run(torch.arange(8), lr=0.01) for each in (fit, rescaled))

    torch.testing.assert_close(other(rescaled.tokens).classes, head(fit.tokens).classes, rtol=1e-3, atol=1e-3)
