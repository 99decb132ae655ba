import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from specvit.errors import DataError, DivergenceError
from specvit.probes import PROBES, ProbeSplit
from specvit.probes.attentive import probe as attentive_module
from specvit.probes.attentive.pooling import AttentiveHeads, Tokens, fit_attentive_heads, num_attention_heads
from specvit.probes.attentive.probe import Attentive
from specvit.probes.linear.probe import Linear
from specvit.probes.minibatches import minibatches
from specvit.probes.selection import split_off_tenth


def make_split(patches, labels, cls=None):
    patches = torch.as_tensor(patches, dtype=torch.float32)
    cls = patches.mean(1) if cls is None else torch.as_tensor(cls, dtype=torch.float32)
    return ProbeSplit(
        cls=cls, patches=patches, grid=(1, patches.shape[1]), labels=torch.as_tensor(labels), masks=None
    )


def needles(num_images, *, seed, num_classes=4, num_patches=9, dim=12):
    """Draw images whose class is told by the one patch that carries a mark; the others name classes at random."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_images)
    named = generator.integers(num_classes, size=(num_images, num_patches))
    marked = generator.integers(num_patches, size=num_images)
    named[np.arange(num_images), marked] = labels
    patches = 0.1 * generator.normal(size=(num_images, num_patches, dim))
    patches += np.eye(dim)[named]
    patches[np.arange(num_images), marked, dim - 1] += 1
    return make_split(patches, labels, cls=0.1 * generator.normal(size=(num_images, dim)))


class Reference(nn.Module):
    """One classifier as the source builds it: key and value of every token, one query, a linear map."""

    def __init__(self, heads, index, *, key_bias=0.0):
        super().__init__()
        self.num_heads, width = heads.query.shape[1], heads.key.shape[3]
        self.query = nn.Parameter(heads.query[index].flatten().clone())
        self.kv = nn.Linear(width, 2 * width, dtype=heads.query.dtype)
        self.linear = nn.Linear(width, len(heads.classes), dtype=heads.query.dtype)
        with torch.no_grad():
            self.kv.weight.copy_(torch.cat([heads.key[index].flatten(0, 1), heads.value[index].flatten(0, 1)]))
            self.kv.bias.copy_(torch.cat([torch.full((width,), key_bias), heads.value_bias[index].flatten()]))
            self.linear.weight.copy_(heads.weight[index])
            self.linear.bias.copy_(heads.bias[index])

    def forward(self, tokens):
        num_images, _, width = tokens.shape
        split = (num_images, -1, self.num_heads, width // self.num_heads)
        key, value = (part.reshape(split).transpose(1, 2) for part in self.kv(tokens).chunk(2, dim=2))
        query = self.query.expand(num_images, 1, width).reshape(split).transpose(1, 2)
        pooled = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.linear(pooled.transpose(1, 2).reshape(num_images, width))


def random_heads(num_heads, *, width, head_dim, num_classes):
    generator = torch.Generator().manual_seed(0)
    tokens = Tokens.of_split(*[make_split(torch.randn(2, 3, width).double(), [0, 1])] * 2, with_cls=False)
    heads = AttentiveHeads.initial(num_heads, tokens, head_dim=head_dim, classes=torch.arange(num_classes), seed=0)
    return AttentiveHeads(
        *(
            torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for tensor in (heads.query, heads.key, heads.value, heads.value_bias, heads.weight, heads.bias)
        ),
        heads.classes,
    )


@pytest.mark.parametrize("head_dim", [4, 12])
def test_scores_are_those_of_attention_with_keys_and_values_of_every_token(head_dim):
    heads = random_heads(3, width=12, head_dim=head_dim, num_classes=5)
    tokens = torch.randn(6, 7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    scores = heads.scores(tokens)

    assert scores.shape == (6, 3, 5)
    for index in range(3):
        # A bias of keys, which we have not, changes nothing.
        expected = Reference(heads, index, key_bias=0.7)(tokens)
        torch.testing.assert_close(scores[:, index], expected, rtol=0, atol=1e-10)


def test_scores_are_those_of_torchs_multi_head_attention():
    heads = random_heads(1, width=12, head_dim=4, num_classes=5)
    tokens = torch.randn(6, 7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    attention = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        eye = torch.eye(12, dtype=torch.float64)
        attention.in_proj_weight.copy_(torch.cat([eye, heads.key[0].flatten(0, 1), heads.value[0].flatten(0, 1)]))
        attention.in_proj_bias.zero_()
        attention.in_proj_bias[24:] = heads.value_bias[0].flatten()
        attention.out_proj.weight.copy_(eye)
        attention.out_proj.bias.zero_()

    pooled, _ = attention(heads.query[0].flatten().expand(6, 1, 12), tokens, tokens)

    expected = pooled[:, 0] @ heads.weight[0].T + heads.bias[0]
    torch.testing.assert_close(heads.scores(tokens)[:, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("width", "head_dim", "number"), [(64, 32, 2), (768, 64, 12), (48, 32, 1), (96, 32, 3), (100, 32, 2), (8, 32, 1)]
)
def test_attention_has_as_many_heads_as_divide_the_width(width, head_dim, number):
    assert num_attention_heads(width, head_dim) == number


def train_alone(model, tokens, labels, images, *, rate, decay, epochs, batch_size, seed):
    num = epochs * len(images) // batch_size
    steps = list(minibatches(len(images), steps=num, batch_size=batch_size, seed=seed))
    biases = [parameter for name, parameter in model.named_parameters() if "bias" in name]
    weights = [parameter for name, parameter in model.named_parameters() if "bias" not in name]
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    solver = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    rise = 0.1 * len(steps)
    for number, batch in enumerate(steps):
        pace = number / rise if number < rise else (1 + math.cos(math.pi * (number - rise) / (len(steps) - rise))) / 2
        for group in solver.param_groups:
            group["lr"] = pace * rate * batch_size / 256
        chosen = images[batch]
        solver.zero_grad()
        nn.functional.cross_entropy(model(tokens.standardised(chosen)), labels[chosen]).backward()
        model.kv.bias.grad[: len(model.kv.bias) // 2] = 0  # of keys: 0 but for rounding
        solver.step()
    return model


def test_fit_attentive_heads_equals_a_loop_of_torchs_adamw_for_each():
    split = needles(60, seed=0)
    split = dataclasses.replace(split, patches=split.patches.double(), cls=split.cls.double())
    tokens, images = Tokens.of_split(split, split, with_cls=True), torch.arange(5, 60)
    rates, decays = (0.1, 0.01, 0.1), (0.0, 0.05, 5.0)
    arguments = {"epochs": 4, "batch_size": 16, "seed": 3}

    def fit(**changes):
        return fit_attentive_heads(
            tokens,
            split.labels,
            images,
            lrs=rates,
            weight_decays=decays,
            head_dim=4,
            **{**arguments, **changes},
        )

    start, got = fit(epochs=0), fit()

    for index, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        expected = train_alone(
            Reference(start, index), tokens, split.labels, images, rate=rate, decay=decay, **arguments
        )
        trained = Reference(got, index)
        for (name, ours), theirs in zip(trained.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=name)
        assert (trained.query - Reference(start, index).query).abs().max() > 1e-3


def test_initial_weights_are_a_truncated_normal_and_the_same_for_all():
    split = make_split(torch.randn(4, 3, 200), [0, 1, 2, 3])
    heads = AttentiveHeads.initial(
        3, Tokens.of_split(split, split, with_cls=True), head_dim=50, classes=torch.arange(4), seed=0
    )

    assert heads.key.shape == (3, 4, 50, 200)
    assert heads.key.std() == pytest.approx(0.02, rel=0.05)
    assert not heads.bias.any()
    assert not heads.value_bias.any()
    assert all(torch.equal(weight[0], other) for weight in heads.weights for other in weight)


def test_tokens_are_centred_and_scaled_by_the_patches_of_train():
    train, val = needles(30, seed=0), needles(10, seed=1)
    flat = train.patches.double().numpy().reshape(-1, 12)
    together = np.concatenate([val.cls[:, None], val.patches], axis=1)
    expected = (together - flat.mean(0)) / np.sqrt(flat.var(0).mean())

    standardised = Tokens.of_split(val, train, with_cls=True).standardised(torch.tensor([3, 0]))

    np.testing.assert_allclose(standardised, expected[[3, 0]], atol=1e-5)
    without = Tokens.of_split(val, train, with_cls=False).standardised(torch.tensor([3, 0]))
    assert torch.equal(without, standardised[:, 1:])


def test_tokens_of_raw_pixels_are_patches_alone():
    split = ProbeSplit(cls=torch.rand(5, 24), patches=torch.rand(5, 4, 6), grid=(2, 2), labels=None, masks=None)
    assert Tokens.of_split(split, split, with_cls=True).standardised(torch.arange(5)).shape == (5, 4, 6)


def test_evaluate_finds_the_class_that_one_patch_tells_where_the_mean_does_not():
    train, val = needles(600, seed=0), needles(300, seed=1)

    attentive = Attentive(epochs=60).evaluate(train, val, num_classes=4, seed=0)["attentive_top1"]
    linear = Linear().evaluate(train, val, num_classes=4, seed=0)["linear_top1"]

    assert attentive > 95
    assert linear < 60


def test_evaluate_reads_cls_if_it_is_to():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=300)
    cls = np.eye(8)[labels] * 3 + generator.normal(size=(300, 8)) * 0.1
    split = make_split(generator.normal(size=(300, 4, 8)), labels, cls=cls)

    scores = [
        Attentive(use_cls=use_cls, epochs=60, weight_decays=(0.0,)).evaluate(
            split, make_split(generator.normal(size=(300, 4, 8)), labels, cls=cls), num_classes=3, seed=0
        )["attentive_top1"]
        for use_cls in (True, False)
    ]

    assert scores[0] > 85
    assert scores[1] < 50


def chosen_setting(probe, train):
    """Return the learning rate and weight decay that ``evaluate`` refits with."""
    return probe._choose(*probe._inputs(train, num_classes=4), seed=0)


def test_evaluate_is_the_setting_chosen_on_the_tenth_fitted_anew(monkeypatch):
    train, val = needles(100, seed=0), needles(60, seed=1)
    fitted_with = []

    def spy(tokens, labels, images, **arguments):
        fitted_with.append((len(images), tuple(arguments["lrs"]), tuple(arguments["weight_decays"])))
        return fit_attentive_heads(tokens, labels, images, **arguments)

    monkeypatch.setattr(attentive_module, "fit_attentive_heads", spy)
    probe = Attentive(lrs=(0.1, 1e-3), weight_decays=(0.0, 0.1), epochs=8, head_dim=12)
    shuffled = dataclasses.replace(val, labels=val.labels.flip(0))
    scores = [probe.evaluate(train, part, num_classes=4, seed=0)["attentive_top1"] for part in (val, shuffled)]
    rate, decay = chosen_setting(probe, train)

    assert fitted_with[:4] == [(90, (0.1, 0.1, 1e-3, 1e-3), (0.0, 0.1) * 2), (100, (rate,), (decay,))] * 2
    assert scores[0] != scores[1]

    tokens, queries = Tokens.of_split(train, train, with_cls=True), Tokens.of_split(val, train, with_cls=True)
    fitted, held_out = split_off_tenth(100, train.labels, seed=0)

    def alone(setting, images, asked, scored, truth):
        heads = fit_attentive_heads(
            tokens,
            train.labels,
            images,
            lrs=[setting[0]],
            weight_decays=[setting[1]],
            head_dim=12,
            epochs=8,
            batch_size=128,
            seed=0,
        )
        return (heads.scores(asked.standardised(scored))[:, 0].argmax(1) == truth[scored]).double().mean().item()

    settings = [(0.1, 0.0), (0.1, 0.1), (1e-3, 0.0), (1e-3, 0.1)]
    on_tenth = [alone(setting, fitted, tokens, held_out, train.labels) for setting in settings]
    assert (rate, decay) == settings[on_tenth.index(max(on_tenth))]
    expected = alone((rate, decay), torch.arange(100), queries, torch.arange(60), val.labels)
    assert scores[0] == pytest.approx(100 * expected)


def test_evaluate_twice_gives_the_same_and_leaves_inputs_and_the_global_generator_alone():
    train, val = needles(100, seed=0), needles(60, seed=1)
    before, state = train.patches.clone(), torch.get_rng_state()
    probe = Attentive(epochs=3)

    first = probe.evaluate(train, val, num_classes=4, seed=0)

    assert torch.equal(train.patches, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert probe.evaluate(train, val, num_classes=4, seed=0) == first


def test_evaluate_takes_features_made_in_inference_mode():
    with torch.inference_mode():
        train = needles(40, seed=0)
        train = dataclasses.replace(train, patches=train.patches * 2, cls=train.cls * 2)
    assert train.patches.is_inference()
    probe = Attentive(epochs=100, batch_size=16)
    assert probe.evaluate(train, train, num_classes=4, seed=0)["attentive_top1"] > 90


def test_evaluate_never_predicts_a_class_that_train_lacks():
    train = needles(200, seed=0)
    even = dataclasses.replace(train, labels=train.labels * 2)
    odd = dataclasses.replace(train, labels=train.labels * 2 + 1)

    probe = Attentive(epochs=60)

    assert probe.evaluate(even, even, num_classes=8, seed=0)["attentive_top1"] > 90
    assert probe.evaluate(even, odd, num_classes=8, seed=0)["attentive_top1"] == 0


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_evaluate_with_few_images_separates_them(num_images):
    train = make_split(torch.eye(8)[:num_images, None].expand(-1, 3, -1), np.arange(num_images))
    assert Attentive().evaluate(train, train, num_classes=num_images, seed=0)["attentive_top1"] == 100


def test_evaluate_with_constant_tokens_predicts_the_commonest_class():
    train = make_split(np.full((40, 2, 3), 0.1), np.arange(40) % 4 // 3)
    assert Attentive().evaluate(train, train, num_classes=2, seed=0)["attentive_top1"] == 75


@pytest.mark.parametrize("bad", ["train", "val"])
@pytest.mark.parametrize("token", ["cls", "patches"])
def test_evaluate_with_nan_features_is_a_divergence(bad, token):
    splits = {"train": needles(20, seed=0), "val": needles(20, seed=1)}
    getattr(splits[bad], token)[3, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'attentive'.*1 of 20 {bad} images"):
        Attentive().evaluate(**splits, num_classes=4, seed=0)


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_without_labels_or_with_an_unknown_one_is_an_error(bad):
    splits = {"train": needles(20, seed=0), "val": needles(20, seed=1)}
    with pytest.raises(DataError, match=rf"{bad} split has no labels"):
        Attentive().evaluate(**{**splits, bad: dataclasses.replace(splits[bad], labels=None)}, num_classes=4, seed=0)
    splits[bad].labels[0] = 7
    with pytest.raises(DataError, match=rf"{bad} labels must be in \[0, 4\), but one is 7"):
        Attentive().evaluate(**splits, num_classes=4, seed=0)


@pytest.mark.parametrize(
    "arguments",
    [{"lrs": ()}, {"lrs": (0.0,)}, {"weight_decays": (-1.0,)}, {"head_dim": 0}, {"use_cls": 1}],
)
def test_attentive_with_a_bad_setting_is_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Attentive(**arguments)


def test_attentive_is_found_by_name_and_not_run_at_rungs():
    assert PROBES["attentive"] is Attentive
    assert not Attentive.at_rungs
