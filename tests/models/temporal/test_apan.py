import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from graphseq.core import DataError, EventBatch
from graphseq.data import TemporalAdjacency
from graphseq.models import APAN, MemoryNetwork
from graphseq.nn import PRESCorrector, RecentNeighborBuffer
from graphseq.tasks import TemporalLinkPrediction
from tests.reference import apan as reference
from tests.reference import pres
from tests.reference.recent_neighbors import NUM_NODES, stream

DIM, MAILS, NEIGHBORS, HEADS, SIZE = 6, 4, 3, 2, 9
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def build(edge_channels=3, num_nodes=NUM_NODES, **options):
    torch.manual_seed(1)
    network = APAN(
        num_nodes, edge_channels, memory_dim=DIM, num_mails=MAILS, num_neighbors=NEIGHBORS, num_heads=HEADS,
        **{"dropout": 0.0} | options,
    ).double()  # fmt: skip
    for name, parameter in network.named_parameters():
        if not name.startswith("corrector"):  # no zeros or ones left that would hide a missing term
            nn.init.normal_(parameter, std=0.5)
    return network


def batches(kind="unipartite", width=3, seed=0, own_sources=True, events=None, size=SIZE, num_nodes=NUM_NODES):
    """Batches of a small stream, with two negatives for each event."""
    src, dst, t, msg = events or stream(kind, seed, width=width)
    history = TemporalAdjacency(src, dst, t, msg, num_nodes)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(src), size):
        part = slice(start, start + size)
        drawn = torch.randint(0, num_nodes, (2, len(src[part]), 2), generator=generator)
        yield EventBatch(
            src[part], dst[part], t[part], msg[part], torch.arange(len(src))[part], start,
            neg_dst=drawn[0], neg_src=drawn[1] if own_sources else None, history=history,
        )  # fmt: skip


def play(network, stream_batches):
    """Logits of all batches, each committed."""
    found = []
    for batch in stream_batches:
        logits, update = network.forward_with_update(batch)
        network.commit(update)
        found.append(logits.detach())
    return found


def pairs(batch):
    sources = batch.src[:, None].expand_as(batch.neg_dst) if batch.neg_src is None else batch.neg_src
    return [list(zip(*rows, strict=True)) for rows in zip(sources.tolist(), batch.neg_dst.tolist(), strict=True)]


def oracle(network, **options):
    weights = (dict(module.named_parameters()) for module in (network.memory.encoder, network.decoder))
    return reference.APAN(*weights, network.num_nodes, DIM, MAILS, NEIGHBORS, HEADS, **options)


def compare_state(network, model):
    memory = network.memory
    torch.testing.assert_close(memory.memory, torch.stack(model.z), **EXACT)
    mail, mask = memory.mailbox.read(torch.arange(network.num_nodes))
    for node, kept in enumerate(model.boxes.mails):
        assert int(mask[node].sum()) == len(kept)
        for found, expected in zip(mail[node], kept, strict=False):
            torch.testing.assert_close(found, expected, **EXACT)
    assert memory.mailbox.t.tolist() == model.boxes.times
    assert memory.last_update.tolist() == model.known
    assert memory.num_events.tolist() == model.num_events


@pytest.mark.parametrize("width", [0, 3, DIM])
@pytest.mark.parametrize("kind", ["unipartite", "bipartite", "loops", "repeated", "tied"])
def test_equals_loops_over_ten_batches(kind, width):
    network = build(width)
    model = oracle(network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    stream_batches = list(batches(kind, width, own_sources=width == 3))
    assert len(stream_batches) == 10
    for batch in stream_batches:
        logits, update = network.forward_with_update(batch)
        expected = model.batch(batch.src.tolist(), batch.dst.tolist(), batch.t.tolist(), batch.msg, pairs(batch))
        torch.testing.assert_close(logits, expected, **EXACT)
        both = [torch.autograd.grad(v.square().sum(), parameters, materialize_grads=True) for v in (logits, expected)]
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
        network.commit(update)
        compare_state(network, model)
    assert (network.memory.mailbox.count > MAILS).any(), "no box ever overflowed"


@pytest.mark.parametrize("rate", ["update", "time", "event"])
@pytest.mark.parametrize("persist", [True, False])
def test_corrected_embeddings_equal_loops(rate, persist):
    corrector = PRESCorrector(gamma_init=0.6, rate=rate, persist=persist)
    network = build(corrector=corrector, mean_gap=20.0)
    with torch.no_grad():
        corrector.gate.copy_(torch.logit(torch.tensor(0.6, dtype=torch.float64)))
    tracker = pres.Tracker(rate, time_scale=20.0)
    model = oracle(network, tracker=tracker, gamma=corrector.gamma.detach(), persist=persist)
    moved = 0.0
    for batch in batches("loops"):
        logits, update = network.forward_with_update(batch)
        expected = model.batch(batch.src.tolist(), batch.dst.tolist(), batch.t.tolist(), batch.msg, pairs(batch))
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        moved = max(moved, float((update.memory - update.read.measured).detach().abs().max()))
        network.commit(update)
        compare_state(network, model)
    assert moved > 1e-3
    logits.sum().backward()
    assert corrector.gate.grad.abs() > 0


def test_update_serves_the_coherence_loss():
    network = build(corrector=PRESCorrector(), dropout=0.1)
    task = TemporalLinkPrediction(network, coherence_weight=1.0)
    plain = TemporalLinkPrediction(copy.deepcopy(network))
    larger = []
    for batch in batches():
        torch.manual_seed(0)
        with_term = task.step(batch)
        torch.manual_seed(0)
        without = plain.step(batch)
        larger.append(bool(with_term.loss > without.loss + 1e-6))
    assert not larger[0], "nothing was known before the first batch"
    assert all(larger[2:])
    update = network.encode(batch)
    assert isinstance(network, MemoryNetwork)
    assert torch.equal(update.previous, network.memory.memory[update.plan.nodes])
    assert update.memory.requires_grad
    assert update.pending.all() == network.memory.mailbox.count[update.plan.nodes].all()


def test_gradient_reaches_every_parameter():
    network = build(dropout=0.1, corrector=PRESCorrector(gamma_init=0.7))
    stream_batches = list(batches())
    play(network, stream_batches[:-1])
    logits, update = network.forward_with_update(stream_batches[-1])
    (nn.functional.softplus(-logits[:, 0]).sum() + nn.functional.softplus(logits[:, 1:]).sum()).backward()
    network.commit(update)
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_forward_changes_nothing():
    network = build()
    stream_batches = list(batches())
    play(network, stream_batches[:5])
    before = network.state_buffers()
    assert torch.equal(network(stream_batches[5]), network(stream_batches[5]))
    network.encode(stream_batches[5])
    after = network.state_buffers()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("number", [0, 3, 9])
def test_later_events_change_no_bit(number):
    src, dst, t, msg = stream("loops", 3)
    first = number * SIZE
    later = torch.arange(len(src)) >= first + SIZE
    other = (
        torch.where(later, (src + 5) % NUM_NODES, src),
        torch.where(later, (dst + 3) % NUM_NODES, dst),
        torch.where(later, t + 1000, t),
        torch.where(later[:, None], msg - 7, msg),
    )
    one, two = build(), build()
    found = play(one, list(batches(events=(src, dst, t, msg)))[: number + 1])
    changed = play(two, list(batches(events=other))[: number + 1])
    assert all(torch.equal(a, b) for a, b in zip(found, changed, strict=True))
    states = one.state_buffers(), two.state_buffers()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_event_knows_nothing_of_its_own_batch():
    network = build()
    stream_batches = list(batches())
    play(network, stream_batches[:6])
    batch = stream_batches[6]
    logits = network(batch)
    own = replace(batch, msg=batch.msg + 3, t=batch.t + 50, e_id=batch.e_id + 1, cut=batch.e_id + 1)
    assert torch.equal(network(own), logits)
    # other partners for all events but one: the rows of a product may be summed differently, nothing else
    partners = torch.cat([batch.dst[:1], (batch.dst[1:] + 4) % NUM_NODES])
    torch.testing.assert_close(network(replace(batch, dst=partners))[0], logits[0], rtol=1e-12, atol=1e-12)
    # nor does what is delivered depend on cuts of single events
    other = copy.deepcopy(network)
    play(network, [batch])
    play(other, [replace(batch, cut=batch.e_id + SIZE)])
    states = network.state_buffers(), other.state_buffers()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_mail_follows_events_of_earlier_batches_only():
    src, dst = torch.tensor([0, 1, 0, 5]), torch.tensor([1, 2, 3, 6])
    t, msg = torch.arange(4), torch.zeros(4, 3)
    network = build(num_nodes=NUM_NODES)
    first, second = batches(events=(src, dst, t, msg), size=2)
    play(network, [first])
    assert network.memory.mailbox.count.tolist()[:7] == [1, 1, 1, 0, 0, 0, 0]
    play(network, [second])  # 0 tells its neighbour 1 of 3, and 1 tells nobody
    assert network.memory.mailbox.count.tolist()[:7] == [2, 2, 1, 1, 0, 1, 1]


def test_negatives_write_nothing():
    networks = [build(num_nodes=NUM_NODES + 2) for _ in range(2)]
    for network, strange in zip(networks, (NUM_NODES, NUM_NODES + 1), strict=True):
        for batch in batches(num_nodes=NUM_NODES + 2):
            negative = torch.full_like(batch.neg_dst, strange)
            play(network, [replace(batch, neg_dst=negative, neg_src=None)])
    states = [network.state_buffers() for network in networks]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
        assert not states[0][name][NUM_NODES:].any(), name
    without = build(num_nodes=NUM_NODES + 2)
    play(without, [replace(b, neg_dst=None, neg_src=None) for b in batches(num_nodes=NUM_NODES + 2)])
    for name, buffer in without.state_buffers().items():
        torch.testing.assert_close(buffer, states[0][name], **EXACT)


def test_a_growing_buffer_serves_as_history():
    one, two = build(), build()
    buffer = RecentNeighborBuffer(NUM_NODES, NEIGHBORS, 3)
    for batch in batches("loops"):
        found, live = (play(net, [b])[0] for net, b in ((one, batch), (two, replace(batch, history=buffer))))
        assert torch.equal(found, live)
        buffer.insert(batch.src, batch.dst, batch.t, batch.msg)


def test_a_batch_without_events_changes_nothing():
    network, first = build(), next(iter(batches()))
    none = {name: value[:0] for name, value in vars(first).items() if isinstance(value, torch.Tensor)}
    play(network, [first])
    before = network.state_buffers()
    logits, update = network.forward_with_update(replace(first, **none))
    network.commit(update)
    assert logits.shape == (0, 1 + first.neg_dst.size(1))
    assert all(torch.equal(value, before[name]) for name, value in network.state_buffers().items())


def test_state_round_trip_and_reset():
    network = build(corrector=PRESCorrector(track_variance=True))
    stream_batches = list(batches())
    first = play(network, stream_batches[:5])
    kept = network.state_buffers()
    assert {"memory.memory", "mailbox.mail", "mailbox.count", "corrector.count"} <= kept.keys()
    ahead = play(network, stream_batches[5:])
    network.load_state_buffers(kept)
    assert all(torch.equal(a, b) for a, b in zip(play(network, stream_batches[5:]), ahead, strict=True))
    assert not torch.equal(kept["mailbox.mail"], network.memory.mailbox.mail), "the copy is of its own"
    network.reset_state()
    fresh = build(corrector=PRESCorrector(track_variance=True)).state_buffers()
    assert all(torch.equal(buffer, fresh[name]) for name, buffer in network.state_buffers().items())
    assert all(torch.equal(a, b) for a, b in zip(play(network, stream_batches[:5]), first, strict=True))
    with pytest.raises(ValueError, match=r"corrector\.count is \(14, 1\)"):
        build(num_nodes=NUM_NODES + 1).load_state_buffers(kept)


def test_checkpoint_opens_with_weights_only():
    network = build(corrector=PRESCorrector())
    stream_batches = list(batches())
    play(network, stream_batches[:5])
    file = io.BytesIO()
    torch.save({"state": network.state_dict(), "record": network._record}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert saved["record"]["class_path"] == "graphseq.models.APAN"
    assert saved["record"]["init_args"]["corrector"]["class_path"] == "graphseq.nn.PRESCorrector"
    twin = build(corrector=PRESCorrector())
    twin.load_state_dict(saved["state"])
    copied = copy.deepcopy(network)
    ahead = play(network, stream_batches[5:])
    for other in (twin, copied):
        assert all(torch.equal(a, b) for a, b in zip(play(other, stream_batches[5:]), ahead, strict=True))


def test_new_parameters_leave_the_state():
    network = build()
    play(network, list(batches())[:3])
    before = network.state_buffers()
    network.reset_parameters()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.state_buffers().items())
    drawn = {name: parameter.clone() for name, parameter in network.named_parameters()}
    network.reset_parameters()
    fixed = {name for name, parameter in network.named_parameters() if torch.equal(parameter, drawn[name])}
    attention = {f"memory.encoder.{part}.bias" for part in ("query", "value", "out", "norm")}
    assert fixed == attention | {"memory.encoder.norm.weight"}


def test_resize_makes_room():
    network, large = build(), build(num_nodes=NUM_NODES + 3)
    stream_batches = list(batches())
    play(network, stream_batches[:5])
    play(large, stream_batches[:5])
    network.resize(NUM_NODES + 3)
    assert network.num_nodes == network.memory.num_nodes == NUM_NODES + 3
    small = build()
    small.load_state_dict(network.state_dict())
    assert all(torch.equal(buffer, network.state_buffers()[name]) for name, buffer in small.state_buffers().items())
    newcomers = [replace(b, dst=b.dst + 3) for b in stream_batches[5:]]
    assert all(torch.equal(a, b) for a, b in zip(play(network, newcomers), play(large, newcomers), strict=True))


def test_bad_input():
    network = build()
    batch = next(iter(batches()))
    with pytest.raises(DataError, match=f"names node {NUM_NODES + 4}"):
        network(replace(batch, dst=batch.dst + NUM_NODES + 4 - batch.dst.max()))
    _, update = network.forward_with_update(replace(batch, history=None))
    with pytest.raises(DataError, match="no history"):
        network.commit(update)
    with pytest.raises(DataError, match="3 features; .* 2"):
        build(2).forward_with_update(batch)
    with pytest.raises(ValueError, match="multiple of num_heads"):
        APAN(5, memory_dim=5)
    with pytest.raises(ValueError, match="num_nodes is 0"):
        APAN(0)
    with pytest.raises(ValueError, match="corrector .*grow"):
        build(corrector=PRESCorrector()).resize(99)


def test_learns_a_stream_that_repeats():
    """Six pairs that meet again and again: partners are told from strangers by their mail."""
    torch.manual_seed(0)
    order = torch.cat([torch.randperm(6) for _ in range(30)])
    events = order, order + 6, torch.arange(len(order)), nn.functional.one_hot(order, 6).float()
    network = APAN(12, 6, memory_dim=32, num_mails=4, num_neighbors=4, dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(24):
        network.reset_state()
        right = []
        for batch in batches(events=events, size=12, num_nodes=12):
            stranger = 6 + (batch.src[:, None] + torch.randint(1, 6, (len(batch), 1))) % 6
            logits, update = network.forward_with_update(replace(batch, neg_dst=stranger, neg_src=None))
            loss = nn.functional.softplus(-logits[:, 0]).mean() + nn.functional.softplus(logits[:, 1:]).mean()
            optimizer.zero_grad()
            loss.backward()
            network.commit(update)
            optimizer.step()
            right.append((logits[:, :1] > logits[:, 1:]).float().mean())
    assert float(torch.stack(right[5:]).mean()) > 0.9
