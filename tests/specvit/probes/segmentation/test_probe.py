import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler
from torchmetrics.classification import MulticlassJaccardIndex

from specvit.errors import DataError, DivergenceError
from specvit.probes import PROBES, ProbeSplit
from specvit.probes.segmentation.base import count_classes
from specvit.probes.segmentation.fitters import FITTERS
from specvit.probes.segmentation.probe import DEFAULTS, Segmentation
from specvit.probes.segmentation.readout import segment
from specvit.probes.segmentation.ridge import Ridge, class_weights
from specvit.probes.selection import split_off_tenth

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


def test_count_classes_counts_every_class_in_every_patch():
    masks = scenes(5, seed=0).masks

    counts = count_classes(masks, GRID, num_classes=NUM_CLASSES)

    expected = fractions(masks.numpy())[..., :NUM_CLASSES].reshape(-1, NUM_CLASSES) * TILE**2
    np.testing.assert_allclose(counts.numpy(), expected)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_solve_equals_scikit_learn_on_pixels(balance):
    train = scenes(40, seed=0)
    patches, masks = train.patches.numpy().astype(float), train.masks.numpy()
    penalties = (10.0, 0.1, 1e-5)
    weights = class_weights(train, num_classes=NUM_CLASSES, balance=balance)

    readout = Ridge.sum_over(train, torch.arange(40), class_weights=weights).solve(penalties)

    for i, penalty in enumerate(penalties):
        scaler, ridge = reference_fit(patches, masks, penalty=penalty, balance=balance, weights_from=masks)
        x = patches.reshape(-1, patches.shape[-1])
        ours = (x - readout.offset.numpy()) @ readout.weight[i].numpy() + readout.bias[i].numpy()
        np.testing.assert_allclose(ours, ridge.predict(scaler.transform(x)), atol=1e-6)
        in_float32 = list(readout.scores(train.patches))[i].flatten(0, 1).numpy()
        np.testing.assert_allclose(in_float32, ours, atol=1e-4)


def test_solve_without_balance_is_ridge_regression_of_label_fractions():
    train = scenes(40, seed=0)
    shares = fractions(train.masks.numpy()).reshape(-1, NUM_CLASSES + 1)
    labelled = 1 - shares[:, -1]
    x = train.patches.double().flatten(0, 1).numpy()
    standardised = StandardScaler().fit_transform(x)
    kept = labelled > 0
    reference = SklearnRidge(alpha=0.05 * labelled.sum(), solver="cholesky").fit(
        standardised[kept], shares[kept, :-1] / labelled[kept, None], sample_weight=labelled[kept]
    )

    readout = Ridge.sum_over(train, torch.arange(40), class_weights=torch.ones(NUM_CLASSES).double()).solve([0.05])

    ours = (x - readout.offset.numpy()) @ readout.weight[0].numpy() + readout.bias[0].numpy()
    assert not kept.all()
    np.testing.assert_allclose(ours, reference.predict(standardised), atol=1e-6)


def test_sums_of_parts_and_of_chunks_equal_those_of_the_whole(monkeypatch):
    train, weights = scenes(30, seed=0), torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    whole = Ridge.sum_over(train, torch.arange(30), class_weights=weights)
    monkeypatch.setattr("specvit.probes.segmentation.base.CHUNK_VALUES", 500)

    parts = [Ridge.sum_over(train, part, class_weights=weights) for part in torch.arange(30).split(11)]
    added = parts[0] + parts[1] + parts[2]

    for name in ("moments", "gram", "cross"):
        torch.testing.assert_close(getattr(added, name), getattr(whole, name), rtol=1e-12, atol=1e-9)


def chosen(probe, train, *, seed):
    """Return the candidate that ``evaluate`` refits with."""
    training = probe._training(train, num_classes=NUM_CLASSES, seed=seed)
    return probe._choose(probe._fitter(training), training)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_segment_upsamples_scores_before_it_chooses(mode):
    scores = torch.randn(3, *GRID, NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    upsampled = torch.nn.functional.interpolate(scores.permute(0, 3, 1, 2).contiguous(), size=SIZE, mode=mode)

    predictions = segment(scores, size=SIZE, upsample=mode)

    assert torch.equal(predictions, upsampled.argmax(1))


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_evaluate_equals_scikit_learn_and_torchmetrics_with_the_penalty_chosen_on_the_tenth(upsample):
    train, val = scenes(50, seed=0), scenes(30, seed=1)
    patches, masks = train.patches.numpy().astype(float), train.masks.numpy()
    fitted, held_out = (part.numpy() for part in split_off_tenth(50, None, seed=3))
    penalties = (10.0, 0.3, 1e-3)
    on_tenth = {}
    for penalty in penalties:
        fit = reference_fit(patches[fitted], masks[fitted], penalty=penalty, balance=0.5, weights_from=masks)
        on_tenth[penalty] = reference_miou(*fit, patches[held_out], masks[held_out], mode=upsample)
    penalty = max(penalties, key=on_tenth.__getitem__)
    probe = Segmentation(penalties=penalties, balance=0.5, upsample=upsample)

    assert chosen(probe, train, seed=3) == penalty
    fit = reference_fit(patches, masks, penalty=penalty, balance=0.5, weights_from=masks)
    expected = reference_miou(*fit, val.patches.numpy().astype(float), val.masks.numpy(), mode=upsample)
    ours = probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)["miou"]
    assert ours == pytest.approx(expected, abs=1e-4)


def test_evaluate_chooses_the_penalty_without_the_masks_of_val(monkeypatch):
    train, val = scenes(40, seed=0), scenes(30, seed=1)
    solved_for = []
    solve = Ridge.solve

    def spy(self, penalties):
        solved_for.append(tuple(penalties))
        return solve(self, penalties)

    monkeypatch.setattr(Ridge, "solve", spy)
    shuffled = make_split(val.patches, val.masks.flip(0))
    scores = [Segmentation().evaluate(train, part, num_classes=4, seed=0) for part in (val, shuffled)]

    penalty = chosen(Segmentation(), train, seed=0)
    assert scores[0] != scores[1]
    assert solved_for[:4] == [Segmentation().penalties, (penalty,)] * 2


def test_evaluate_in_chunks_equals_evaluate_at_once(monkeypatch):
    train, val = scenes(40, seed=0), scenes(30, seed=1)
    at_once = Segmentation().evaluate(train, val, num_classes=NUM_CLASSES, seed=0)
    monkeypatch.setattr("specvit.probes.segmentation.base.CHUNK_VALUES", 1)

    in_chunks = Segmentation().evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert in_chunks["miou"] == pytest.approx(at_once["miou"], abs=1e-6)


def test_evaluate_with_tokens_that_tell_the_class_is_perfect():
    tiles = np.random.default_rng(0).integers(NUM_CLASSES, size=(40, *GRID))
    masks = tiles.repeat(TILE, 1).repeat(TILE, 2)
    split = make_split(np.eye(NUM_CLASSES)[tiles.reshape(40, -1)], masks)

    nearest = Segmentation(upsample="nearest").evaluate(split, split, num_classes=NUM_CLASSES, seed=0)

    assert nearest["miou"] == 100.0


def test_evaluate_with_balance_finds_a_rare_class_that_it_misses_without():
    # Class 1 covers 1 of 16 patches; its token differs from half of the others only.
    generator = np.random.default_rng(0)
    tiles = (generator.random((200, 6)) < 1 / 16).astype(int)
    tokens = np.where(tiles == 1, 1, generator.integers(2, size=tiles.shape))[..., None]
    split = make_split(tokens, tiles.reshape(200, *GRID).repeat(TILE, 1).repeat(TILE, 2))

    without, balanced = (
        probe.evaluate(split, split, num_classes=2, seed=0)["miou"]
        for probe in (Segmentation(balance=balance, upsample="nearest") for balance in (0.0, 1.0))
    )

    # Never predicted, class 1 has no intersection; always predicted at token 1, it has all of its pixels.
    num_rare, num_marked = (tiles == 1).sum(), (tokens == 1).sum()
    assert without == pytest.approx(100 * (1 - num_rare / tiles.size) / 2)
    found = num_rare / num_marked
    rest = (tiles.size - num_marked) / (tiles.size - num_rare)
    assert balanced == pytest.approx(100 * (found + rest) / 2)


def test_evaluate_with_a_class_that_train_lacks_never_predicts_it():
    train = scenes(30, seed=0)
    masks = train.masks.clone()
    masks[masks == 2] = 255
    val = make_split(train.patches[:1], torch.full((1, *SIZE), 2))

    # Class 2 has no intersection, and neither has what is predicted instead.
    score = Segmentation().evaluate(make_split(train.patches, masks), val, num_classes=4, seed=0)["miou"]
    assert score == 0.0


def test_evaluate_with_one_class_in_train_predicts_that_class():
    train = make_split(np.random.default_rng(0).normal(size=(12, 6, 3)), np.full((12, *SIZE), 3))
    half = np.full((1, *SIZE), 3)
    half[:, :6] = 1
    val = make_split(np.zeros((1, 6, 3)), half)

    # Class 3: half of the pixels; class 1: none.
    assert Segmentation().evaluate(train, val, num_classes=4, seed=0)["miou"] == pytest.approx(25.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("dim", [1, 3])
def test_evaluate_with_constant_features_predicts_the_commonest_class(value, dim):
    masks = np.zeros((20, *SIZE))
    masks[:, :2] = 1
    train = make_split(np.full((20, 6, dim), value), masks)

    score = Segmentation().evaluate(train, train, num_classes=2, seed=0)["miou"]

    # Class 1 covers 2 of 12 rows and is never predicted.
    assert score == pytest.approx(100 * (10 / 12) / 2)


def test_evaluate_with_a_single_training_image_fits_and_chooses_on_it():
    one = scenes(1, seed=0, noise=0.0)

    score = Segmentation().evaluate(one, one, num_classes=NUM_CLASSES, seed=0)["miou"]

    assert 0 < score <= 100


def test_choose_without_labels_in_the_held_out_tenth_takes_the_first():
    train = scenes(20, seed=0)
    fitted, held_out = split_off_tenth(20, None, seed=0)
    for part in (fitted, held_out):
        masks = train.masks.clone()
        masks[part] = 255
        blind = make_split(train.patches, masks)
        assert chosen(Segmentation(penalties=(0.3, 0.2)), blind, seed=0) == 0.3


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_all_pixels_ignored_is_an_error(bad):
    splits = {"train": scenes(12, seed=0), "val": scenes(12, seed=1)}
    splits[bad].masks.fill_(255)

    with pytest.raises(DataError, match=f"every pixel of the {bad} masks is ignored"):
        Segmentation().evaluate(**splits, num_classes=NUM_CLASSES, seed=0)


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_nan_features_is_a_divergence(bad):
    splits = {"train": scenes(12, seed=0), "val": scenes(12, seed=1)}
    splits[bad].patches[3, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'segmentation'.*1 of 12 {bad} images"):
        Segmentation().evaluate(**splits, num_classes=NUM_CLASSES, seed=0)


OTHERS = {
    "logistic": {"cs": (1e-3, 1.0)},
    "linear": {"lrs": (1e-3, 0.03), "steps": 40},
    "knn": {"ks": (1, 10)},
}


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_chooses_on_the_tenth_and_refits_on_all_of_train(protocol):
    train, val = scenes(50, seed=0), scenes(30, seed=1)
    probe = Segmentation(protocol=protocol, **OTHERS[protocol])
    candidates = next(iter(OTHERS[protocol].values()))
    fitted, held_out = split_off_tenth(50, None, seed=3)
    of_part, of_tenth = (
        make_split(train.patches[part], train.masks[part]) for part in (fitted, held_out)
    )
    name = next(iter(OTHERS[protocol]))
    alone = {c: Segmentation(protocol=protocol, **{**OTHERS[protocol], name: (c,)}) for c in candidates}
    on_tenth = {c: probe.evaluate(of_part, of_tenth, num_classes=4, seed=3)["miou"] for c, probe in alone.items()}

    best = chosen(probe, train, seed=3)

    assert len(set(on_tenth.values())) == 2
    assert best == max(on_tenth, key=on_tenth.__getitem__)
    whole = [each.evaluate(train, val, num_classes=NUM_CLASSES, seed=3) for each in (probe, alone[best])]
    assert whole[0] == whole[1]
    assert whole[0] == probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_leaves_inputs_and_the_global_generator_alone(protocol):
    train, val = scenes(20, seed=0), scenes(10, seed=1)
    before, state = (train.patches.clone(), train.masks.clone()), torch.get_rng_state()

    Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert torch.equal(train.patches, before[0])
    assert torch.equal(train.masks, before[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_one_class_in_train_predicts_that_class(protocol):
    train = make_split(np.random.default_rng(0).normal(size=(12, 6, 3)), np.full((12, *SIZE), 3))
    half = np.full((1, *SIZE), 3)
    half[:, :6] = 1
    val = make_split(np.zeros((1, 6, 3)), half)
    probe = Segmentation(protocol=protocol, **OTHERS[protocol])

    # Class 3: half of the pixels; class 1: none.
    assert probe.evaluate(train, val, num_classes=4, seed=0)["miou"] == pytest.approx(25.0)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_a_single_training_image_fits_and_chooses_on_it(protocol):
    one = scenes(1, seed=0, noise=0.0)

    score = Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(one, one, num_classes=4, seed=0)["miou"]

    assert 0 < score <= 100


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_constant_features_predicts_the_commonest_class(protocol):
    masks = np.zeros((20, *SIZE))
    masks[:, :2] = 1
    train = make_split(np.full((20, 6, 3), 7.0), masks)
    # kNN: all patches are equally near, so it must be all of them that vote.
    fields = {"ks": (500,)} if protocol == "knn" else OTHERS[protocol]

    score = Segmentation(protocol=protocol, **fields).evaluate(train, train, num_classes=2, seed=0)["miou"]

    # Class 1 covers 2 of 12 rows and is never predicted.
    assert score == pytest.approx(100 * (10 / 12) / 2)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_masks_from_inference_mode(protocol):
    # As a backbone's features come.
    with torch.inference_mode():
        train = scenes(20, seed=0)

    score = Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(train, train, num_classes=4, seed=0)["miou"]

    assert 0 < score <= 100


def test_segmentation_is_ridge_by_default_with_no_field_of_another_protocol():
    probe = Segmentation()

    assert probe.protocol == "ridge"
    assert (probe.penalties, probe.balance, probe.upsample) == ((1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5), 0.75, "bilinear")
    others = ("cs", "lrs", "steps", "batch_size", "dropout", "ks", "max_patches")
    assert {name: getattr(probe, name) for name in others} == dict.fromkeys(others)


def test_segmentation_fields_take_the_published_defaults_of_their_protocol():
    logistic, linear, knn = (Segmentation(protocol=protocol) for protocol in ("logistic", "linear", "knn"))

    np.testing.assert_allclose(logistic.cs, 10 ** np.linspace(-6, 5, 8), rtol=0.02)
    assert logistic.upsample == "nearest"
    assert (linear.dropout, linear.batch_size, linear.upsample) == (0.1, 16, "bilinear")
    assert linear.lrs[0] == 1e-3
    assert knn.ks == (1, 3, 10, 30)
    assert knn.upsample is None


def test_segmentation_protocols_have_defaults_fitters_and_documented_fields():
    assert list(DEFAULTS) == list(FITTERS) == ["ridge", "logistic", "linear", "knn"]
    names = {name for fields in DEFAULTS.values() for name in fields}
    assert {field.name for field in dataclasses.fields(Segmentation)} == names | {"protocol", "data", "num_train"}


@given(protocol=st.sampled_from(list(DEFAULTS)), owner=st.sampled_from(list(DEFAULTS)), data=st.data())
def test_segmentation_takes_a_field_if_and_only_if_it_belongs_to_the_protocol(protocol, owner, data):
    name = data.draw(st.sampled_from(list(DEFAULTS[owner])))
    value = DEFAULTS[owner][name]

    if name in DEFAULTS[protocol]:
        probe = Segmentation(protocol=protocol, **{name: value})
        assert getattr(probe, name) == value
        assert dataclasses.replace(probe) == probe
    else:
        with pytest.raises(ValueError, match=f"{name} must not be given with protocol '{protocol}'.*{owner}"):
            Segmentation(protocol=protocol, **{name: value})


@pytest.mark.parametrize(
    "arguments",
    [
        {"penalties": ()},
        {"penalties": (0.0,)},
        {"balance": 1.5},
        {"upsample": "cubic"},
        {"lr": 0.1},
        {"protocol": "svm"},
        {"cs": (), "protocol": "logistic"},
        {"cs": (-1.0,), "protocol": "logistic"},
        {"lrs": (0.0,), "protocol": "linear"},
        {"steps": 0, "protocol": "linear"},
        {"batch_size": 1.5, "protocol": "linear"},
        {"dropout": 1.0, "protocol": "linear"},
        {"ks": (0,), "protocol": "knn"},
        {"max_patches": 0, "protocol": "knn"},
        {"upsample": "nearest", "protocol": "knn"},
    ],
)
def test_segmentation_with_a_bad_setting_is_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Segmentation(**arguments)


def test_segmentation_is_found_by_name():
    assert PROBES["segmentation"] is Segmentation
