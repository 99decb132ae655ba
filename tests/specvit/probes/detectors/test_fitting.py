import torch

from specvit.probes.detectors.boxes import Cells
from specvit.probes.detectors.fitting import HeadFit
from specvit.probes.detectors.head import DetectionHead
from specvit.probes.detectors.targets import assign

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
