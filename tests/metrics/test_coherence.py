import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphseq.metrics import PendingStatistics, memory_coherence, num_pending_events, pending_statistics
from tests.metrics.replicas import gathered
from tests.reference import pres as reference

EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=30)


def stream(count, nodes, times, seed):
    """Events with self-loops, repeated pairs in both directions, and ties in time."""
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(0, nodes, (2, count), generator=generator)
    t = torch.randint(0, times, (count,), generator=generator).sort().values
    return src, dst, t


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nodes", [2, 7, 40, 10**6])
@pytest.mark.parametrize("kind", [torch.int64, torch.float64, None])
def test_pending_equals_loops_over_pairs(seed, nodes, kind):
    src, dst, t = stream(90, nodes, 25, seed)
    times = None if kind is None else t.to(kind)
    expected = reference.pending(src.tolist(), dst.tolist(), None if kind is None else t.tolist())
    assert num_pending_events(src, dst, times).tolist() == expected
    share, mean = pending_statistics(src, dst, times)
    assert float(share) == pytest.approx(sum(size > 0 for size in expected) / 90)
    assert float(mean) == pytest.approx(sum(expected) / 90)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.randoms())
def test_pending_of_any_stream(events, random):
    src, dst, t = (list(column) for column in zip(*events, strict=True))
    tensors = [torch.tensor(column) for column in (src, dst, t)]
    sizes = num_pending_events(*tensors)
    assert sizes.tolist() == reference.pending(src, dst, t)
    assert num_pending_events(*tensors[:2]).tolist() == reference.pending(src, dst)
    # direction and names of the nodes are of no account, nor where in the batch an event stands
    assert torch.equal(num_pending_events(tensors[1], tensors[0], tensors[2]), sizes)
    names = torch.tensor(random.sample(range(10**12, 10**12 + 50), 7))
    assert torch.equal(num_pending_events(names[tensors[0]], names[tensors[1]], tensors[2]), sizes)
    order = random.sample(range(len(events)), len(events))
    assert torch.equal(num_pending_events(*(column[order] for column in tensors)), sizes[order])
    # a longer batch in order hides more
    ordered = [column[torch.argsort(tensors[2], stable=True)] for column in tensors]
    half = num_pending_events(*(column[: len(events) // 2] for column in ordered))
    assert torch.equal(num_pending_events(*ordered)[: len(half)], half)


def test_mean_size_and_share_grow_with_the_batch():
    src, dst, t = stream(512, 30, 10**6, 0)

    def over_batches(size):
        metric = PendingStatistics()
        for part in zip(src.split(size), dst.split(size), t.split(size), strict=True):
            metric.update(*part)
        return metric.compute()

    values = [over_batches(2**k) for k in range(10)]
    for key in ("pending_share", "mean_pending"):
        rising = [float(value[key]) for value in values]
        assert rising[0] == 0
        assert rising == sorted(rising)
        assert rising[-1] > 0.9


def test_events_without_pending_sets():
    one = torch.tensor([3])
    assert pending_statistics(one, one) == (0, 0)
    assert not num_pending_events(torch.arange(5), torch.arange(5, 10)).any()
    assert not num_pending_events(torch.zeros(5), torch.zeros(5), torch.zeros(5)).any()  # all at once
    assert num_pending_events(torch.zeros(4), torch.zeros(4)).tolist() == [0, 1, 2, 3]  # self-loops count once
    assert num_pending_events(torch.tensor([]), torch.tensor([])).shape == (0,)


def test_metric_equals_the_functional_twin_over_processes():
    src, dst, t = stream(200, 20, 60, 1)
    whole = PendingStatistics()
    whole.update(src, dst, t)
    share, mean = pending_statistics(src, dst, t)
    assert whole.compute() == {"pending_share": share, "mean_pending": mean}
    mine, other = PendingStatistics(), PendingStatistics()
    sizes = []
    for k, part in enumerate(zip(src.split(30), dst.split(30), t.split(30), strict=True)):
        (mine if k % 3 else other).update(*part)
        sizes += reference.pending(*(column.tolist() for column in part))
    expected = {"pending_share": sum(size > 0 for size in sizes) / 200, "mean_pending": sum(sizes) / 200}
    assert {key: float(value) for key, value in gathered(copy.deepcopy(mine), other).items()} == pytest.approx(expected)
    mine.reset()
    mine.update(src, dst, t)
    assert mine.compute() == whole.compute()


def test_no_value_is_read_by_the_host():
    """Fake tensors have no values: whatever would wait for a device raises."""
    with FakeTensorMode():
        pending_statistics(torch.arange(5), torch.arange(5), torch.arange(5))
        pending_statistics(torch.arange(5), torch.arange(5))
        memory_coherence(torch.randn(3, 4), torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool))


def test_wrong_streams():
    with pytest.raises(ValueError, match=r"src is \(3,\), dst \(2,\), t None"):
        num_pending_events(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"t \(1,\)"):
        num_pending_events(torch.zeros(3), torch.zeros(3), torch.zeros(1))
    with pytest.raises(ValueError, match="pending_statistics .*event"):
        pending_statistics(torch.tensor([]), torch.tensor([]))


@pytest.mark.parametrize("flat", [True, False])
def test_coherence_equals_loops(flat):
    torch.manual_seed(3)
    fresh, stale = torch.randn(6, 2, 4, dtype=torch.float64), torch.randn(6, 5, 2, 4, dtype=torch.float64)
    mask = torch.rand(6, 5) < 0.5
    mask[0], mask[1] = False, True
    expected = [
        reference.memory_coherence(row.flatten().tolist(), olds[there].flatten(1).tolist())
        for row, olds, there in zip(fresh, stale, mask, strict=True)
    ]
    assert expected[0] == 1
    stale[0] = float("nan")  # what the mask leaves out may be anything
    given = (fresh.flatten(1), stale.flatten(2)) if flat else (fresh, stale)
    assert memory_coherence(*given, mask).tolist() == pytest.approx(expected)
    full = [reference.memory_coherence(fresh[1].flatten().tolist(), stale[1].flatten(1).tolist())]
    assert memory_coherence(fresh[1:2], stale[1:2]).tolist() == pytest.approx(full)


def test_coherence_of_known_gradients():
    fresh = torch.tensor([[3.0, 4.0]])
    same, reversed_, across = fresh, -2 * fresh, torch.tensor([[-4.0, 3.0]])
    assert memory_coherence(fresh, same[:, None]) == 1
    assert memory_coherence(fresh, reversed_[:, None]) == -2
    assert memory_coherence(fresh, across[:, None]) == 0
    assert memory_coherence(fresh, torch.stack([same, reversed_, across], 1)) == -2
    assert memory_coherence(fresh, torch.zeros(1, 0, 2)) == 1
    assert memory_coherence(torch.zeros(1, 2), same[:, None]).isnan()


def test_coherence_of_a_decoder_falls_with_staleness():
    """The recipe of the docstring, with memories that drift away from the fresh ones."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    memory = torch.randn(2, 4, dtype=torch.float64)
    direction = torch.randn(2, 4, dtype=torch.float64)

    def gradient(distance):
        rows = (memory + distance * direction).requires_grad_()
        loss = nn.functional.softplus(-decoder(rows.flatten()))
        return torch.autograd.grad(loss.sum(), rows)[0]

    fresh, stale = gradient(0.0)[None], torch.stack([gradient(distance) for distance in (1e-6, 1.0, 4.0)])
    alone = [float(memory_coherence(fresh, old[None, None])) for old in stale]
    assert alone[0] == pytest.approx(1, abs=1e-4)
    assert all(abs(1 - value) > 0.05 for value in alone[1:])
    assert float(memory_coherence(fresh, stale[None])) == min(alone)


def test_wrong_gradients():
    with pytest.raises(ValueError, match=r"fresh .*\(3, 4\), stale .*\(3, 4\)"):
        memory_coherence(torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"stale ones \(2, 5, 4\)"):
        memory_coherence(torch.zeros(3, 4), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"mask is \(3,\); .*\(3, 5\)"):
        memory_coherence(torch.zeros(3, 4), torch.zeros(3, 5, 4), torch.ones(3, dtype=torch.bool))
