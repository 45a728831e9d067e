"""Rows of chosen segments, draws within segments, and the logarithm of the softmax."""

import pytest
import torch

from graphseq.ops import segment_log_softmax, segment_rows, segment_sample


def test_rows_of_chosen_segments():
    ptr = torch.tensor([0, 3, 3, 4, 9])
    chosen = torch.tensor([3, 1, 0, 3])
    expected = [row for segment in chosen.tolist() for row in range(int(ptr[segment]), int(ptr[segment + 1]))]
    for num_rows in (None, len(expected)):
        rows, bounds = segment_rows(ptr, chosen, num_rows)
        assert rows.tolist() == expected
        assert bounds.tolist() == [0, 5, 5, 8, 13]
    with pytest.raises(TypeError, match="chosen is torch.int32"):
        segment_rows(ptr, chosen.int())


def test_draws_stay_in_their_segment_and_follow_the_weights():
    ptr = torch.tensor([0, 3, 3, 4, 6])
    log_weights = torch.tensor([0.0, 2.0, -torch.inf, 5.0, 1.0, 1.0])
    many = 100_000
    count = len(log_weights)
    shifted = torch.cat(
        [ptr[:-1] + count * number for number in range(many // 4)] + [torch.tensor([count * many // 4])]
    )
    drawn = segment_sample(log_weights.repeat(many // 4), shifted, torch.Generator().manual_seed(1)).view(-1, 4)
    low = shifted[:-1].view(-1, 4)
    high = shifted[1:].view(-1, 4)
    filled = high > low
    assert bool(((drawn >= low) & (drawn < high))[filled].all())
    local = drawn - low
    share = (local[:, 0] == 1).double().mean()
    expected = 2.718281828**2 / (1 + 2.718281828**2)
    assert abs(float(share) - expected) < 4 * (expected * (1 - expected) / (many / 4)) ** 0.5
    assert not bool((local[:, 0] == 2).any())
    with pytest.raises(TypeError, match="log_weights is torch.int64"):
        segment_sample(torch.arange(6), ptr)


def test_noise_that_rounds_to_zero_beats_no_weight(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, generator=None: self.zero_())
    assert segment_sample(torch.tensor([-torch.inf, 0.0, 3.0]), torch.tensor([0, 3])).tolist() == [2]


def test_same_generator_same_draws():
    weights, ptr = torch.randn(50), torch.tensor([0, 20, 50])
    first = [segment_sample(weights, ptr, torch.Generator().manual_seed(3)).tolist() for _ in range(2)]
    assert first[0] == first[1]


@pytest.mark.parametrize("layout", ["ptr", "index"])
def test_log_softmax_equals_torch_padded_with_gradients(layout):
    """Padded with -inf, as masks do it."""
    ptr = torch.tensor([0, 4, 5, 9])
    index = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    values = torch.randn(9, dtype=torch.float64, requires_grad=True)
    given = {"ptr": ptr} if layout == "ptr" else {"index": index}
    found = segment_log_softmax(values, **given)
    padded = torch.full((3, 4), -torch.inf, dtype=torch.float64)
    place = torch.arange(9) - ptr[index]
    padded = padded.index_put((index, place), values)
    expected = padded.log_softmax(1)[index, place]
    torch.testing.assert_close(found, expected)
    weights = torch.randn(9, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((weights * each).sum(), values)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_log_softmax_keeps_small_probabilities_and_half_precision():
    values = torch.tensor([0.0, -200.0])
    assert segment_log_softmax(values, ptr=torch.tensor([0, 2])).tolist() == [0.0, -200.0]
    assert segment_log_softmax(values.half(), ptr=torch.tensor([0, 2])).dtype == torch.float16
    assert segment_log_softmax(torch.zeros(0), ptr=torch.tensor([0, 0])).shape == (0,)
