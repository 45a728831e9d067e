import pytest
import torch

from graphseq.ops import linear_scan
from tests.ops.scan.draws import draw


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_first_and_second_derivatives(block, reverse):
    parts = draw(1, 4, 1 if block else 2, block)
    assert torch.autograd.gradcheck(lambda *given: linear_scan(*given, reverse=reverse), parts)
    assert torch.autograd.gradgradcheck(lambda *given: linear_scan(*given, reverse=reverse), parts)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_steps_beyond_a_length_keep_the_state(block, reverse):
    a, b, initial = draw(4, 6, 3, block)
    lengths = torch.tensor([6, 3, 0, 1])
    h = linear_scan(a, b, initial, lengths, reverse=reverse)
    last = h[:, 0] if reverse else h[:, -1]
    for row, size in enumerate(lengths.tolist()):
        own = linear_scan(a[row : row + 1, :size], b[row : row + 1, :size], initial[row : row + 1], reverse=reverse)
        assert torch.allclose(h[row, :size], own[0])
        end = initial[row] if size == 0 else own[0, 0] if reverse else own[0, -1]
        assert torch.allclose(last[row], end)
    beyond = torch.autograd.grad(last.sum(), [a, b])
    assert all((gradient[1, 3:] == 0).all() for gradient in beyond)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", [False, True])
def test_a_cut_sequence_goes_on_from_its_state(block):
    a, b, initial = draw(2, 9, 3, block)
    first = linear_scan(a[:, :4], b[:, :4], initial)
    second = linear_scan(a[:, 4:], b[:, 4:], first[:, -1])
    assert torch.allclose(torch.cat([first, second], 1), linear_scan(a, b, initial))
    zeros = torch.zeros_like(initial)
    assert torch.equal(linear_scan(a, b), linear_scan(a, b, zeros))


def test_views_are_read_and_nothing_is_written_to():
    a, b, initial = (part.detach() for part in draw(2, 5, 4))
    wide = torch.cat([a, b], 2)
    before = wide.clone()
    assert torch.equal(linear_scan(wide[..., :4], wide[..., 4:], initial), linear_scan(a, b, initial))
    assert torch.equal(wide, before)


def test_no_steps_no_rows():
    for rows, steps in ((2, 0), (0, 3), (0, 0)):
        a, b, initial = draw(rows, steps)
        assert linear_scan(a, b, initial).shape == (rows, steps, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.zeros(2, 7, 4)}, r"\(2, 7, 3\) and b \(2, 7, 4\)"),
        ({"a": torch.zeros(2, 7, 2, 3, 3)}, r"\(2, 7, 2, 3, 3\)"),
        ({"a": torch.zeros(2, 7, 3, dtype=torch.float64)}, "float64"),
        ({"a": torch.zeros(2, 7, 3, dtype=torch.int64), "b": torch.zeros(2, 7, 3, dtype=torch.int64)}, "int64"),
        ({"initial": torch.zeros(3, 3)}, r"initial is \(3, 3\).*\(2, 3\)"),
        ({"initial": torch.zeros(2, 3).double()}, "initial torch.float64"),
        ({"lengths": torch.tensor([8, 1])}, "from 1 to 8.*0..7"),
        ({"lengths": torch.tensor([-1, 1])}, "from -1"),
        ({"lengths": torch.tensor([1])}, r"lengths is torch.int64 \(1,\)"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "lengths is torch.float32"),
        ({"method": "blelloch"}, "method is 'blelloch'"),
    ],
)
def test_refused(change, message):
    given = {"a": torch.zeros(2, 7, 3), "b": torch.zeros(2, 7, 3), **change}
    with pytest.raises(ValueError, match=message):
        linear_scan(given.pop("a"), given.pop("b"), **given)
