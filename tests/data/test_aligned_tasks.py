"""Tasks whose inputs and targets have the alignment that was asked for, exactly."""

import pytest
import torch
from torch import nn

from graphseq.core import DataError
from graphseq.data import AlignedTaskDataModule, aligned_conditions, simplex_alignment
from graphseq.metrics import parallelism_score, participation_ratio
from tests.reference import geometry as reference


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("conditions", "targets"), [(4, 1), (8, 2), (32, 3)])
@pytest.mark.parametrize("alignment", [0.0, 0.2, None, 0.8, 1.0])
def test_alignment_is_exact(conditions, targets, alignment):
    x, y = aligned_conditions(conditions, targets, alignment, dim=40, generator=seeded())
    signs = (2 * y - 1).numpy()
    expected = simplex_alignment(conditions, targets) if alignment is None else alignment
    assert reference.alignment((x @ x.T).numpy(), signs @ signs.T) == pytest.approx(expected, abs=1e-8)
    assert (signs.T @ signs).tolist() == (conditions * torch.eye(targets)).tolist()  # balanced, uncorrelated
    assert not signs.sum(0).any()
    assert float(x.square().mean()) == pytest.approx(1)
    assert x.mean(0).abs().max() < 1e-12


def test_known_geometries():
    xor, y = aligned_conditions(alignment=0.0, generator=seeded())
    lengths = torch.pdist(xor).sort().values
    torch.testing.assert_close(lengths[:4], lengths[:1].expand(4))
    torch.testing.assert_close(lengths[4:], 2**0.5 * lengths[:2])  # a square, with its diagonals
    assert float(parallelism_score(xor, y[:, 0])) == pytest.approx(-1)
    nudged, y = aligned_conditions(alignment=0.05, generator=seeded())
    assert 2 < participation_ratio(nudged) < 2.2
    square, y = aligned_conditions(alignment=0.5**0.5, rank=2, generator=seeded())
    assert float(parallelism_score(square, y[:, 0])) == pytest.approx(1)
    assert float(participation_ratio(square)) == pytest.approx(2)
    simplex, _ = aligned_conditions(8, 2, generator=seeded())
    assert float(participation_ratio(simplex)) == pytest.approx(7)
    torch.testing.assert_close(torch.pdist(simplex), torch.pdist(simplex)[:1].expand(28))
    few, _ = aligned_conditions(8, 2, 0.4, rank=3, generator=seeded())
    assert torch.linalg.matrix_rank(few) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_conditions": 6}, "num_conditions is 6"),
        ({"num_targets": 4}, r"num_targets is 4; .* 1\.\.3"),
        ({"alignment": 1.2}, "alignment is 1.2"),
        ({"alignment": float("nan")}, "alignment is nan"),
        ({"num_targets": 3, "alignment": 0.5}, "alignment is 0.5; 3 targets"),
        ({"num_targets": 2, "alignment": 0.5, "rank": 2}, "rank is 2; .* 0.5 .* 3"),
        ({"num_targets": 2, "alignment": 1.0, "rank": 1}, "rank is 1; .* 2"),
        ({"rank": 4}, "rank is 4; .* 3"),
        ({"dim": 2}, "dim is 2; .* rank 3"),
    ],
)
def test_what_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        aligned_conditions(**arguments)
    with pytest.raises(ValueError, match=words):
        AlignedTaskDataModule(**arguments)


def test_samples():
    data = AlignedTaskDataModule(8, 2, 0.3, dim=20, noise=0.5, num_train=801, num_val=40, num_test=16, seed=3)
    clean, train = (data.store.take(data.splits[name]) for name in ("conditions", "train"))
    assert clean["condition"].tolist() == list(range(8))
    assert sorted(torch.bincount(train["condition"]).tolist()) == [100] * 7 + [101]
    assert torch.equal(train["y"], clean["y"][train["condition"]])
    noise = train["x"] - clean["x"][train["condition"]]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float(noise.mean())) < 0.02
    again = AlignedTaskDataModule(8, 2, 0.3, dim=20, noise=0.5, num_train=801, num_val=40, num_test=16, seed=3)
    assert torch.equal(again.store.take(again.splits["test"])["x"], data.store.take(data.splits["test"])["x"])
    assert (data.num_features, data.input_size, data.num_outputs) == (20, 20, 2)
    with pytest.raises(ValueError, match="noise is -1"):
        AlignedTaskDataModule(noise=-1)
    with pytest.raises(ValueError, match="num_train is 3"):
        AlignedTaskDataModule(num_train=3)
    with pytest.raises(DataError, match="'condition'"):
        data.split_positions("condition")


def test_gradient_of_a_unit_that_is_active_for_one_cluster():
    """A rectified unit learns from that cluster alone, a tanh unit from all four: the mechanism that is claimed."""
    x, y = aligned_conditions(dim=10, generator=seeded())
    sides = 2 * y[:, 0] - 1
    samples = x.repeat_interleave(50, 0) + 0.1 * torch.randn(200, 10, dtype=torch.float64, generator=seeded(1))
    cluster = torch.arange(4).repeat_interleave(50)
    towards = x[2] / x[2].square().sum()  # 1 at the cluster's mean, -1 / 3 at the others of a simplex

    def gradient(activation, kept):
        weight = towards.clone().requires_grad_()
        loss = nn.functional.softplus(-sides[cluster] * activation(samples @ weight))
        return torch.autograd.grad(torch.where(kept, loss, 0.0).mean(), weight)[0]

    everything = torch.ones(200, dtype=torch.bool)
    assert torch.equal(gradient(torch.relu, everything), gradient(torch.relu, cluster == 2))
    whole = gradient(torch.tanh, everything)
    parts = [gradient(torch.tanh, cluster == number) for number in range(4)]
    torch.testing.assert_close(sum(parts), whole)
    assert all(torch.linalg.vector_norm(part) > 0.1 * torch.linalg.vector_norm(whole) for part in parts)
