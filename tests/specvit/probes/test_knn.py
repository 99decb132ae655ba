import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from specvit.errors import DataError, DivergenceError
from specvit.probes import PROBES, ProbeSplit
from specvit.probes.knn import Knn, vote
from specvit.probes.selection import split_off_tenth


def make_split(cls, labels):
    cls = torch.as_tensor(cls, dtype=torch.float32)
    return ProbeSplit(
        cls=cls, patches=cls[:, None], grid=(1, 1), labels=torch.as_tensor(labels), masks=None
    )


def clusters(num_images, *, seed, dim=12, num_classes=5, spread=0.5):
    centres = np.random.default_rng(99).normal(size=(num_classes, dim)) * spread
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_images)
    return make_split(centres[labels] + generator.normal(size=(num_images, dim)), labels)


def sklearn_knn(k, temperature=0.07):
    return KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )


@pytest.mark.parametrize("k", [1, 10, 100, 300])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_vote_equals_scikit_learn(k, temperature):
    train, val = clusters(300, seed=0), clusters(200, seed=1)
    reference = sklearn_knn(k, temperature).fit(train.cls.numpy(), train.labels.numpy())

    predictions = vote(
        val.cls, train.cls, train.labels, ks=(k,), num_classes=5, temperature=temperature
    )

    np.testing.assert_array_equal(predictions[k].numpy(), reference.predict(val.cls.numpy()))


def test_vote_in_chunks_equals_vote_at_once(monkeypatch):
    train, val = clusters(50, seed=0), clusters(23, seed=1)
    arguments = {"ks": (3, 20), "num_classes": 5, "temperature": 0.07}
    at_once = vote(val.cls, train.cls, train.labels, **arguments)
    monkeypatch.setattr("specvit.probes.knn._MAX_SIMILARITIES", 50 * 4)

    in_chunks = vote(val.cls, train.cls, train.labels, **arguments)

    assert in_chunks.keys() == {3, 20}
    assert all(torch.equal(at_once[k], in_chunks[k]) for k in in_chunks)


def test_vote_at_a_tiny_temperature_follows_the_nearest_neighbour():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])

    predictions = vote(
        torch.tensor([[5.0, 0.1]]), bank, torch.tensor([0, 1, 1]), ks=(3,), num_classes=2, temperature=1e-30
    )

    assert predictions[3].tolist() == [0]


def test_evaluate_equals_scikit_learn_with_k_chosen_on_the_tenth():
    train, val = clusters(400, seed=0), clusters(300, seed=1)
    fitted, held_out = (part.numpy() for part in split_off_tenth(400, train.labels, seed=4))
    x, y = train.cls.numpy(), train.labels.numpy()
    ks = (1, 10, 50, 200)
    on_tenth = {k: sklearn_knn(k).fit(x[fitted], y[fitted]).score(x[held_out], y[held_out]) for k in ks}
    k = max(ks, key=on_tenth.__getitem__)
    probe = Knn(ks=ks)

    assert probe.choose_k(train, num_classes=5, seed=4) == k
    expected = 100 * sklearn_knn(k).fit(x, y).score(val.cls.numpy(), val.labels.numpy())
    assert probe.evaluate(train, val, num_classes=5, seed=4)["knn_top1"] == pytest.approx(expected, abs=1e-6)


def test_evaluate_chooses_k_without_the_labels_of_val(monkeypatch):
    train, val = clusters(300, seed=0), clusters(200, seed=1)
    chosen = []
    choose_k = Knn.choose_k

    def spy(self, part, **arguments):
        assert part is train
        chosen.append(choose_k(self, part, **arguments))
        return chosen[-1]

    monkeypatch.setattr(Knn, "choose_k", spy)
    scores = [
        Knn().evaluate(train, make_split(val.cls, labels), num_classes=5, seed=0)["knn_top1"]
        for labels in (val.labels, val.labels.flip(0))
    ]

    assert scores[0] != scores[1]
    assert chosen[0] == chosen[1]


def test_choose_k_skips_ks_above_the_number_of_images():
    # 30 images less the tenth leave 27.
    train = clusters(30, seed=0)

    assert Knn(ks=(28, 27)).choose_k(train, num_classes=5, seed=0) == 27
    assert Knn(ks=(100, 200)).choose_k(train, num_classes=5, seed=0) == 27


def test_evaluate_with_a_single_training_image_predicts_its_class():
    train = make_split([[1.0, 2.0]], [2])
    val = make_split([[1.0, 2.0], [-3.0, 1.0], [0.0, 0.0]], [2, 1, 2])

    assert Knn().evaluate(train, val, num_classes=3, seed=0)["knn_top1"] == pytest.approx(200 / 3)


def test_evaluate_with_a_class_that_train_lacks_counts_its_images_as_wrong():
    train = make_split([[1.0], [1.0], [-1.0], [-1.0]], [0, 0, 1, 1])
    val = make_split([[2.0], [-2.0], [2.0], [-2.0]], [0, 1, 2, 2])

    assert Knn(ks=(1,)).evaluate(train, val, num_classes=3, seed=0)["knn_top1"] == 50.0


@pytest.mark.parametrize("value", [0.0, 1e30, 1e-30])
def test_evaluate_with_constant_features_scores_a_class_for_everything(value):
    train = make_split(np.full((40, 3), value), np.arange(40) % 2)
    val = make_split(np.full((10, 3), value), np.arange(10) % 2)

    assert Knn(ks=(36,)).evaluate(train, val, num_classes=2, seed=0)["knn_top1"] == 50.0


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_evaluate_does_not_depend_on_the_length_of_features(value):
    train, val = clusters(100, seed=0), clusters(100, seed=1)
    scaled = [make_split(part.cls * value, part.labels) for part in (train, val)]

    assert Knn().evaluate(*scaled, num_classes=5, seed=0) == Knn().evaluate(train, val, num_classes=5, seed=0)


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_nan_features_is_a_divergence(bad):
    splits = {"train": clusters(20, seed=0), "val": clusters(20, seed=1)}
    splits[bad].cls[3, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'knn'.*1 of 20 {bad} images"):
        Knn().evaluate(**splits, num_classes=5, seed=0)


def test_evaluate_without_labels_is_an_error():
    train = clusters(20, seed=0)
    unlabelled = ProbeSplit(cls=train.cls, patches=train.patches, grid=(1, 1), labels=None, masks=None)

    with pytest.raises(DataError, match="the train split has no labels"):
        Knn().evaluate(unlabelled, train, num_classes=5, seed=0)


@pytest.mark.parametrize("arguments", [{"ks": ()}, {"ks": (0,)}, {"temperature": 0.0}, {"k": 3}])
def test_knn_with_a_bad_setting_is_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Knn(**arguments)


def test_knn_is_found_by_name():
    assert PROBES["knn"] is Knn
