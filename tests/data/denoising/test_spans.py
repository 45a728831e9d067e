"""Spans: exact counts, uniform lengths, inputs and targets of the loop, the way back."""

import collections

import pytest
import torch

from graphseq.data import corrupt_spans, plan_length, restore_spans, span_counts, span_mask
from tests.reference import denoising as reference

LENGTHS = [2, 3, 7, 64, 512]
KINDS = [(0.15, 3), (0.15, 8), (0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64)]


def drawn(lengths, rate, mean_span, seed=0):
    """Masks of sequences of some lengths."""
    lengths = torch.as_tensor(lengths)
    tables = [torch.full(lengths.shape, value, dtype=torch.float64) for value in (rate, mean_span)]
    noise, spans = span_counts(lengths, *tables)
    generator = torch.Generator().manual_seed(seed)
    return noise, spans, span_mask(lengths, noise, spans, int(lengths.max()), generator)


@pytest.mark.parametrize(("rate", "mean_span"), KINDS)
def test_counts_are_exact_and_the_way_back_is(rate, mean_span):
    lengths = torch.tensor(LENGTHS * 20)
    noise, spans, mask = drawn(lengths, rate, mean_span)
    ids = torch.randint(1, 50, (len(lengths), 512))
    ids = ids.masked_fill(torch.arange(512) >= lengths[:, None], 7)  # padding may hold anything
    inputs, input_lengths, targets, target_lengths = corrupt_spans(ids, lengths, mask, 50)
    for row, length in enumerate(lengths.tolist()):
        m, n = reference.counts(length, rate, mean_span)
        found = reference.runs(mask[row].tolist())
        assert (sum(found), len(found)) == (m, n) == (int(noise[row]), int(spans[row]))
        assert not mask[row, 0]
        assert mask[row, length - 1]
        assert not mask[row, length:].any()
        tokens = ids[row, :length].tolist()
        expected = reference.corrupt(tokens, mask[row].tolist(), 50)
        got = inputs[row, : input_lengths[row]].tolist(), targets[row, : target_lengths[row]].tolist()
        assert got == expected
        assert not inputs[row, input_lengths[row] :].any()
        assert not targets[row, target_lengths[row] :].any()
        assert restore_spans(*got, 50, 300) == tokens


def test_every_split_is_as_likely():
    """6 tokens out of 12 in 3 spans: 10 splits of what is taken, times 10 of what is kept."""
    _, _, mask = drawn([12] * 20_000, 0.5, 2)
    counted = collections.Counter(map(tuple, mask.tolist()))
    assert len(counted) == reference.compositions(6, 3) ** 2
    share = torch.tensor([count / 20_000 for count in counted.values()])
    assert (share - 0.01).abs().max() < 5 * (0.01 * 0.99 / 20_000) ** 0.5


def test_each_place_is_as_likely_away_from_the_ends():
    _, _, mask = drawn([512] * 1000, 0.15, 3)
    assert float(mask[:, 0].float().mean()) == 0
    assert mask[:, -1].all()
    inner = mask[:, 128:384].float()
    assert float(inner.mean()) == pytest.approx(0.15, abs=0.01)
    assert (inner.view(1000, 16, 16).mean((0, 2)) - 0.15).abs().max() < 0.025


def test_rows_do_not_depend_on_their_neighbours_lengths():
    _, _, alone = drawn([9, 9], 0.4, 2)
    assert not torch.equal(alone[0], alone[1]) or int(alone.sum()) == 8  # rows have random numbers of their own


@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 3), (0.5, 3), (0.5, 64)])
@pytest.mark.parametrize("most", [2, 10, 512])
def test_planned_lengths_fill_the_inputs(most, rate, mean_span):
    length = plan_length(most, rate, mean_span)

    def size(length):
        noise, spans = reference.counts(length, rate, mean_span)
        return length - noise + spans

    assert size(length) == most < size(length + 1)


def test_refused():
    for arguments, message in [((1, 0.15, 3), "max_inputs is 1"), ((9, 1.0, 3), "rate is 1"), ((9, 0.5, 0), "span 0")]:
        with pytest.raises(ValueError, match=message):
            plan_length(*arguments)
    with pytest.raises(ValueError, match="sentinel 10"):
        restore_spans([1, 9, 10], [9, 2], 9, 4)
    with pytest.raises(ValueError, match="targets begin with 2"):
        restore_spans([1, 9], [2, 9, 3], 9, 4)
    with pytest.raises(ValueError, match="row 0 has length 8 of 8 steps, 8 tokens to take out and 9 spans"):
        span_mask(torch.tensor([8]), torch.tensor([8]), torch.tensor([9]), 8)
    with pytest.raises(ValueError, match=r"mask torch.bool \(1, 4\)"):
        corrupt_spans(torch.zeros(1, 5, dtype=torch.int64), torch.tensor([5]), torch.zeros(1, 4, dtype=torch.bool), 9)
