"""Networks that remember against their twins in plain Python: values, gradients, and the order of things."""

from dataclasses import replace

import pytest
import torch

from graphseq.core import DataError
from graphseq.models import TGN
from graphseq.nn import IdentityEmbedding
from tests.models.temporal.memory_networks import (
    MSG,
    NETWORKS,
    NODES,
    WIDTH,
    WITH_MEMORY,
    build,
    roll,
    stream,
    twin,
    weights,
)
from tests.reference import tgn_memory as reference

every_network = pytest.mark.parametrize("name", NETWORKS)
every_memory = pytest.mark.parametrize("name", WITH_MEMORY)
BATCH = 10


def assert_memory(network, memory):
    """The stored state, and what is read, mail included."""
    state = torch.stack([memory.memory[node] for node in range(NODES)])
    torch.testing.assert_close(network.memory.memory, state, atol=1e-10, rtol=0)
    last = torch.tensor([memory.last_update[node] for node in range(NODES)], dtype=torch.float64)
    assert torch.equal(network.memory.last_update, last)


@pytest.mark.parametrize("own_sources", [False, True])
@every_network
def test_a_stream_equals_its_twin_in_plain_python(name, own_sources):
    network, plain, events = build(name).eval(), twin(name), stream(own_sources=own_sources)
    w, rows = weights(network), events.rows()
    negatives = events.neg_dst.tolist()
    sources = events.neg_src.tolist() if own_sources else None
    for batch in events.batches(BATCH):
        start, end = batch.start, batch.start + BATCH
        logits, update = network.forward_with_update(batch)
        network.zero_grad()
        weight = torch.arange(logits.numel(), dtype=torch.float64).view_as(logits).cos()
        (logits * weight).sum().backward()
        network.commit(update)
        looked_at = start in (0, 50, 90)  # the first has no mail, the last has been through everything
        with torch.set_grad_enabled(looked_at):
            expected = plain.step(w, rows, start, end, negatives[start:end], sources and sources[start:end])
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
        if network.memory is not None:
            assert_memory(network, plain.memory)
        if looked_at:
            for value in w.values():
                value.grad = None
            (expected * weight).sum().backward()
            for key, parameter in network.named_parameters():
                wanted = torch.zeros_like(parameter) if w[key].grad is None else w[key].grad
                got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-8, msg=lambda text, key=key: key + text)


@every_network
def test_the_way_of_accelerators_is_the_same(name, as_an_accelerator):
    """Where to know the rows with nothing to do would be a wait, they are computed too."""
    test_a_stream_equals_its_twin_in_plain_python(name, own_sources=False)


@pytest.mark.parametrize("name", ["TGN", "TGN 2 layers", "JODIE", "TGN identity", "TGAT", "DyRep"])
def test_cuts_of_single_events_equal_the_twin(name):
    network, plain, events = build(name).eval(), twin(name), stream(seed=1, float_time=True)
    w, rows, negatives = weights(network), events.rows(), events.neg_dst.tolist()
    earlier = 0
    for start in range(0, 60, 20):
        batch = events.batch(start, start + 20, cut="time")
        earlier += int((batch.cut > start).sum())
        logits, update = network.forward_with_update(batch)
        network.commit(update)
        expected = plain.step(w, rows, start, start + 20, negatives[start : start + 20], cuts=batch.cut.tolist())
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    assert earlier > 20  # events of the same batch were looked at


@every_memory
def test_training_commits_the_memory_the_loss_was_taken_of(name):
    """With a step of the optimiser after each commit: recomputing memories afterwards would show."""
    network, plain, events = build(name).eval(), twin(name), stream(seed=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    rows, negatives = events.rows(), events.neg_dst.tolist()
    for batch in events.batches(BATCH)[:6]:
        start, end = batch.start, batch.start + BATCH
        w = weights(network)
        expected = plain.step(w, rows, start, end, negatives[start:end])
        logits, update = network.forward_with_update(batch)
        torch.testing.assert_close(logits, expected, atol=1e-9, rtol=0)
        optimizer.zero_grad()
        torch.nn.functional.softplus(logits).mean().backward()
        network.commit(update)
        optimizer.step()
        assert_memory(network, plain.memory)


@pytest.mark.parametrize("name", [name for name in WITH_MEMORY if name != "DyRep"])
def test_batches_of_one_event_are_the_sequential_recursion(name):
    network, events = build(name).eval(), stream(seed=3, num_events=60)
    roll(network, events.batches(1))
    w = {key: value.detach() for key, value in weights(network).items()}
    memory, last = reference.sequential(w, NODES, WIDTH, events.rows())
    read = network.memory.read(torch.arange(NODES))
    torch.testing.assert_close(read.measured, torch.stack([memory[node] for node in range(NODES)]), atol=1e-10, rtol=0)
    assert read.last_update.tolist() == [last[node] for node in range(NODES)]


@every_network
def test_forward_changes_no_state_and_repeats(name):
    network, events = build(name).eval(), stream()
    roll(network, events.batches(BATCH)[:4])
    before, batch = network.state_buffers(), events.batch(40, 50)
    first, second = network(batch), network(batch)
    assert torch.equal(first, second)
    after = network.state_buffers()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@every_network
def test_negatives_write_nothing(name):
    network, events = build(name).eval(), stream()
    roll(network, events.batches(BATCH))
    state = network.state_buffers()

    network.reset_state()
    events.neg_dst = events.neg_dst.flip(0)
    roll(network, events.batches(BATCH))
    for key, value in network.state_buffers().items():
        # other negatives bring more rows with mail or fewer, and the last bits of a product change with its size
        torch.testing.assert_close(value, state[key], atol=1e-13, rtol=0, msg=lambda m, key=key: f"{key}: {m}")

    for other in (stream(own_sources=True), replace(events, neg_dst=None)):
        network.reset_state()
        for batch in other.batches(BATCH):
            network.commit(network.encode(batch))
        for key, value in network.state_buffers().items():
            torch.testing.assert_close(value, state[key], atol=1e-13, rtol=0)


@every_memory
def test_nodes_without_events_stay_bit_for_bit(name):
    network, events = build(name).eval(), stream()
    batches = events.batches(BATCH)
    roll(network, batches[:5])
    before = network.state_buffers()
    _, update = network.forward_with_update(batches[5])
    idle = ~update.pending
    assert idle.any()
    assert torch.equal(update.memory[idle], update.previous[idle])
    network.commit(update)
    touched = torch.zeros(NODES, dtype=torch.bool)
    touched[torch.cat([batches[5].src, batches[5].dst])] = True
    for key, value in network.state_buffers().items():
        assert torch.equal(value[~touched], before[key][~touched]), key


@pytest.mark.parametrize("name", ["TGN", "TGN mean", "TGN transformer", "TGN sum", "TGN 2 layers"])
def test_updater_and_time_encoder_learn(name):
    network, events = build(name), stream()
    roll(network, events.batches(BATCH)[:5])
    network(events.batch(50, 60)).sum().backward()
    assert network.memory.cell.weight_ih.grad.abs().sum() > 0
    assert network.memory.cell.weight_hh.grad.abs().sum() > 0
    assert network.time_encoder.weight.grad.abs().sum() > 0


def test_time_encoder_learns_from_mail_alone_with_the_last_message_only():
    for aggregation, learns in (("last", True), ("mean", False)):
        embedding = IdentityEmbedding(WIDTH)
        network = TGN(NODES, MSG, memory_dim=WIDTH, time_dim=4, embedding=embedding, aggregation=aggregation).double()
        events = stream()
        roll(network, events.batches(BATCH)[:5])
        network(events.batch(50, 60)).sum().backward()
        assert (network.time_encoder.weight.grad is not None) == learns
        assert network.memory.cell.weight_ih.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["TGN", "TGN 2 layers", "TGN transformer", "DyRep", "TGAT"])
def test_dropout_in_training_only(name):
    network, events = build(name), stream()
    roll(network.eval(), events.batches(BATCH)[:5])
    batch, still = events.batch(50, 60), network(events.batch(50, 60))
    embedding = network.encode(batch).embedding
    network.train()
    assert not torch.equal(network.encode(batch).embedding, embedding)
    network.eval()
    assert torch.equal(network(batch), still)


def test_shared_rows_without_neighbours_need_no_cut():
    """A memory as the embedding looks nobody up: cuts of single events change nothing."""
    network, events = build("TGN identity").eval(), stream()
    roll(network, events.batches(BATCH)[:5])
    assert torch.equal(network(events.batch(50, 60, cut="time")), network(events.batch(50, 60)))
    shared = build("TGN transformer").eval()
    with pytest.raises(DataError, match="relative_time='query'"):
        shared(events.batch(50, 60, cut="time"))


def test_unknown_nodes_and_missing_history_are_named():
    network, events = build("TGN"), stream()
    batch = events.batch(0, 10)
    batch.neg_dst[3, 1] = NODES
    with pytest.raises(DataError, match=f"node {NODES}; .* 0 to {NODES - 1}.*resize"):
        network(batch)
    batch.neg_dst[3, 1] = -1
    with pytest.raises(DataError, match="names node -1"):
        network(batch)
    batch.neg_dst[3, 1], batch.history = 0, None
    with pytest.raises(DataError, match="no history"):
        network(batch)
