import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from specvit.errors import DataError, DivergenceError
from specvit.probes import PROBES, ProbeSplit
from specvit.probes.linear.probe import Basis, Linear, fit_path
from specvit.probes.selection import split_off_tenth


def make_split(cls, labels, patches=None):
    cls = torch.as_tensor(cls, dtype=torch.float32)
    patches = cls[:, None] if patches is None else torch.as_tensor(patches, dtype=torch.float32)
    return ProbeSplit(cls=cls, patches=patches, grid=(1, 1), labels=torch.as_tensor(labels), masks=None)


def correlated(num_images, *, seed, dim=10, num_classes=4, spread=1.0):
    """Make classes that overlap, in features of unlike scale that are nearly collinear."""
    world = np.random.default_rng(99)
    mixing = world.normal(size=(dim, dim)) * np.logspace(0, -2, dim)[:, None]
    centres, offset = world.normal(size=(num_classes, dim)) * spread, world.normal(size=dim) * 5
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_images)
    cls = (centres[labels] + generator.normal(size=(num_images, dim))) @ mixing + offset
    patches = cls[:, None] + generator.normal(size=(num_images, 4, dim))
    return make_split(cls, labels, patches)


def chosen_c(probe, train, *, seed):
    """Return the C that ``evaluate`` refits with."""
    features, labels = probe._inputs(train, num_classes=4)
    return probe._choose(Basis.fit(features).rotate(features), labels, num_classes=4, seed=seed)


def sklearn_logistic(c):
    return LogisticRegression(C=c, tol=1e-9, max_iter=10_000)


def objective(weight, bias, features, labels, c):
    logits = features @ weight + bias
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return c * losses.sum() + (weight**2).sum() / 2


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_fit_path_equals_scikit_learn_at_every_c(spread):
    train, val = correlated(500, seed=0, spread=spread), correlated(1000, seed=1, spread=spread)
    basis = Basis.fit(train.cls)
    x, y, queries = basis.rotate(train.cls), train.labels, basis.rotate(val.cls)
    cs = (1e-4, 1e-2, 1.0, 10.0)

    path = fit_path(x, y, cs, num_classes=4)

    for c in cs:
        reference = sklearn_logistic(c).fit(x.numpy(), y.numpy())
        expected = objective(reference.coef_.T, reference.intercept_, x.numpy(), y.numpy(), c)
        ours = objective(path[c].weight.numpy(), path[c].bias.numpy(), x.numpy(), y.numpy(), c)
        assert ours == pytest.approx(expected, rel=1e-5)
        agreement = (path[c].predict(queries).numpy() == reference.predict(queries.numpy())).mean()
        assert agreement >= 0.998


def test_basis_is_standardisation_up_to_a_rotation():
    features = correlated(60, seed=0).cls
    standardised = StandardScaler().fit_transform(features.double().numpy())

    rotated = Basis.fit(features).rotate(features).numpy()

    np.testing.assert_allclose(rotated @ rotated.T, standardised @ standardised.T, atol=1e-8)
    np.testing.assert_allclose(rotated.T @ rotated, np.diag(np.diag(rotated.T @ rotated)), atol=1e-8)


@pytest.mark.parametrize(
    ("num_images", "dim", "dtype"),
    [(40, 60, torch.float64), (60, 1100, torch.float32), (1200, 1100, torch.float32)],
    ids=["more features than images", "wide, few images", "wide, many images"],
)
def test_fit_path_on_the_basis_predicts_as_scikit_learn_does_on_standardised_features(num_images, dim, dtype):
    train, val = (correlated(n, seed=s, dim=dim, spread=0.2) for n, s in ((num_images, 0), (300, 1)))
    basis = Basis.fit(train.cls)
    assert basis.axes.dtype is dtype
    assert basis.axes.shape == (dim, min(dim, num_images))
    scaler = StandardScaler().fit(train.cls.double().numpy())
    reference = LogisticRegression(C=0.01, tol=1e-8, max_iter=10_000)
    reference.fit(scaler.transform(train.cls.double().numpy()), train.labels.numpy())

    classifier = fit_path(basis.rotate(train.cls), train.labels, [0.01], num_classes=4)[0.01]

    expected = reference.predict(scaler.transform(val.cls.double().numpy()))
    assert (classifier.predict(basis.rotate(val.cls)).numpy() == expected).mean() >= 0.995


@pytest.mark.parametrize("mean_patch", [True, False])
def test_evaluate_equals_scikit_learn_with_c_chosen_on_the_tenth(mean_patch):
    train, val = correlated(300, seed=0, spread=0.6), correlated(250, seed=1, spread=0.6)
    scaler = StandardScaler()
    parts = [
        np.hstack([part.cls, part.patches.mean(1)]) if mean_patch else part.cls.numpy()
        for part in (train, val)
    ]
    x, queries = scaler.fit_transform(parts[0]), scaler.transform(parts[1])
    y, truth = train.labels.numpy(), val.labels.numpy()
    fitted, held_out = (part.numpy() for part in split_off_tenth(300, train.labels, seed=2))
    cs = (1e-4, 1e-2, 1.0)
    on_tenth = {
        c: sklearn_logistic(c).fit(x[fitted], y[fitted]).score(x[held_out], y[held_out]) for c in cs
    }
    c = max(cs, key=on_tenth.__getitem__)
    probe = Linear(cs=cs, mean_patch=mean_patch)

    assert chosen_c(probe, train, seed=2) == c
    expected = 100 * sklearn_logistic(c).fit(x, y).score(queries, truth)
    ours = probe.evaluate(train, val, num_classes=4, seed=2)["linear_top1"]
    assert ours == pytest.approx(expected, abs=1e-6)


def test_evaluate_chooses_c_without_the_labels_of_val(monkeypatch):
    train, val = correlated(200, seed=0), correlated(100, seed=1)
    fitted_with = []

    def spy(features, labels, cs, **arguments):
        fitted_with.append((len(labels), tuple(cs)))
        return fit_path(features, labels, cs, **arguments)

    monkeypatch.setattr("specvit.probes.linear.probe.fit_path", spy)
    shuffled = make_split(val.cls, val.labels.flip(0), val.patches)
    scores = [Linear().evaluate(train, part, num_classes=4, seed=0) for part in (val, shuffled)]

    c = chosen_c(Linear(), train, seed=0)
    assert scores[0] != scores[1]
    assert fitted_with[:4] == [(180, Linear().cs), (200, (c,))] * 2


def test_evaluate_leaves_its_inputs_and_the_global_generator_alone():
    train, val = correlated(50, seed=0), correlated(50, seed=1)
    before, state = train.cls.clone(), torch.get_rng_state()

    first = Linear().evaluate(train, val, num_classes=4, seed=0)

    assert torch.equal(train.cls, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert Linear().evaluate(train, val, num_classes=4, seed=0) == first


def test_evaluate_with_a_class_that_train_lacks_counts_its_images_as_wrong():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    train = make_split(np.where(labels == 0, -3, 3)[:, None] + generator.normal(size=(60, 2)) * 0.1, labels)
    val = make_split([[-3.0, -3.0], [3.0, 3.0], [3.0, 3.0], [3.0, 3.0]], [0, 1, 2, 3])

    assert Linear().evaluate(train, val, num_classes=4, seed=0)["linear_top1"] == 50.0


def test_evaluate_with_one_class_in_train_predicts_that_class():
    train = make_split(np.random.default_rng(0).normal(size=(20, 3)), np.full(20, 2))
    val = make_split(np.random.default_rng(1).normal(size=(4, 3)), [2, 2, 0, 1])

    assert Linear().evaluate(train, val, num_classes=3, seed=0)["linear_top1"] == 50.0


def test_evaluate_with_one_image_a_class_takes_the_first_c_and_still_separates_them():
    train = make_split(np.eye(4), np.arange(4))

    assert chosen_c(Linear(), train, seed=0) == Linear().cs[0]
    assert Linear().evaluate(train, train, num_classes=4, seed=0)["linear_top1"] == 100.0


def test_evaluate_with_a_single_training_image_predicts_its_class():
    train = make_split([[1.0, 2.0]], [1])
    val = make_split([[1.0, 2.0], [5.0, -2.0]], [1, 0])

    assert Linear().evaluate(train, val, num_classes=2, seed=0)["linear_top1"] == 50.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_evaluate_with_constant_features_predicts_the_commonest_class(value):
    train = make_split(np.full((40, 2), value), np.arange(40) % 4 // 3)
    val = make_split([[value, value], [value + 7, value]], [0, 0])

    assert Linear().evaluate(train, val, num_classes=2, seed=0)["linear_top1"] == 100.0


def test_evaluate_with_one_feature_finds_the_threshold():
    x = np.linspace(-1, 1, 41)
    train = make_split(x[:, None], (x > 0).astype(int))

    score = Linear(mean_patch=False, cs=(10.0,)).evaluate(train, train, num_classes=2, seed=0)["linear_top1"]

    assert score >= 97


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_nan_features_is_a_divergence(bad):
    splits = {"train": correlated(20, seed=0), "val": correlated(20, seed=1)}
    splits[bad].patches[3, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'linear'.*1 of 20 {bad} images"):
        Linear().evaluate(**splits, num_classes=4, seed=0)


def test_evaluate_with_an_unknown_label_is_an_error():
    train = correlated(20, seed=0)

    with pytest.raises(DataError, match=r"train labels must be in \[0, 2\)"):
        Linear().evaluate(train, make_split(train.cls, [0] * 20), num_classes=2, seed=0)


@pytest.mark.parametrize("arguments", [{"cs": ()}, {"cs": (0.0,)}, {"mean_patch": 1}, {"lr": 0.1}])
def test_linear_with_a_bad_setting_is_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Linear(**arguments)


def test_linear_is_found_by_name():
    assert PROBES["linear"] is Linear
