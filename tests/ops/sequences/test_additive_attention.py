import pytest
import torch

from graphseq.ops import additive_scores
from tests.reference import pointing as reference


def test_equals_the_loop():
    query, keys, v = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 5), (2, 4, 5), (5,)))
    found = additive_scores(query, keys, v)
    one = torch.eye(5, dtype=torch.float64)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                wanted = reference.score(one, one, v, keys[b, j], query[b, i])
                assert abs(float(found[b, i, j] - wanted)) < 1e-12


@pytest.mark.parametrize("largest", [1, 2 * 4 * 5 * 2, 10**6])
def test_pieces_give_the_whole_and_its_gradients(monkeypatch, largest):
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 5), (2, 4, 5), (5,))]
    loss = torch.randn(2, 5, 4, dtype=torch.float64)
    whole = additive_scores(*tensors)
    wanted = torch.autograd.grad((whole * loss).sum(), tensors)
    monkeypatch.setattr("graphseq.ops.sequences.additive_attention.LARGEST", largest)
    pieces = additive_scores(*tensors)
    assert torch.equal(pieces, whole)
    found = torch.autograd.grad((pieces * loss).sum(), tensors)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(found, wanted, strict=True))
    assert torch.autograd.gradcheck(additive_scores, tensors)


@pytest.mark.parametrize("shapes", [((2, 3, 5), (1, 4, 5), (5,)), ((2, 3, 5), (2, 4, 5), (4,)), ((3, 5), (4, 5), (5,))])
def test_refused(shapes):
    with pytest.raises(ValueError, match="query is"):
        additive_scores(*(torch.zeros(*shape) for shape in shapes))
