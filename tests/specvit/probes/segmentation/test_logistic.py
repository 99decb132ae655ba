import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from specvit.probes.segmentation.logistic import LogisticFitter, fit_majority

CS = (1e-4, 1e-2, 1.0, 100.0)


def majority(split):
    """Return the tokens and majority classes of labelled patches, patch by patch."""
    rows, columns = split.grid
    tokens, labels = [], []
    for image, mask in zip(split.patches, split.masks, strict=True):
        for patch in range(rows * columns):
            y, x = patch // columns * 4, patch % columns * 4
            pixels = [value for value in mask[y : y + 4, x : x + 4].flatten().tolist() if value != 255]
            if pixels:
                tokens.append(image[patch])
                labels.append(min(pixels, key=lambda value: (-pixels.count(value), value)))
    return torch.stack(tokens), torch.tensor(labels)


def objective(weight, bias, x, labels, c):
    losses = -log_softmax(x @ weight + bias, axis=1)[np.arange(len(labels)), labels]
    return c * losses.sum() + np.square(weight).sum() / 2


def test_fit_majority_equals_scikit_learn_at_every_c(scenes):
    tokens, labels = majority(scenes(80, seed=0))
    queries = scenes(40, seed=1).patches.flatten(0, 1).double().numpy()
    scaler = StandardScaler().fit(tokens.double().numpy())
    x = scaler.transform(tokens.double().numpy())

    readout = fit_majority(tokens, labels, CS)

    for i, c in enumerate(CS):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, labels.numpy())
        expected = reference.predict_proba(scaler.transform(queries))
        ours = (queries - readout.offset.numpy()) @ readout.weight[i].numpy() + readout.bias[i].numpy()
        # The solver stops where an iteration gains less than 1e-7 of the loss, a little before the optimum.
        np.testing.assert_allclose(softmax(ours, axis=1), expected, atol=1e-3)
        # The map for raw tokens, written for standardised ones.
        weight = readout.weight[i].numpy() * scaler.scale_[:, None]
        bias = readout.bias[i].numpy() + (scaler.mean_ - readout.offset.numpy()) @ readout.weight[i].numpy()
        reached = objective(weight, bias, x, labels.numpy(), c)
        least = objective(reference.coef_.T, reference.intercept_, x, labels.numpy(), c)
        assert reached == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_predict_equals_scikit_learn_patch_by_patch(scenes, training_of, upsample):
    train, val = scenes(60, seed=0), scenes(30, seed=1)
    tokens, labels = majority(train)
    scaler = StandardScaler().fit(tokens.double().numpy())
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
    reference.fit(scaler.transform(tokens.double().numpy()), labels.numpy())
    scores = reference.decision_function(scaler.transform(val.patches.flatten(0, 1).double().numpy()))
    on_grid = torch.from_numpy(scores).view(30, *val.grid, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(on_grid, size=(12, 8), mode=upsample).argmax(1)

    fitter = LogisticFitter(training_of(train), max_patches=10_000, upsample=upsample)
    (ours,) = fitter.fit_whole(0.1).predict(val, torch.arange(30))

    assert (ours == expected).float().mean() > 0.998


def test_fit_part_orders_maps_as_candidates_and_sees_the_fitted_images_alone(scenes, training_of):
    train = scenes(50, seed=0)
    training = training_of(train)
    train.patches[training.held_out] = torch.nan

    segmenter = LogisticFitter(training, max_patches=10_000, upsample="nearest").fit_part((1.0, 1e-3, 1.0))

    norms = segmenter.readout.weight.flatten(1).norm(dim=1)
    assert norms[0] == norms[2] > norms[1] > 0
