import dataclasses

import numpy as np
import pytest
import torch

from specvit.errors import DataError, DivergenceError
from specvit.probes import ProbeSplit
from specvit.probes.linear import probe as linear_module
from specvit.probes.linear import sgd
from specvit.probes.linear.probe import Linear
from specvit.probes.linear.sgd import Head, fit_heads, head_features, head_grid, read_by
from specvit.probes.minibatches import minibatches
from specvit.probes.selection import split_off_tenth

RATES = (1e-3, 0.1, 1.0)


def make_split(intermediate_cls, patches, labels):
    intermediate_cls, patches = (torch.as_tensor(x, dtype=torch.float32) for x in (intermediate_cls, patches))
    return ProbeSplit(
        cls=intermediate_cls[:, -1],
        patches=patches,
        grid=(1, patches.shape[1]),
        labels=torch.as_tensor(labels),
        masks=None,
        intermediate_cls=intermediate_cls,
    )


def classes(num_images, *, seed, where, num_classes=3, num_blocks=4, spread=2.0):
    """Draw tokens without meaning, but for those named: ``(block or "patches")``."""
    centres = np.random.default_rng(9).normal(size=(num_classes, 6)) * spread
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_images)
    intermediate_cls = generator.normal(size=(num_images, num_blocks, 6))
    patches = generator.normal(size=(num_images, 2, 6))
    if where == "patches":
        patches += centres[labels][:, None]
    else:
        intermediate_cls[:, where] += centres[labels]
    return make_split(intermediate_cls, patches, labels)


def chosen_head(probe, train, *, seed):
    """Return the classifier that ``evaluate`` refits."""
    (features,) = probe._sgd_features(train)
    return probe._choose_head(features, train.labels, train, seed=seed)


def train_alone(features, labels, weight, *, rate, epochs, batch_size, seed):
    """Train one linear layer as anybody would; returns weight and bias."""
    layer = torch.nn.Linear(*reversed(weight.shape), dtype=features.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    num = epochs * len(labels) // batch_size
    steps = list(minibatches(len(labels), steps=num, batch_size=batch_size, seed=seed))
    solver = torch.optim.SGD(layer.parameters(), lr=rate * batch_size / 256, momentum=0.9, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, len(steps), eta_min=0)
    for batch in steps:
        solver.zero_grad()
        torch.nn.functional.cross_entropy(layer(features[batch]), labels[batch]).backward()
        solver.step()
        schedule.step()
    return layer.weight.detach(), layer.bias.detach()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fit_heads_equals_a_loop_of_torchs_sgd_for_each_head(dtype, tolerance):
    train = classes(70, seed=0, where=1)
    heads = head_grid(RATES, (1, 4), num_blocks=4)
    features, reads = head_features(train).to(dtype), read_by(heads, train)
    arguments = {"epochs": 5, "batch_size": 16, "seed": 3}

    def fit(**changes):
        rates = [head.learning_rate for head in heads]
        return fit_heads(features, train.labels, lrs=rates, reads=reads, **{**arguments, **changes})

    start, got = fit(epochs=0), fit()

    assert len(heads) == 12
    for index, head in enumerate(heads):
        columns = reads[:, index]
        weight, bias = train_alone(
            features[:, columns],
            train.labels,
            start.weight[columns, index].T,
            rate=head.learning_rate,
            **arguments,
        )
        torch.testing.assert_close(got.weight[columns, index], weight.T, rtol=0, atol=tolerance)
        torch.testing.assert_close(got.bias[index], bias, rtol=0, atol=tolerance)
        assert not got.weight[~columns, index].any()


def test_initial_weights_are_small_and_the_same_for_all_heads_that_read_a_feature():
    train = classes(70, seed=0, where=1)
    train = dataclasses.replace(train, patches=torch.zeros(70, 2, 500))
    heads = head_grid(RATES, (1, 4), num_blocks=4)
    reads = read_by(heads, train)

    start = fit_heads(
        head_features(train), train.labels, lrs=[1] * 12, reads=reads, epochs=0, batch_size=8, seed=0
    )

    assert start.weight[-500:, 11].std() == pytest.approx(0.01, rel=0.1)
    assert not start.bias.any()
    for feature in range(len(reads)):
        reading = start.weight[feature, reads[feature]]
        assert torch.equal(reading, reading[:1].expand_as(reading))


def test_heads_read_the_last_blocks_and_the_mean_patch():
    cls = torch.arange(3.0)[None, :, None].expand(1, 3, 2)  # three blocks of [CLS], filled with their number
    part = make_split(cls, [[[7.0, 7.0], [9.0, 9.0]]], [0])
    heads = head_grid((0.1,), (1, 2, 4), num_blocks=3)

    assert heads == tuple(Head(0.1, number, mean) for number in (1, 2, 3) for mean in (False, True))
    read = [head_features(part)[0, column].tolist() for column in read_by(heads, part).T]
    last, last_two, all_three = [2, 2], [1, 1, 2, 2], [0, 0, 1, 1, 2, 2]
    assert read == [last, [*last, 8, 8], last_two, [*last_two, 8, 8], all_three, [*all_three, 8, 8]]


def test_heads_of_a_split_without_blocks_read_what_stands_for_the_image():
    image = torch.arange(4.0)[None]
    part = ProbeSplit(cls=image, patches=torch.ones(1, 2, 3), grid=(1, 2), labels=None, masks=None)
    heads = head_grid((0.1, 0.2), (1, 4), num_blocks=1)

    assert heads == tuple(Head(rate, 1, mean) for mean in (False, True) for rate in (0.1, 0.2))
    assert head_features(part)[0, read_by(heads, part)[:, 0]].tolist() == [0, 1, 2, 3]
    assert head_features(part)[0, read_by(heads, part)[:, 2]].tolist() == [0, 1, 2, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("where", "num_blocks", "mean_patch"), [(3, 1, False), (0, 4, False), ("patches", None, True)]
)
def test_the_chosen_head_finds_where_the_class_is(where, num_blocks, mean_patch):
    # In 10 images of the tenth a head without information may win by luck; in 80 it does not.
    train, val = (classes(800, seed=seed, where=where) for seed in (0, 1))
    probe = Linear(protocol="sgd", lrs=(1e-7, 0.1), epochs=10)

    head = chosen_head(probe, train, seed=0)

    assert head.learning_rate == 0.1
    assert head.mean_patch or not mean_patch
    assert num_blocks is None or head.num_blocks >= num_blocks
    assert probe.evaluate(train, val, num_classes=3, seed=0)["linear_top1"] > 90


@pytest.mark.parametrize("standardise", [True, False])
def test_evaluate_equals_the_loop_with_the_head_chosen_on_the_tenth(standardise):
    train, val = (classes(200, seed=seed, where=1, spread=0.7) for seed in (0, 1))
    settings = {"epochs": 5, "batch_size": 32}
    probe = Linear(protocol="sgd", lrs=RATES, last_blocks=(1, 3), standardise=standardise, **settings)
    heads = head_grid(RATES, (1, 3), num_blocks=4)
    features, queries = head_features(train), head_features(val)
    if standardise:
        std, mean = torch.std_mean(features, dim=0, correction=0)
        features, queries = (features - mean) / std, (queries - mean) / std
    reads, labels = read_by(heads, train), train.labels
    fitted, held_out = split_off_tenth(200, labels, seed=2)

    def loop(index, images, scored, truth):
        columns, rate = reads[:, index], heads[index].learning_rate
        start = fit_heads(
            features[images],
            labels[images],
            lrs=[rate],
            reads=columns[:, None],
            seed=2,
            epochs=0,
            batch_size=1,
        )
        weight, bias = train_alone(
            features[images][:, columns], labels[images], start.weight[columns, 0].T, rate=rate, seed=2, **settings
        )
        return ((scored[:, columns] @ weight.T + bias).argmax(1) == truth).double().mean().item()

    on_tenth = [loop(index, fitted, features[held_out], labels[held_out]) for index in range(len(heads))]
    chosen = on_tenth.index(max(on_tenth))

    assert chosen_head(probe, train, seed=2) == heads[chosen]
    expected = 100 * loop(chosen, torch.arange(200), queries, val.labels)
    assert probe.evaluate(train, val, num_classes=3, seed=2)["linear_top1"] == pytest.approx(expected, abs=1e-9)


def test_evaluate_chooses_the_head_without_val(monkeypatch):
    train, val = classes(100, seed=0, where=1), classes(60, seed=1, where=1)
    fitted_with = []

    def spy(features, labels, **arguments):
        fitted_with.append((len(labels), tuple(arguments["lrs"])))
        return fit_heads(features, labels, **arguments)

    monkeypatch.setattr(linear_module, "fit_heads", spy)
    probe = Linear(protocol="sgd", lrs=(0.1, 1.0), epochs=2)
    shuffled = dataclasses.replace(val, labels=val.labels.flip(0))
    scores = [probe.evaluate(train, part, num_classes=3, seed=0) for part in (val, shuffled)]

    rate = chosen_head(probe, train, seed=0).learning_rate
    assert scores[0] != scores[1]
    assert fitted_with[:4] == [(90, (0.1, 1.0) * 4), (100, (rate,))] * 2


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_heads_trained_in_groups_within_the_budget_are_those_trained_together(monkeypatch, at_once):
    train = classes(150, seed=0, where=1, spread=0.7)
    probe = Linear(protocol="sgd", lrs=RATES, last_blocks=(1, 3), epochs=4, batch_size=32)
    together = chosen_head(probe, train, seed=0)
    sizes, fitted = [], []

    def spy(features, labels, **arguments):
        heads = fit_heads(features, labels, **arguments)
        sizes.append(len(arguments["lrs"]))
        fitted.append(heads.weight)
        return heads

    monkeypatch.setattr(linear_module, "fit_heads", spy)
    monkeypatch.setattr(sgd, "WEIGHT_BYTES", 10**9)
    chosen_head(probe, train, seed=0)
    (whole,) = fitted
    fitted.clear()
    sizes.clear()
    monkeypatch.setattr(sgd, "WEIGHT_BYTES", at_once * whole[:, 0].nbytes)

    assert chosen_head(probe, train, seed=0) == together
    assert sizes == [min(at_once, 12 - start) for start in range(0, 12, at_once)]
    torch.testing.assert_close(torch.cat(fitted, dim=1), whole, rtol=0, atol=1e-5)
    assert len(sizes) > 1 or torch.equal(fitted[0], whole)


def test_a_group_holds_one_head_at_least():
    heads = head_grid(RATES, (1,), num_blocks=1)
    assert [list(group) for group in sgd.in_groups(heads, bytes_per_head=1 << 40)] == [[head] for head in heads]


def test_evaluate_twice_gives_the_same_and_leaves_inputs_and_the_global_generator_alone():
    train, val = classes(100, seed=0, where=1), classes(60, seed=1, where=1)
    before, state = train.intermediate_cls.clone(), torch.get_rng_state()
    probe = Linear(protocol="sgd", epochs=3)

    first = probe.evaluate(train, val, num_classes=3, seed=0)

    assert torch.equal(train.intermediate_cls, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert probe.evaluate(train, val, num_classes=3, seed=0) == first


def test_evaluate_by_sgd_never_predicts_a_class_that_train_lacks():
    train = classes(60, seed=0, where=3)
    train = dataclasses.replace(train, labels=train.labels * 2)  # of 6 classes, 0, 2 and 4

    probe = Linear(protocol="sgd", epochs=20)
    odd = dataclasses.replace(train, labels=train.labels + 1)

    assert probe.evaluate(train, train, num_classes=6, seed=0)["linear_top1"] > 90
    assert probe.evaluate(train, odd, num_classes=6, seed=0)["linear_top1"] == 0


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_evaluate_by_sgd_with_few_images_separates_them(num_images):
    train = make_split(10 * torch.eye(num_images)[:, None], torch.zeros(num_images, 1, 2), np.arange(num_images))

    score = Linear(protocol="sgd", standardise=False).evaluate(train, train, num_classes=num_images, seed=0)

    assert score["linear_top1"] == 100


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_by_sgd_with_nan_in_an_early_block_is_a_divergence(bad):
    splits = {"train": classes(20, seed=0, where=1), "val": classes(20, seed=1, where=1)}
    splits[bad].intermediate_cls[3, 0, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'linear'.*1 of 20 {bad} images"):
        Linear(protocol="sgd").evaluate(**splits, num_classes=3, seed=0)


def test_evaluate_by_sgd_with_an_unknown_label_is_an_error():
    train = classes(20, seed=0, where=1)

    with pytest.raises(DataError, match=r"train labels must be in \[0, 1\)"):
        Linear(protocol="sgd").evaluate(
            train, dataclasses.replace(train, labels=train.labels * 0), num_classes=1, seed=0
        )


def test_sgd_defaults_are_the_sources_grid():
    sgd = Linear(protocol="sgd")
    assert len(sgd.lrs) == 13
    decades = np.multiply.outer(10.0 ** np.arange(-5, 0), [1, 2, 5]).flatten()  # 1e-5, 2e-5, 5e-5, 1e-4, ...
    np.testing.assert_allclose(sgd.lrs[::-1], decades[:13])
    assert sgd.last_blocks == (1, 4)
    assert Linear().lrs is None


def test_num_blocks_is_what_the_protocol_reads():
    assert Linear().num_blocks == 0
    assert Linear(protocol="sgd").num_blocks == 4
    assert Linear(protocol="sgd", last_blocks=(2, 1)).num_blocks == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 5}, "epochs must not be given with protocol 'logistic'; it is a setting of sgd"),
        ({"epochs": 100}, "epochs must not be given"),  # also at its default
        ({"protocol": "sgd", "cs": (1.0,)}, "cs must not be given with protocol 'sgd'; it is a setting of logistic"),
        ({"protocol": "sgd", "mean_patch": False}, "mean_patch must not be given"),
        ({"protocol": "adam"}, "protocol"),
        ({"protocol": "sgd", "lrs": ()}, "lrs"),
        ({"protocol": "sgd", "last_blocks": (0,)}, "last_blocks"),
    ],
)
def test_linear_with_a_setting_that_does_not_belong_is_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Linear(**settings)
