import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import EventBatch
from graphseq.data import HistoricalNegatives, RandomNegatives
from graphseq.metrics import LinkAveragePrecision
from graphseq.models import EdgeBank
from tests.reference.edgebank import memory

MODES = [
    {"mode": "unlimited"},
    {"mode": "window"},
    {"mode": "window", "share": 0.4},
    {"mode": "window", "share": 1.0},
    {"mode": "window", "window": "recurrence"},
    {"mode": "threshold"},
]


def stream(events=300, nodes=9, seed=0, floating=False):
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(nodes, (2, events), generator=generator) * torch.randint(
        2, (2, events), generator=generator
    )
    t = torch.randint(1, 50, (events,), generator=generator).cumsum(0)  # distinct: no ties where a window begins
    return src, dst, t.double() / 7 if floating else t


def batch_of(src, dst, t, start, stop, neg_src=None, neg_dst=None):
    rows = slice(start, stop)
    msg, e_id = torch.zeros(stop - start, 0), torch.arange(start, stop)
    return EventBatch(src[rows], dst[rows], t[rows], msg, e_id, start=start, neg_src=neg_src, neg_dst=neg_dst)


def everything(nodes, t):
    """A batch that asks for all pairs, one source a row."""
    src = torch.arange(nodes)
    others = torch.arange(nodes).expand(nodes, nodes)
    return EventBatch(src, src, t[:1].expand(nodes), torch.zeros(nodes, 0), src, start=0, neg_dst=others)


def remembered(bank, nodes, t):
    scores = bank(everything(nodes, t))
    assert scores.dtype == torch.float32
    assert torch.equal(scores[:, 0], scores[:, 1:].diagonal())
    return {(int(u), int(v)) for u, v in scores[:, 1:].nonzero()}


def joining(bank):
    """Let the small table be joined at each commit that finds something in it."""
    commit = bank.commit

    def both(update):
        commit(update)
        bank.pairs.merge(bank.recent.code, bank.recent.seen())
        bank.recent.clear()

    bank.commit = both
    return bank


@pytest.mark.parametrize("arguments", MODES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 300])
@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("join", [False, True])
def test_equals_dictionaries(arguments, size, floating, join):
    src, dst, t = stream(floating=floating)
    bank = joining(EdgeBank(**arguments)) if join else EdgeBank(**arguments)
    assert remembered(bank, 9, t) == set()
    for start in range(0, 300, size):
        bank.commit(batch_of(src, dst, t, start, min(start + size, 300)))
        seen = min(start + size, 300)
        if seen % 21 == 0 or seen == 300:
            past = (src[:seen].tolist(), dst[:seen].tolist(), t[:seen].tolist())
            assert remembered(bank, 9, t) == memory(*past, **arguments)


def test_modes_differ():
    src, dst, t = stream()
    past = (src.tolist(), dst.tolist(), t.tolist())
    sets = [frozenset(memory(*past, **arguments)) for arguments in MODES]
    assert sets[0] == sets[3]  # the share of everything
    assert len(set(sets)) == len(MODES) - 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=40),
    st.sampled_from(MODES),
    st.integers(1, 12),
)
def test_any_small_stream(rows, arguments, size):
    src, dst, gaps = torch.tensor(rows).T
    t = gaps.cumsum(0) * 1009  # far from each other, so that rounding of the mean gap decides nothing
    bank = EdgeBank(**arguments)
    for start in range(0, len(rows), size):
        bank.commit(batch_of(src, dst, t, start, min(start + size, len(rows))))
    expected = memory(src.tolist(), dst.tolist(), t.tolist(), **arguments)
    if arguments.get("window") == "recurrence":
        near = memory(src.tolist(), dst.tolist(), [when * (1 + 1e-12) for when in t.tolist()], **arguments)
        if near != expected:
            return
    assert remembered(bank, 4, t) == expected


def test_large_tables_are_joined():
    src, dst = torch.arange(20_000) % 5000, torch.arange(20_000)
    t = torch.arange(20_000)
    bank = EdgeBank()
    for start in range(0, 20_000, 1000):
        bank.commit(batch_of(src, dst, t, start, start + 1000))
    assert len(bank.pairs) > 0
    assert len(bank.pairs) + len(bank.recent) == int(bank.num_pairs) == 20_000
    asked = batch_of(src, dst, t, 0, 20_000, neg_dst=dst[:, None] + 1)
    assert torch.equal(bank(asked), torch.tensor([[1.0, 0.0]]).expand(20_000, 2))


@pytest.mark.parametrize("arguments", MODES, ids=str)
def test_scores_change_no_state_and_negatives_leave_no_trace(arguments):
    src, dst, t = stream()
    with_, without = EdgeBank(**arguments), EdgeBank(**arguments)
    for start in range(0, 300, 50):
        negatives = torch.randint(9, (50, 3))
        batch = batch_of(src, dst, t, start, start + 50, neg_src=negatives.flip(0), neg_dst=negatives)
        before = with_.state_buffers()
        scores, update = with_.forward_with_update(batch)
        assert torch.equal(scores, with_(batch))
        assert all(torch.equal(value, before[name]) for name, value in with_.state_buffers().items())
        with_.commit(update)
        without.commit(batch_of(src, dst, t, start, start + 50))
    after = without.state_buffers()
    assert all(torch.equal(value, after[name]) for name, value in with_.state_buffers().items())


def test_sources_of_negatives_are_their_own():
    src, dst, t = torch.tensor([0, 1]), torch.tensor([5, 6]), torch.tensor([0, 1])
    bank = EdgeBank()
    bank.commit(batch_of(src, dst, t, 0, 2))
    asked = batch_of(src, dst, t, 0, 2, neg_dst=torch.tensor([[6], [5]]))
    assert bank(asked).tolist() == [[1, 0], [1, 0]]
    asked.neg_src = torch.tensor([[1], [0]])
    assert bank(asked).tolist() == [[1, 1], [1, 1]]
    asked = batch_of(dst, src, t, 0, 2)
    assert bank(asked).tolist() == [[0], [0]]  # pairs are directed


@pytest.mark.parametrize("arguments", MODES, ids=str)
def test_state_comes_back(arguments):
    src, dst, t = stream()
    bank = EdgeBank(**arguments)
    bank.commit(batch_of(src, dst, t, 0, 150))
    saved, first = bank.state_buffers(), remembered(bank, 9, t)
    bank.commit(batch_of(src, dst, t, 150, 300))
    last = remembered(bank, 9, t)
    for twin in (EdgeBank(**arguments), bank, copy.deepcopy(bank)):
        twin.load_state_buffers(saved)
        assert remembered(twin, 9, t) == first
        twin.commit(batch_of(src, dst, t, 150, 300))
        assert remembered(twin, 9, t) == last
    bank.reset_state()
    assert remembered(bank, 9, t) == set()
    fresh = EdgeBank(**arguments).state_buffers()
    assert all(torch.equal(value, fresh[name]) for name, value in bank.state_buffers().items())
    bank.commit(batch_of(src, dst, t, 0, 150))
    assert remembered(bank, 9, t) == first


def test_times_stay_exact_in_whatever_type_it_is():
    src, dst, t = stream()
    bank = joining(EdgeBank("window", "recurrence"))
    twin = joining(EdgeBank("window", "recurrence").half())
    for start in range(0, 300, 50):
        for one in (bank, twin.bfloat16()):
            one.commit(batch_of(src, dst, 10**6 + t, start, start + 50))
        assert remembered(twin, 9, t) == remembered(bank, 9, t)
    assert all(torch.equal(value, bank.state_buffers()[name]) for name, value in twin.state_buffers().items())


def test_checkpoints_are_plain_and_small_after_a_reset(tmp_path):
    src, dst, t = stream(20_000, nodes=3000)
    bank = EdgeBank("window")
    bank.commit(batch_of(src, dst, t, 0, 20_000))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other = EdgeBank("window")
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    assert remembered(other, 50, t) == remembered(bank, 50, t)
    large = (tmp_path / "bank.pt").stat().st_size
    bank.reset_state()
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    assert (tmp_path / "bank.pt").stat().st_size < large / 20
    assert bank._record == {"class_path": "graphseq.models.EdgeBank", "init_args": {"mode": "window"}}
    assert list(bank.parameters()) == []


def test_inference_mode_between_training_steps():
    src, dst, t = stream()
    bank, plain = EdgeBank("threshold"), EdgeBank("threshold")
    for number, start in enumerate(range(0, 300, 50)):
        with torch.inference_mode(number % 2 == 0):
            bank.commit(batch_of(src, dst, t, start, start + 50))
        bank.load_state_buffers(bank.state_buffers())  # as predictions do that follow a test
        plain.commit(batch_of(src, dst, t, start, start + 50))
        assert remembered(bank, 9, t) == remembered(plain, 9, t)


def average_precision(events, negatives, train):
    bank, metric = EdgeBank(), LinkAveragePrecision()
    total = len(events.src)
    bank.commit(batch_of(events.src, events.dst, events.t, 0, train))
    for start in range(train, total, 50):
        batch = batch_of(events.src, events.dst, events.t, start, min(start + 50, total))
        batch.neg_src, batch.neg_dst = negatives.sample(batch, 0)
        scores, update = bank.forward_with_update(batch)
        target = torch.zeros_like(scores)
        target[:, 0] = 1
        metric.update(scores, target)
        bank.commit(update)
    return float(metric.compute())


def test_floor_on_a_stream_of_repeats():
    """Each source has one destination, met again and again: pairs that never happen have another destination."""
    src = torch.arange(400).repeat(3)
    events = SimpleNamespace(src=src, dst=src + 400, t=torch.arange(1200), num_nodes=800)
    train = torch.arange(400)
    historical = HistoricalNegatives(seed=1).prepare(events, train, "test")
    assert average_precision(events, historical, 400) == pytest.approx(0.5, abs=0.02)
    # random destinations hit the true one, or a known pair, once in 400 draws
    random = RandomNegatives(seed=1).prepare(events, train, "test")
    assert average_precision(events, random, 400) > 0.99

    class Never:
        def sample(self, batch, epoch):
            return None, (batch.dst[:, None] - 400 + 1) % 400 + 400

    assert average_precision(events, Never(), 400) == 1


def test_wrong_arguments():
    for wrong, message in (
        ({"mode": "all"}, "give unlimited, window or threshold"),
        ({"window": "fixed"}, "give share or recurrence"),
        ({"share": 0.0}, r"give a share of the events in \(0, 1\]"),
        ({"share": 1.5}, r"give a share of the events in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            EdgeBank(**wrong)
    assert repr(EdgeBank("window", share=0.2)).startswith("EdgeBank(\n  window, share=0.2")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu():
    src, dst, t = stream()
    host, there = EdgeBank("window", "recurrence"), EdgeBank("window", "recurrence").cuda()
    for start in range(0, 300, 50):
        batch = batch_of(src, dst, t, start, start + 50, neg_dst=dst[start : start + 50, None].flip(0))
        assert torch.equal(host(batch), there(batch.to("cuda")).cpu())
        host.commit(batch)
        there.commit(batch.to("cuda"))
