import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specvit.probes.minibatches import minibatches, num_steps


@settings(deadline=None, max_examples=30)
@given(num_images=st.integers(1, 20), batch_size=st.integers(1, 25), steps=st.integers(1, 30), seed=st.integers(0, 99))
def test_minibatches_take_every_image_once_an_epoch(num_images, batch_size, steps, seed):
    batches = [b.tolist() for b in minibatches(num_images, steps=steps, batch_size=batch_size, seed=seed)]

    assert [len(batch) for batch in batches] == [min(batch_size, num_images)] * steps
    drawn = [image for batch in batches for image in batch]
    epochs = [drawn[i : i + num_images] for i in range(0, len(drawn), num_images)]
    assert all(sorted(epoch) == list(range(num_images)) for epoch in epochs if len(epoch) == num_images)
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


def test_minibatches_depend_on_seed_and_epoch_alone():
    def order(seed):
        return torch.stack(list(minibatches(50, steps=2, batch_size=50, seed=seed)))

    state = torch.get_rng_state()
    first = order(0)
    assert torch.equal(first, order(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, order(1))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "epochs", "expected"),
    [(70, 16, 3, 13), (64, 16, 3, 12), (190, 128, 100, 148), (3, 16, 5, 5)],
)
def test_num_steps_counts_full_batches(num_images, batch_size, epochs, expected):
    assert num_steps(num_images, batch_size=batch_size, epochs=epochs) == expected
