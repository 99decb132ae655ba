import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from specvit.probes import ProbeSplit
from specvit.probes.depth import base
from specvit.probes.depth.base import Limits, Task
from specvit.probes.depth.ridge import solve, tile_sums

GRID, TILE = (3, 2), 4
WIDE = Limits(1e-3, 1e6)


def make_task(num_images, *, seed=0, dim=6, offset=50.0, with_cls=False):
    generator = np.random.default_rng(seed)
    depth = generator.uniform(0.5, 9.0, (num_images, GRID[0] * TILE, GRID[1] * TILE))
    depth[generator.random(depth.shape) < 0.4] = np.nan
    depth[:, :TILE, :TILE] = 0.0  # a patch without a measured pixel
    patches = generator.normal(size=(num_images, GRID[0] * GRID[1], dim)) * 3 + offset
    cls = generator.normal(size=(num_images, dim))
    split = ProbeSplit(
        cls=torch.tensor(cls, dtype=torch.float32),
        patches=torch.tensor(patches, dtype=torch.float32),
        grid=GRID,
        labels=None,
        masks=None,
        depth=torch.tensor(depth, dtype=torch.float16),
    )
    return Task(split=split, with_cls=with_cls)


def pixels_of(task, images):
    """List token and depth of every measured pixel, pixel by pixel."""
    tokens, depth = task.tokens(torch.arange(len(task.split))).double().numpy(), task.depth.double().numpy()
    x, y = [], []
    for image in images:
        for row, column in np.argwhere(np.isfinite(depth[image]) & (depth[image] > 0)):
            x.append(tokens[image, row // TILE * GRID[1] + column // TILE])
            y.append(depth[image, row, column])
    return np.array(x), np.array(y)


@pytest.mark.parametrize("with_cls", [False, True])
@pytest.mark.parametrize("chunk_values", [1 << 22, 100])
def test_solve_equals_scikit_learn_on_pixels(with_cls, chunk_values, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_VALUES", chunk_values)
    task, images, penalties = make_task(12, with_cls=with_cls), [0, 2, 3, 5, 8, 11], (10.0, 0.1, 1e-4)
    x, y = pixels_of(task, images)
    scaler = StandardScaler().fit(x)

    readout = solve(task, torch.tensor(images), penalties, WIDE)

    tokens = task.tokens(torch.arange(12))
    raw = tokens.double().flatten(0, 1).numpy()
    for i, penalty in enumerate(penalties):
        reference = SklearnRidge(alpha=penalty * len(y), solver="cholesky").fit(scaler.transform(x), y)
        expected = reference.predict(scaler.transform(raw))
        ours = (raw - readout.offset.numpy()) @ readout.weight[i].numpy() + readout.bias[i].numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        on_grid = list(readout.on_grid(tokens))[i].flatten().numpy()
        np.testing.assert_allclose(on_grid, expected, atol=1e-4)


def test_predictions_are_clamped_to_the_limits():
    task = make_task(12)
    readout = solve(task, torch.arange(12), (1e-6,), Limits(4.5, 4.8))
    tokens = task.tokens(torch.arange(12))
    (on_grid,) = readout.on_grid(torch.cat([100 * tokens, -100 * tokens]))
    assert (on_grid.min(), on_grid.max()) == (pytest.approx(4.5), pytest.approx(4.8))


def test_constant_features_are_left_out():
    task = make_task(12)
    plain = solve(task, torch.arange(12), (0.1,), WIDE)
    constant = torch.full((*task.split.patches.shape[:2], 2), 1234.5)
    task.split.__dict__["patches"] = torch.cat([task.split.patches, constant], dim=2)
    extended = solve(task, torch.arange(12), (0.1,), WIDE)
    assert extended.weight[0, -2:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(extended.weight[:, :-2], plain.weight, rtol=1e-6, atol=1e-9)


def test_tile_sums_count_and_add_measured_pixels_patch_by_patch():
    depth = torch.tensor([[[1.0, 2.0, 0.0, torch.nan], [4.0, -1.0, torch.inf, 0.5]]], dtype=torch.float16)
    counts, sums = tile_sums(depth, (1, 2))
    assert counts.tolist() == [3.0, 1.0]
    assert sums.tolist() == [7.0, 0.5]
    counts, sums = tile_sums(depth, (2, 4))
    assert counts.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert sums.tolist() == [1.0, 2.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.5]
