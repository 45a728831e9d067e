"""Memory and mail by themselves; whole streams are in tests/models/test_memory_network.py."""

import copy
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphseq.core import EventBatch, make
from graphseq.nn import NodeMemory, TimeEncoder
from graphseq.nn.temporal.plan import Distinct, plan_batch
from tests.reference import tgn_memory as reference

NODES, DIM, MSG, TIME = 7, 5, 2, 3

pytestmark = pytest.mark.usefixtures("way")


def memory(**options):
    built = NodeMemory(NODES, DIM, MSG, TimeEncoder(TIME, init="uniform"), **options).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4)
    return built


def batch_of(src, dst, t=None, kinds=None, seed=0):
    events = len(src)
    generator = torch.Generator().manual_seed(seed)
    return EventBatch(
        torch.tensor(src),
        torch.tensor(dst),
        torch.zeros(events, dtype=torch.int64) if t is None else torch.tensor(t),
        torch.randn(events, MSG, generator=generator),
        torch.arange(events),
        start=0,
        neg_dst=torch.full((events, 1), NODES - 1),
        event_type=None if kinds is None else torch.tensor(kinds),
    )


def take(built, batch, partner=None):
    """Read what a batch touches and commit it."""
    plan = plan_batch(batch, Distinct(NODES))
    read = built.read(plan.nodes)
    built.commit(plan, read, read.measured, partner)
    return plan, read


def every(built):
    return built.read(torch.arange(NODES))


def assert_same(read, other):
    for name, value in vars(other).items():
        assert torch.equal(getattr(read, name), value), name


def message_module(width=4):
    return make(nn.Sequential, make(nn.Linear, 2 * DIM + MSG + TIME, 6), make(nn.ReLU), make(nn.Linear, 6, width))


def oracle(built, mean=False):
    """Weights by the names of a network's, and a memory of lists."""
    w = {f"memory.{name}": value for name, value in built.named_parameters()}
    w |= {name.removeprefix("memory."): value for name, value in w.items() if "time_encoder" in name}
    return w, reference.Memory(NODES, DIM, mean)


events_of = st.lists(st.tuples(st.integers(0, NODES - 2), st.integers(0, NODES - 2), st.integers(0, 3)), max_size=8)


@pytest.mark.parametrize("updater", ["gru", "rnn"])
@pytest.mark.parametrize("aggregation", ["last", "mean"])
@given(batches=st.lists(events_of.filter(bool), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_equals_lists_of_messages(updater, aggregation, batches):
    """Equal times, repeated events, self-loops and both roles, as they come."""
    torch.manual_seed(0)
    built = memory(updater=updater, aggregation=aggregation)
    w, plain = oracle(built, aggregation == "mean")
    now = 0
    for number, events in enumerate(batches):
        times = [now := now + gap for _, _, gap in events]
        batch = batch_of(*zip(*((u, v) for u, v, _ in events), strict=True), times, seed=number)
        take(built, batch)
        rows = list(zip(batch.src.tolist(), batch.dst.tolist(), times, batch.msg.double(), strict=True))
        plain.write(w, rows, {node: plain.read(w, node) for u, v, _ in events for node in (u, v)})
        read = every(built)
        for node in range(NODES):
            value, last = plain.read(w, node)
            torch.testing.assert_close(read.measured[node], value, atol=1e-11, rtol=0)
            torch.testing.assert_close(read.previous[node], plain.memory[node], atol=1e-11, rtol=0)
            assert float(read.last_update[node]) == last
            assert float(read.elapsed[node]) == last - plain.last_update[node]
            assert bool(read.pending[node]) == bool(plain.mail[node])
            assert int(read.num_events[node]) == len(plain.mail[node])


def test_the_last_event_counts_in_whichever_role():
    """At equal times too: the position decides, not the role, which is where the lists of the paper's code differ."""
    built = memory()
    batch = batch_of([0, 1, 0], [1, 0, 2], [4, 4, 4])
    plan, _ = take(built, batch)
    assert torch.equal(built.mail[0, DIM:].float(), batch.msg[2])  # a source last, after it was a destination
    assert torch.equal(built.mail[1, DIM:].float(), batch.msg[1])  # a source last, of an earlier event
    assert torch.equal(built.mail[2, DIM:].float(), batch.msg[2])
    assert built.pending.tolist() == [True] * 3 + [False] * 4
    assert len(plan.nodes) == 4  # the negative was read, and nothing of it written


@pytest.mark.parametrize("aggregation", ["last", "mean"])
def test_mail_holds_the_partner_as_it_was(aggregation):
    built = memory(aggregation=aggregation)
    take(built, batch_of([0], [1], [1]))
    take(built, batch_of([0], [1], [2]))
    before = every(built).measured[0]
    for t in range(3, 6):
        take(built, batch_of([1], [2], [t]))  # the partner goes on, and its memory with it
    assert torch.equal(every(built).measured[0], before)


def test_partners_can_send_something_else():
    built = memory()
    sent = torch.arange(6 * DIM, dtype=torch.float64).view(6, DIM)
    take(built, batch_of([0, 1, 3], [1, 2, 0], [1, 2, 3]), sent)
    # last of 0: event 2 as destination, whose source is endpoint 2; of 1: event 1, destination 4; of 2: source 1
    assert torch.equal(built.mail[:4, :DIM], sent[[2, 4, 1, 5]])
    built = memory(aggregation="mean")
    take(built, batch_of([0, 1, 3], [1, 2, 0], [1, 2, 3]), sent)
    means = torch.stack([sent[[3, 2]].mean(0), sent[[0, 4]].mean(0), sent[1], sent[5]])
    assert torch.equal(built.mail[:4, :DIM], means)


@given(events=events_of.filter(bool), typed=st.booleans(), types=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_events_are_counted_by_type_or_by_role(events, typed, types):
    built = memory(num_event_types=types)
    src, dst, kinds = zip(*events, strict=True)
    take(built, batch_of(src, dst, kinds=kinds if typed else None))
    wanted = Counter()
    for u, v, kind in events:
        wanted[u, min(kind if typed else 0, types - 1)] += 1
        if u != v:  # a self-loop is one event
            wanted[v, min(kind if typed else 1, types - 1)] += 1
    counts = every(built).type_counts
    assert counts.tolist() == [[wanted[node, kind] for kind in range(types)] for node in range(NODES)]
    assert torch.equal(counts.sum(1), every(built).num_events)
    take(built, batch_of([0], [1], kinds=[0]))  # of the last batch only
    assert every(built).num_events[0] == 1


@pytest.mark.parametrize("updater", ["gru", "rnn"])
def test_messages_of_a_module(updater):
    message = message_module()
    built = memory(updater=updater, message=message, message_dim=4)
    for t in (1, 5):
        take(built, batch_of([0, 3], [1, 3], [t, t]))
    read = every(built)
    raw = torch.cat([read.previous, built.mail, built.time_encoder(read.elapsed)], 1)
    cell = (nn.GRUCell if updater == "gru" else nn.RNNCell)(4, DIM).double()
    cell.load_state_dict(built.cell.state_dict())
    torch.testing.assert_close(read.measured[[0, 1, 3]], cell(message(raw), read.previous)[[0, 1, 3]])
    assert torch.equal(read.measured[[2, 4]], read.previous[[2, 4]])
    read.measured.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in message.parameters())
    assert built.time_encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("msg_channels", [0, 3])
@pytest.mark.parametrize("updater", ["gru", "rnn"])
def test_gradients_are_those_of_the_cell_of_torch(updater, msg_channels):
    built = NodeMemory(NODES, DIM, msg_channels, TimeEncoder(TIME, init="uniform"), updater=updater).double()
    generator = torch.Generator().manual_seed(1)
    for name in ("memory", "mail", "mail_t"):
        buffer = getattr(built, name)
        buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
    built.pending[:4] = True
    read = every(built)
    raw = torch.cat([built.memory, built.mail, built.time_encoder(built.mail_t)], 1)
    expected = torch.where(built.pending[:, None], built.cell(raw, built.memory), built.memory)
    torch.testing.assert_close(read.measured, expected)
    weight = torch.randn(NODES, DIM, dtype=torch.float64)
    given = list(built.parameters())
    ours, theirs = (torch.autograd.grad((value * weight).sum(), given) for value in (read.measured, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_state_is_forgotten_grown_copied_and_saved():
    built = memory(aggregation="mean", num_event_types=2)
    take(built, batch_of([0, 3], [1, 3], [1, 2]))
    take(built, batch_of([0, 2], [4, 3], [3, 4]))
    saved, before = built.state_dict(), every(built)
    other = memory(aggregation="mean", num_event_types=2)
    other.load_state_dict(saved)
    for twin in (other, copy.deepcopy(built)):
        assert_same(every(twin), before)
    built.resize(NODES + 3)
    assert all(len(buffer) == NODES + 3 for buffer in built.buffers())
    assert_same(every(built), before)
    new = built.read(torch.arange(NODES, NODES + 3))
    assert not any(value.any() for value in vars(new).values())
    with pytest.raises(ValueError, match="num_nodes is 7; .*10"):
        built.resize(NODES)
    built.reset_state()
    assert not any(buffer.any() for buffer in built.buffers())
    assert built.cell.weight_ih.any()


@pytest.mark.parametrize("aggregation", ["last", "mean"])
def test_bytes_of_a_node_are_as_documented(aggregation):
    built = NodeMemory(100, 8, 3, TimeEncoder(4), aggregation=aggregation)
    size = sum(buffer.nbytes for buffer in built.buffers())
    assert size == 100 * (8 * 8 + 4 * 3 + 21 + (4 * 4 if aggregation == "mean" else 0))


def test_commit_is_deterministic_and_leaves_no_graph():
    built = memory(aggregation="mean")
    torch.use_deterministic_algorithms(True)
    try:
        plan, read = take(built, batch_of([0, 3], [1, 3], [1, 2]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert read.measured.requires_grad == any(parameter.requires_grad for parameter in built.parameters())
    assert not any(buffer.requires_grad for buffer in built.buffers())
    read.measured.sum().backward()  # what was committed in place does not disturb it
    assert plan.endpoint.tolist() == [0, 1, 2, 1]


def test_parameters_are_drawn_anew():
    built = memory(message=message_module(), message_dim=4)
    for parameter in built.parameters():
        nn.init.constant_(parameter, 9.0)
    built.reset_parameters()
    assert not any((parameter == 9).any() for parameter in built.parameters())


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 2, 0), {}, "num_nodes is 0"),
        ((3, 0, 0), {}, "dim 0"),
        ((3, 2, -1), {}, "msg_channels -1"),
        ((3, 2, 0), {"num_event_types": -1}, "num_event_types -1"),
        ((3, 2, 0), {"updater": "lstm"}, "updater is 'lstm'"),
        ((3, 2, 0), {"aggregation": "sum"}, "last or mean"),
        ((3, 2, 0), {"message": make(nn.Identity)}, "give both or neither"),
        ((3, 2, 0), {"message_dim": 3}, "give both or neither"),
    ],
)
def test_wrong_arguments_are_named(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        NodeMemory(*sizes, TimeEncoder(2), **options)


def test_parts_and_sizes_that_are_mistaken():
    encoder = TimeEncoder(4)
    for options, error, said in [
        ({"message": nn.Linear(12, 4), "message_dim": 0}, ValueError, "message_dim is 0"),
        ({"message": "identity", "message_dim": 4}, TypeError, "message is 'identity'"),
        ({"message": nn.Identity, "message_dim": 12}, TypeError, "message is Identity"),
        ({"time_encoder": TimeEncoder}, TypeError, "time_encoder is TimeEncoder"),
    ]:
        with pytest.raises(error, match=said):
            NodeMemory(3, 4, 0, **({"time_encoder": encoder} | options))
