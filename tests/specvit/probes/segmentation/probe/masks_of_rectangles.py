"""Masks of rectangles with tokens that hint at them, and scikit-learn's fit to their pixels."""


import numpy as np
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler
from torchmetrics.classification import MulticlassJaccardIndex

from specvit.probes import ProbeSplit

GRID, TILE, NUM_CLASSES = (3, 2), 4, 4
SIZE = (GRID[0] * TILE, GRID[1] * TILE)


def make_split(patches, masks, grid=GRID):
    patches = torch.as_tensor(patches, dtype=torch.float32)
    masks = torch.as_tensor(masks, dtype=torch.uint8)
    return ProbeSplit(cls=patches[:, 0], patches=patches, grid=grid, labels=None, masks=masks)


def scenes(num_images, *, seed, dim=7, noise=1.0):
    """Make masks of rectangles of unlike frequency, with ignored pixels, and tokens that hint at them."""
    world = np.random.default_rng(99)
    directions, offset = world.normal(size=(NUM_CLASSES + 1, dim)), world.normal(size=dim) * 10
    generator = np.random.default_rng(seed)
    masks = np.zeros((num_images, *SIZE), dtype=np.uint8)
    for mask in masks:
        for value, share in ((1, 0.9), (2, 0.5), (3, 0.3), (255, 0.7)):
            y, x = generator.integers(SIZE[0] - 2), generator.integers(SIZE[1] - 2)
            if generator.random() < share:
                mask[y : y + generator.integers(2, 8), x : x + generator.integers(2, 6)] = value
    shares = fractions(masks)
    patches = shares @ directions + generator.normal(size=(*shares.shape[:2], dim)) * noise + offset
    return make_split(patches, masks)


def fractions(masks):
    """Return the (N, P, K + 1) share of every class and of ignored pixels, patch by patch."""
    rows, columns = GRID
    shares = np.zeros((len(masks), rows * columns, NUM_CLASSES + 1))
    for i, mask in enumerate(masks):
        for p in range(rows * columns):
            y, x = p // columns * TILE, p % columns * TILE
            for value in mask[y : y + TILE, x : x + TILE].ravel():
                shares[i, p, min(value, NUM_CLASSES)] += 1 / TILE**2
    return shares


def reference_fit(patches, masks, *, penalty, balance, weights_from):
    """Fit scikit-learn's Ridge to every pixel's one-hot class, pixel by pixel."""
    counts = np.bincount(weights_from.ravel(), minlength=256)[:NUM_CLASSES]
    class_weights = (counts / counts.sum()) ** -balance
    scaler = StandardScaler().fit(patches.reshape(-1, patches.shape[-1]))
    x, y, w = [], [], []
    for image, mask in zip(patches, masks, strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                if mask[row, column] != 255:
                    x.append(image[row // TILE * GRID[1] + column // TILE])
                    y.append(np.eye(NUM_CLASSES)[mask[row, column]])
                    w.append(class_weights[mask[row, column]])
    ridge = SklearnRidge(alpha=penalty * sum(w), solver="cholesky")
    return scaler, ridge.fit(scaler.transform(np.array(x)), np.array(y), sample_weight=np.array(w))


def reference_miou(scaler, ridge, patches, masks, *, mode):
    scores = ridge.predict(scaler.transform(patches.reshape(-1, patches.shape[-1])))
    on_grid = torch.tensor(scores.reshape(len(patches), *GRID, NUM_CLASSES)).permute(0, 3, 1, 2)
    predictions = torch.nn.functional.interpolate(on_grid, size=SIZE, mode=mode).argmax(1)
    metric = MulticlassJaccardIndex(num_classes=NUM_CLASSES, average="macro", ignore_index=255)
    return 100 * float(metric(predictions, torch.from_numpy(masks).long()))


def chosen(probe, train, *, seed):
    """Return the candidate that ``evaluate`` refits with."""
    training = probe._training(train, num_classes=NUM_CLASSES, seed=seed)
    return probe._choose(probe._fitter(training), training)
