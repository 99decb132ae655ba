import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specvit.errors import DataError, DivergenceError
from specvit.probes.selection import best, require_finite, split_off_tenth


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=120), seed=st.integers(0, 2**32))
def test_split_off_tenth_partitions_the_images_and_takes_a_tenth_of_every_class(labels, seed):
    fitted, held_out = split_off_tenth(len(labels), torch.tensor(labels), seed=seed)

    assert sorted([*fitted.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert len(held_out) in {max(1, len(labels) // 10), max(1, -(-len(labels) // 10))}
    for label in set(labels):
        share = sum(labels[i] == label for i in held_out.tolist())
        assert abs(share - labels.count(label) / 10) <= 1


@pytest.mark.parametrize("num_images", [2, 5, 9, 10, 11])
def test_split_off_tenth_of_a_tiny_set_leaves_images_in_both_parts(num_images):
    fitted, held_out = split_off_tenth(num_images, None, seed=3)

    assert len(fitted) > 0
    assert len(held_out) > 0
    assert len(fitted) + len(held_out) == num_images


def test_split_off_tenth_of_a_single_image_puts_it_in_both_parts():
    fitted, held_out = split_off_tenth(1, torch.tensor([7]), seed=0)

    assert fitted.tolist() == held_out.tolist() == [0]


def test_split_off_tenth_of_no_image_is_an_error():
    with pytest.raises(DataError, match="at least 1 image"):
        split_off_tenth(0, None, seed=0)


def test_split_off_tenth_depends_on_the_seed_and_not_on_the_global_generator():
    labels = torch.arange(200) % 4
    torch.manual_seed(1)
    first = split_off_tenth(200, labels, seed=5)[1]
    state = torch.get_rng_state()
    second = split_off_tenth(200, labels, seed=5)[1]

    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, split_off_tenth(200, labels, seed=6)[1])


def test_split_off_tenth_holds_every_image_out_about_equally_often():
    counts = torch.zeros(30)
    for seed in range(600):
        counts[split_off_tenth(30, torch.arange(30) % 3, seed=seed)[1]] += 1

    # 600 draws of one in ten: 60 expected, with a standard deviation of sqrt(600 * 0.1 * 0.9) = 7.3.
    assert counts.sum() == 1800
    assert counts.sub(60).abs().max() < 4.5 * 7.3


def test_best_takes_the_highest_score_and_of_equals_the_first():
    assert best({10: 50.0, 20: 60.0, 100: 60.0}) == 20
    assert best({1.0: 0.0, 0.1: 0.0}) == 1.0


def test_require_finite_names_probe_split_and_number_of_images():
    features = torch.zeros(5, 2, 3)
    features[1, 0, 2] = torch.nan
    features[4] = torch.inf

    with pytest.raises(DivergenceError, match=r"probe 'knn'.*2 of 5 val images"):
        require_finite(features, probe="knn", split="val")


def test_require_finite_accepts_finite_features_whose_sum_overflows():
    require_finite(torch.full((4, 2), 3e38), probe="knn", split="val")
