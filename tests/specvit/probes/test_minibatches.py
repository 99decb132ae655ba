import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specvit.probes.minibatches import cosine, minibatches


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 4), st.integers(0, 5))
def test_minibatches_go_through_the_images_once_an_epoch_in_full_batches(num_images, batch_size, epochs, seed):
    steps = list(minibatches(num_images, batch_size=batch_size, epochs=epochs, seed=seed))

    size = min(batch_size, num_images)
    per_epoch = num_images // size
    assert [done for done, _ in steps] == [step / (epochs * per_epoch) for step in range(epochs * per_epoch)]
    for epoch in range(epochs):
        seen = torch.cat([batch for _, batch in steps[epoch * per_epoch : (epoch + 1) * per_epoch]])
        assert len(seen.unique()) == len(seen) == per_epoch * size
        assert 0 <= seen.min() <= seen.max() < num_images


def test_minibatches_depend_on_seed_and_epoch_alone():
    def order(seed):
        return torch.stack([batch for _, batch in minibatches(50, batch_size=50, epochs=2, seed=seed)])

    state = torch.get_rng_state()
    first = order(0)
    assert torch.equal(first, order(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, order(1))


def test_cosine_is_torchs_schedule():
    parameter = torch.nn.Parameter(torch.zeros(1))
    solver = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, T_max=9)
    for step in range(9):
        assert cosine(step / 9) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        solver.step()
        schedule.step()


def test_cosine_after_a_rise_starts_from_its_peak():
    assert [cosine(done, warmup=0.2) for done in (0.0, 0.1, 0.2, 0.6)] == pytest.approx([0, 0.5, 1, 0.5])
