"""Networks that remember: nothing of the future in a score, and state that can be kept, moved and put back."""

import copy
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score

from graphseq.core import DataError, EventBatch
from graphseq.data import TemporalAdjacency
from graphseq.models import APAN, TGAT
from graphseq.nn import PRESCorrector
from tests.models.temporal.memory_networks import NETWORKS, NODES, WITH_MEMORY, Stream, build, make, roll, stream

every_network = pytest.mark.parametrize("name", NETWORKS)
every_memory = pytest.mark.parametrize("name", WITH_MEMORY)
BATCH = 10


def corrector(**options):
    return PRESCorrector(**{"gamma_init": 0.6, "gamma_learnable": False, **options})


# nothing of the future


def garbage_from(events, position, end):
    """Everything from ``position`` on is another stream, but who meets whom, and when, up to ``end``."""
    other = stream(seed=99)
    mixed = {}
    for name in ("src", "dst", "t", "msg", "event_type"):
        mine, theirs = getattr(events, name), getattr(other, name)
        mixed[name] = torch.cat([mine[:position], theirs[position:]])
    for name in ("src", "dst"):
        mixed[name][:end] = getattr(events, name)[:end]
    mixed["t"] = torch.cat([events.t[:end], other.t[end:] + events.t[end - 1]])
    return Stream(**mixed, neg_dst=events.neg_dst, neg_src=events.neg_src)


@pytest.mark.parametrize("cut", [None, "time"])
@every_network
def test_no_score_depends_on_what_comes_with_its_batch_or_later(name, cut):
    events = stream()
    past = events.batches(BATCH)[:5]
    changed = garbage_from(events, 50, 60)
    batch, other = events.batch(50, 60, cut), changed.batch(50, 60, cut)
    if cut == "time":
        if name == "TGN transformer":
            return  # refused, see test_memory_network.py
        # events at earlier times in the batch may be looked at: only the rest is another
        first = int(batch.cut.max())
        changed = garbage_from(events, max(first, 50), 60)
        other = changed.batch(50, 60, cut)
        assert torch.equal(other.cut, batch.cut)
    assert not torch.equal(other.msg, batch.msg)
    assert not torch.equal(changed.src[60:], events.src[60:])
    network = build(name).eval()
    roll(network, past)
    assert torch.equal(network(batch), network(other))


@every_network
def test_a_score_does_not_depend_on_other_events_of_its_batch(name):
    events, network = stream(), build(name).eval()
    roll(network, events.batches(BATCH)[:5])
    batch = events.batch(50, 60)
    alone = network(batch)
    partners = replace(batch, src=batch.src.clone(), dst=batch.dst.clone(), neg_dst=batch.neg_dst.clone())
    for column in (partners.src, partners.dst, partners.neg_dst):
        column[5:] = column[5:].flip(0).roll(1)
    torch.testing.assert_close(network(partners)[:5], alone[:5], atol=1e-12, rtol=0)
    assert not torch.allclose(network(partners)[5:], alone[5:])


class Leaky:
    """A history that forgets the cut and knows events up to and including the one that is asked for."""

    def __init__(self, history):
        self.history = history

    def recent(self, nodes, cut, k):
        return self.history.recent(nodes, cut + 1, k)


def random_stream(num_events, num_nodes=60, seed=0):
    """Ends of events drawn at random: nothing to learn."""
    generator = torch.Generator().manual_seed(seed)
    half = num_nodes // 2
    src, dst = (torch.randint(0, half, (num_events,), generator=generator) for _ in range(2))
    negative = (dst + torch.randint(1, half, (num_events,), generator=generator)) % half
    t = torch.arange(num_events) * 3
    none = torch.zeros(num_events, 0)
    history = TemporalAdjacency(src, dst + half, t, none, num_nodes)

    def batch(start, end, leak=False):
        position = torch.arange(start, end)
        part = slice(start, end)
        columns = src[part], dst[part] + half, t[part], none[part], position
        drawn = (negative[part] + half)[:, None]
        past = Leaky(history) if leak else history
        return EventBatch(*columns, start=start, neg_dst=drawn, history=past, cut=position if leak else None)

    return batch


class Late(torch.nn.Module):
    """A network that remembers a batch before it scores it."""

    def __init__(self, network):
        super().__init__()
        self.network, self.reset_state, self.commit = network, network.reset_state, lambda update: None

    def forward_with_update(self, batch):
        self.network.commit(self.network.forward_with_update(batch)[1])
        return self.network.forward_with_update(batch)


def score(network, num_train, num_test, leak=False, epochs=1, size=100, test_size=500):
    """AP after training, on what follows."""
    batch = random_stream(num_train + num_test)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(epochs):
        network.reset_state()
        for start in range(0, num_train, size):
            logits, update = network.forward_with_update(batch(start, start + size, leak))
            target = torch.zeros_like(logits)
            target[:, 0] = 1
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, target).backward()
            network.commit(update)
            optimizer.step()
    network.eval()
    starts = range(num_train, num_train + num_test, test_size)
    with torch.no_grad():
        logits = torch.cat(roll(network, [batch(start, start + test_size, leak) for start in starts]))
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    return average_precision_score(truth.flatten(), logits.flatten())


ON_RANDOM = {"nodes": 60, "width": 16, "msg": 0, "time": 8, "near": 4, "statistics": [90.0, 90.0, 90.0, 90.0]}


def on_random(name):
    if name == "APAN":
        return APAN(60, 0, memory_dim=16, num_neighbors=4, num_mails=3)
    name, _, corrected = name.partition(" with ")
    return make(name, **ON_RANDOM, **({"corrector": corrector(update_in_eval=True)} if corrected else {}))


@pytest.mark.parametrize("name", [*NETWORKS, "APAN", "TGN with PRES", "JODIE with PRES"])
def test_nothing_is_found_where_nothing_is(name):
    assert abs(score(on_random(name), num_train=3000, num_test=6000) - 0.5) < 0.02


def test_a_planted_leak_is_found():
    """The null above could not fail if these networks were unable to use a leak."""
    for name in ("TGN", "TGAT"):
        assert score(make(name, **ON_RANDOM), num_train=3000, num_test=1000, leak=True, epochs=2) > 0.98


@pytest.mark.parametrize("name", ["JODIE", "JODIE with PRES"])
def test_a_memory_that_is_written_too_early_is_found(name):
    """Those that score from memory alone cannot use a leak of the history, but one of the memory."""
    assert score(Late(on_random(name)), num_train=3000, num_test=1000, epochs=3, size=20, test_size=20) > 0.8


# state that can be kept, moved and put back


@every_network
def test_state_is_copied_and_put_back(name):
    network, events = build(name).eval(), stream()
    batches = events.batches(BATCH)
    roll(network, batches[:4])
    kept = network.state_buffers()
    first = roll(network, batches[4:7])
    assert name == "TGAT" or not torch.equal(network.state_buffers()["memory.memory"], kept["memory.memory"])
    network.load_state_buffers(kept)
    assert all(torch.equal(one, other) for one, other in zip(first, roll(network, batches[4:7]), strict=True))
    network.reset_state()
    assert all(not value.any() for value in network.state_buffers().values())


def test_state_of_another_network_is_refused():
    network = build("TGN")
    state = network.state_buffers()
    with pytest.raises(ValueError, match=r"memory\.mail is \(3, 9\) .*\(14, 9\)"):
        network.load_state_buffers(state | {"memory.mail": state["memory.mail"][:3]})
    del state["memory.mail_t"]
    with pytest.raises(ValueError, match="memory.mail_t is absent there"):
        network.load_state_buffers(state)


@pytest.mark.parametrize("pres", [False, True])
@every_memory
def test_a_checkpoint_and_a_copy_go_on_bit_for_bit(name, pres, tmp_path):
    def new():
        more = {"corrector": corrector(num_components=2, track_variance=True)} if pres else {}
        return build(name, **more).eval()

    network, events = new(), stream()
    network.train()
    for layer in network.embedding.modules():
        if hasattr(layer, "dropout"):
            layer.dropout = 0.0
    batches = events.batches(BATCH)
    roll(network, batches[:4])
    torch.save(network.state_dict(), tmp_path / "network.pt")
    copied = copy.deepcopy(network)
    loaded = new().train()
    loaded.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    loaded.eval()
    network.eval()
    copied.eval()
    assert copied.time_encoder is copied.memory.time_encoder
    expected = roll(network, batches[4:])
    for other in (copied, loaded):
        assert all(torch.equal(one, two) for one, two in zip(expected, roll(other, batches[4:]), strict=True))
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())


@every_network
def test_more_nodes_leave_the_scores_of_the_others(name):
    network, events = build(name).eval(), stream()
    batches = events.batches(BATCH)
    roll(network, batches[:4])
    before = network(batches[4])
    network.resize(NODES + 5)
    assert network.num_nodes == NODES + 5
    assert torch.equal(network(batches[4]), before)
    batches[4].neg_dst = torch.full_like(batches[4].neg_dst, NODES + 4)
    if name not in ("JODIE", "TGN identity"):
        wider = TemporalAdjacency(events.src, events.dst, events.t, events.msg, NODES + 5)
        batches[4].history = wider
    torch.testing.assert_close(network(batches[4])[:, 0], before[:, 0], atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="num_nodes is 14; .*19"):
        network.resize(NODES)
    if name != "TGAT":
        fresh = build(name)
        fresh.load_state_dict(network.state_dict())  # grown on loading: the constructor knew of fewer
        assert fresh.num_nodes == NODES + 5
        assert torch.equal(fresh.eval()(batches[4]), network(batches[4]))


def test_moments_by_node_cannot_grow():
    with pytest.raises(ValueError, match="corrector .*grow"):
        build("JODIE", corrector=corrector()).resize(NODES + 1)


@every_memory
def test_times_stay_exact_in_whatever_type_the_network_is(name):
    events = stream()
    network, exact = make(name).bfloat16().float().eval(), make(name).eval()
    exact.load_state_dict(network.state_dict())
    late = [replace(batch, t=batch.t + 1_600_000_000) for batch in events.batches(BATCH)]
    roll(network, late[:3])
    roll(exact, late[:3])
    assert network.memory.last_update.dtype == network.memory.mail_t.dtype == torch.float64
    assert torch.equal(network.memory.mail_t, exact.memory.mail_t)
    assert network.memory.mail_t.max() == late[2].t.max()
    half = network.bfloat16()
    assert torch.equal(half.memory.mail_t, exact.memory.mail_t)
    assert half.memory.memory.dtype == torch.bfloat16


@every_memory
def test_memory_keeps_its_precision_under_autocast(name):
    events, network = stream(), make(name).eval()
    batches = events.batches(BATCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = roll(network, batches[:5])
        torch.nn.functional.softplus(logits[-1].float()).mean().backward()
    assert network.memory.memory.dtype == torch.float32
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())
    if name != "DyRep":  # its messages hold embeddings, which autocast is meant for
        exact = make(name).eval()
        exact.load_state_dict(network.state_dict())
        exact.reset_state()
        roll(exact, batches[:5])
        assert torch.equal(network.memory.memory, exact.memory.memory)


@every_network
def test_parameters_are_drawn_anew_and_the_state_stays(name):
    network, events = make(name), stream()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    roll(network, events.batches(BATCH)[:3])
    before = network.state_buffers()
    network.reset_parameters()
    assert not any((parameter == 7).any() for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_buffers().items())
    # the same draws as a new network's, whatever the order of its parts
    for key, value in make(name).named_parameters():
        mine = dict(network.named_parameters())[key]
        assert (value.std(correction=0) < 1e-9) == (mine.std(correction=0) < 1e-9), key


# PRES between memory and embedding


@every_memory
def test_a_gate_of_one_is_the_network_without_pres(name):
    plain, events = build(name).eval(), stream()
    trusting = build(name, corrector=corrector(gamma_init=1.0)).train()
    trusting.load_state_dict(
        plain.state_dict() | {key: value for key, value in trusting.state_dict().items() if key.startswith("corrector")}
    )
    trusting.embedding.eval()
    for one, other in zip(roll(plain, events.batches(BATCH)), roll(trusting, events.batches(BATCH)), strict=True):
        assert torch.equal(one, other)
    assert trusting.corrector.count.sum() > 0
    state = trusting.state_buffers()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_buffers().items())


@every_memory
def test_moments_of_a_batch_come_from_the_batches_before(name):
    events = stream()
    options = {"num_components": 3, "rate": "time", "update_in_eval": True}
    network = build(name, corrector=corrector(**options), mean_gap=4.0).eval()
    other = copy.deepcopy(network)
    changed = garbage_from(events, 50, 60)
    roll(network, events.batches(BATCH)[:5])
    roll(other, changed.batches(BATCH)[:5])
    first, second = network.forward_with_update(events.batch(50, 60)), other.forward_with_update(changed.batch(50, 60))
    assert torch.equal(first[0], second[0])
    network.commit(first[1])
    other.commit(second[1])
    assert network.corrector.count.sum() > 0
    for key in ("count", "weight_sum", "rate_sum"):
        assert torch.equal(getattr(network.corrector, key), getattr(other.corrector, key))
    assert not torch.equal(network.memory.mail, other.memory.mail)


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("name", ["TGN", "JODIE", "TGN mean"])
def test_what_is_stored_is_the_corrected_memory_or_the_measured(name, persist):
    events, network = stream(), build(name, corrector=corrector(persist=persist, update_in_eval=True)).eval()
    roll(network, events.batches(BATCH)[:5])
    batch = events.batch(50, 60)
    _, update = network.forward_with_update(batch)
    assert not torch.allclose(update.memory, update.read.measured)
    before = network.corrector.count.clone()
    network.commit(update)
    place = update.plan.endpoint
    stored = network.memory.memory[update.plan.nodes[place]]
    assert torch.equal(stored, (update.memory if persist else update.read.measured)[place].detach())
    # moments move for the nodes that were stored, and by one update each
    moved = (network.corrector.count - before).squeeze(1)
    expected = torch.zeros(NODES, dtype=moved.dtype)
    expected[update.plan.nodes[place]] = update.pending[place].to(moved.dtype)
    assert torch.equal(moved, expected)


def test_a_learned_gate_and_the_updater_get_gradients_through_the_correction():
    events, network = stream(), build("JODIE", corrector=corrector(gamma_learnable=True)).train()
    roll(network, events.batches(BATCH)[:5])
    network(events.batch(50, 60)).sum().backward()
    assert network.corrector.gate.grad.abs() > 0
    assert network.memory.cell.weight_ih.grad.abs().sum() > 0


def test_times_without_seconds_and_features_of_another_width_are_refused():
    batch = stream().batch(0, 10)
    for network in (build("JODIE"), build("TGAT")):
        with pytest.raises(DataError, match=r"t is torch\.float32"):
            network(replace(batch, t=batch.t.float()))
        if network.memory is not None or isinstance(network, TGAT):
            with pytest.raises(DataError, match="1 features; .* 3"):
                network(replace(batch, msg=batch.msg[:, :1]))
