import copy

import pytest
import torch

from graphseq.nn import LinkDecoder


def merge(decoder, left, right):
    """The two-layer perceptron on both embeddings, as it is usually written."""
    weight = torch.cat([decoder.source.weight, decoder.destination.weight], dim=1)
    hidden = torch.relu(torch.cat([left, right]) @ weight.t() + decoder.source.bias)
    return decoder.out.weight[0] @ hidden + decoder.out.bias[0]


@pytest.mark.parametrize(
    ("source", "destination"),
    [((4,), (4,)), ((30,), (30,)), ((5, 1), (5, 3)), ((5, 3), (5, 3)), ((20, 1), (20, 7)), ((0,), (0,))],
)
def test_equals_a_perceptron_on_each_pair(source, destination):
    """With fewer pairs than rows, with more, and one source for several destinations."""
    decoder = LinkDecoder(6, 4).double()
    h = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    source, destination = torch.randint(0, 9, source), torch.randint(0, 9, destination)
    pairs = zip(*(rows.flatten().tolist() for rows in torch.broadcast_tensors(source, destination)), strict=True)
    scores = decoder(h, source, destination)
    assert scores.shape == destination.shape
    expected = [merge(decoder, h[one], h[other]) for one, other in pairs]
    if not expected:
        return
    torch.testing.assert_close(scores.flatten(), torch.stack(expected), atol=1e-12, rtol=0)
    weight = torch.randn(len(expected), dtype=torch.float64)
    given = [h, *decoder.parameters()]
    ours = torch.autograd.grad((scores.flatten() * weight).sum(), given)
    plain = torch.autograd.grad((torch.stack(expected) * weight).sum(), given)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_rows_side_by_side_equal_rows_apart():
    """Rows below the lowest and above the highest are not multiplied, so nothing of them, here NaN, gets in."""
    decoder = LinkDecoder(6, 4).double()
    h = torch.randn(9, 6, dtype=torch.float64)
    h[[0, 1, 4, 5, 8]] = torch.nan
    h.requires_grad_()
    source, destination = torch.randint(2, 4, (20, 1)), torch.randint(6, 8, (20, 2))
    scores = decoder(h, source, destination)
    apart = torch.stack(
        [
            decoder(h[[one, two]], torch.tensor([0]), torch.tensor([1]))[0]
            for one, pair in zip(source.flatten().tolist(), destination.tolist(), strict=True)
            for two in pair
        ]
    )
    torch.testing.assert_close(scores.flatten(), apart, atol=1e-12, rtol=0)
    ours, theirs = (torch.autograd.grad(part.square().sum(), h)[0] for part in (scores, apart))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    assert not ours[[0, 1, 4, 5, 8]].any()


def test_source_and_destination_are_told_apart():
    decoder, h = LinkDecoder(5), torch.randn(2, 5)
    one, other = torch.tensor([0]), torch.tensor([1])
    assert not torch.allclose(decoder(h, one, other), decoder(h, other, one))


def test_parameters_and_their_first_values():
    decoder = LinkDecoder(300, 200)
    scale = (2 / 500) ** 0.5  # of Xavier, for each half
    assert decoder.source.weight.std().item() == pytest.approx(scale, rel=0.05)
    assert decoder.destination.weight.std().item() == pytest.approx(scale, rel=0.05)
    assert decoder.destination.bias is None
    before = copy.deepcopy(decoder)
    decoder.reset_parameters()
    assert all(
        not torch.equal(one, other) for one, other in zip(decoder.parameters(), before.parameters(), strict=True)
    )
    decoder.load_state_dict(before.state_dict())
    assert torch.equal(decoder.out.weight, before.out.weight)


def test_sizes_are_checked():
    for sizes in ((0,), (3, 0)):
        with pytest.raises(ValueError, match="in_channels is .*hidden_channels"):
            LinkDecoder(*sizes)


def test_rows_that_do_not_exist_or_would_be_broadcast_the_wrong_way():
    decoder, h = LinkDecoder(4), torch.randn(3, 4)
    for rows in (torch.tensor([-1]), torch.tensor([3])):
        with pytest.raises(IndexError, match="3 embeddings"):
            decoder(h, rows, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"source is \(2,\), destination \(2, 2\)"):
        decoder(h, torch.tensor([0, 1]), torch.tensor([[1, 2], [2, 0]]))
