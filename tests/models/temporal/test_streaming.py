"""A network at work: the numbers of evaluation, nothing half-written, nothing changed by asking, restarts."""

import copy
import functools
import logging
import warnings
from dataclasses import replace

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import graphseq
from graphseq.core import DataError, EventBatch
from graphseq.data import SyntheticEventsDataModule
from graphseq.models import APAN, JODIE, TGAT, TGN, DyRep, LinkStream, MemoryNetwork
from graphseq.nn import NodeMemory, PRESCorrector, TemporalSumEmbedding, TimeEncoder
from graphseq.tasks import TemporalLinkPrediction
from tests.reference.recent_neighbors import KINDS, NUM_NODES, stream

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

SMALL = {"memory_dim": 8, "time_dim": 8}
NETWORKS = {
    "TGN": functools.partial(TGN, embedding_dim=8, num_neighbors=4, **SMALL),
    "JODIE": functools.partial(JODIE, **SMALL),
    "DyRep": functools.partial(DyRep, num_neighbors=4, **SMALL),
    "APAN": functools.partial(APAN, memory_dim=8, num_neighbors=4, num_mails=3),
    "TGAT": functools.partial(TGAT, embedding_dim=8, time_dim=8, num_neighbors=3),
}


def data_module(**options):
    options = {"num_events": 500, "num_edge_features": 2, "batch_size": 40, "eval_batch_size": 30} | options
    return SyntheticEventsDataModule(num_sources=20, num_destinations=12, **options)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Checkpoint and test logits of each network, trained and tested by the task."""
    done = {}

    def run(name):
        if name not in done:
            lightning.seed_everything(0, verbose=False)
            data = data_module(inductive_ratio=0.1)
            task = TemporalLinkPrediction(NETWORKS[name](data.num_nodes, 2))
            folder = tmp_path_factory.mktemp(name)
            saved = ModelCheckpoint(folder, save_last=True, monitor="val/ap", mode="max")
            quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
            trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[saved], **quiet)
            trainer.fit(task, data)
            path = saved.best_model_path
            loaded, logits = graphseq.load(path), []
            step = loaded.step

            def recorded(batch, stage):
                out = step(batch, stage)
                logits.append(out.prediction.detach().clone())
                return out

            loaded.step = recorded
            trainer.test(loaded, data, verbose=False)
            done[name] = (path, logits)
        return done[name]

    return run


def fresh(name="TGN", num_nodes=NUM_NODES, channels=3, **options):
    torch.manual_seed(1)
    network = NETWORKS[name](num_nodes, channels, **options)
    for weight in network.parameters():  # so that even biases tell where something is missing
        nn.init.normal_(weight, std=0.4)
    return network


def filled(name="TGN", count=40, **options):
    src, dst, t, msg = stream("unipartite")[:4]
    made = LinkStream(fresh(name), **options)
    for low in range(0, count, 10):
        part = slice(low, low + 10)
        made.observe(src[part], dst[part], t[part], msg[part])
    return made


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# equal to evaluation


@pytest.mark.parametrize("name", NETWORKS)
def test_is_what_evaluation_computed(name, evaluated):
    path, logits = evaluated(name)
    data = data_module(inductive_ratio=0.1)
    made = LinkStream.from_history(graphseq.load(path).model, data)
    batches = list(data.batches("test"))
    assert len(batches) == len(logits) > 1
    for batch, wanted in zip(batches, logits, strict=True):
        before = made.state_dict()
        offset = data.events.time_offset
        pairs = made.score(batch.src, batch.dst, batch.t + offset, output="logit")
        torch.testing.assert_close(pairs, wanted[:, 0], atol=1e-6, rtol=1e-5)
        ids, scores = made.rank(batch.src, batch.neg_dst, batch.t + offset, output="logit")
        torch.testing.assert_close(scores, wanted[:, 1:], atol=1e-6, rtol=1e-5)
        assert torch.equal(ids, batch.neg_dst)
        assert same(before, made.state_dict())
        assert torch.equal(made.observe(replace(batch, history=None)), wanted)


def test_columns_are_what_batches_are(evaluated):
    """Raw times and no negatives: the same stream as that of the data module's batches."""
    path, logits = evaluated("TGN")
    data = data_module(inductive_ratio=0.1)
    made = LinkStream.from_history(graphseq.load(path).model, data)
    assert data.events.time_offset > 0
    for batch, wanted in zip(data.batches("test"), logits, strict=True):
        seen = made.observe(batch.src, batch.dst, batch.t + data.events.time_offset, batch.msg)
        torch.testing.assert_close(seen, wanted[:, :1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_replay_is_what_observing_with_the_task_is(name):
    data = data_module()
    network, other = fresh(name, data.num_nodes, 2), fresh(name, data.num_nodes, 2)
    task = TemporalLinkPrediction(other)
    for split in ("train", "val"):
        task.observe(data.batches(split))
    made = LinkStream.from_history(network, data, replay=True)
    listed = [batch for split in ("train", "val") for batch in data.batches(split)]
    for wanted in (other.state_buffers(), LinkStream.from_history(other, listed, replay=True).network.state_buffers()):
        for key, value in network.state_buffers().items():
            torch.testing.assert_close(value, wanted[key], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        for batch in data.batches("test"):
            torch.testing.assert_close(made.observe(batch), other.eval()(batch), atol=1e-5, rtol=1e-4)
            task.observe([batch])


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(KINDS), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_any_chunks_of_any_stream_are_those_of_the_exact_index(name, kind, sizes, seed):
    """Whatever is kept in rings, the logits are those with an index of the whole stream, in the same chunks."""
    src, dst, t, msg = stream(kind, seed)[:4]
    network, other = fresh(name), fresh(name).eval()
    made, low = LinkStream(network), 0
    from graphseq.data import TemporalAdjacency

    for size in [*sizes, len(src)]:
        part = slice(low, low + size)
        if low >= len(src):
            break
        index = TemporalAdjacency(src, dst, t, msg, NUM_NODES)
        position = torch.arange(len(src))
        negatives = ((dst[part] + 3) % NUM_NODES)[:, None]
        batch = EventBatch(src[part], dst[part], t[part], msg[part], position[part], low, neg_dst=negatives)
        with torch.no_grad():
            wanted, update = other.forward_with_update(replace(batch, history=index))
            other.commit(update)
        assert torch.equal(made.observe(batch), wanted)
        low += size


def test_chunks_are_part_of_the_result_and_batch_size_makes_them():
    src, dst, t, msg = stream("unipartite")[:4]
    whole, cut, single = (LinkStream(fresh(), batch_size=size) for size in (None, 10, 1))
    by_hand = LinkStream(fresh())
    once = whole.observe(src, dst, t, msg)
    parts = [by_hand.observe(*(column[low : low + 10] for column in (src, dst, t, msg))) for low in range(0, 90, 10)]
    assert torch.equal(cut.observe(src, dst, t, msg), torch.cat(parts))
    assert same(cut.state_dict(), by_hand.state_dict())
    assert not torch.allclose(single.observe(src, dst, t, msg)[1:], once[1:])
    negatives = torch.randint(NUM_NODES, (90, 3))
    batch = EventBatch(src, dst, t, msg, src, 0, neg_dst=negatives, neg_src=negatives.flip(1))
    assert LinkStream(fresh(), batch_size=25).observe(batch).shape == (90, 4)


def test_dropout_of_a_network_set_back_to_training_does_not_act():
    made = filled()
    wanted = made.score(1, 2, 1000)
    made.network.train()
    assert torch.equal(made.score(1, 2, 1000), wanted)


# asking


@pytest.mark.parametrize("name", NETWORKS)
def test_asking_changes_nothing_and_a_ranking_is_in_the_order_of_the_scores(name):
    made = filled(name)
    before = made.state_dict()
    sources, times = torch.tensor([3, 3, 9]), [1000.0, 2000.0, 1000.0]
    ids, scores = made.rank(sources, np.arange(NUM_NODES), times, k=NUM_NODES)
    assert sorted(ids[0].tolist()) == list(range(NUM_NODES))
    for row in range(3):
        singly = made.score(sources[row], ids[row], times[row])
        torch.testing.assert_close(scores[row], singly, atol=1e-6, rtol=1e-5)
        assert bool((scores[row].diff() <= 0).all())
    assert bool(((scores >= 0) & (scores <= 1)).all())
    few, best = made.rank(sources, torch.arange(NUM_NODES), times, k=4, output="logit")
    assert torch.equal(few, ids[:, :4])
    torch.testing.assert_close(best.sigmoid(), scores[:, :4])
    assert same(before, made.state_dict())


def test_a_ranking_is_one_forward_pass():
    made, calls = filled(), []
    made.network.embedding.register_forward_hook(lambda *_: calls.append(1))
    made.rank([0, 1], torch.arange(NUM_NODES), 1000)
    assert calls == [1]


def test_candidates_are_by_default_the_destinations_seen():
    made = LinkStream(fresh())
    with pytest.raises(DataError, match="candidates; observe events first"):
        made.rank(0, None, 5)
    zeros = torch.zeros(2, 3)
    made.observe([0, 1], [7, 5], [3, 4], zeros)
    made.observe([7, 1], [7, 2], [5, 5], zeros)
    ids, scores = made.rank(0, None, 6)
    assert sorted(ids[0].tolist()) == [2, 5, 7]
    assert scores.shape == (1, 3)


def test_equal_scores_stay_in_the_order_of_the_candidates():
    made = LinkStream(fresh())
    assert made.rank(0, [9, 4, 12, 6], 5, k=3)[0].tolist() == [[9, 4, 12]]  # all unknown, all alike


def test_one_candidate_and_no_source():
    made = filled()
    assert made.rank(0, [4], 1000)[0].tolist() == [[4]]
    assert made.rank([], [4, 5], 1000)[1].shape == (0, 2)
    assert made.score([], [], []).shape == (0,)
    assert made.observe([], [], [], torch.zeros(0, 3)).shape == (0, 1)


# restarts and growth


@pytest.mark.parametrize("name", NETWORKS)
def test_survives_a_restart_bit_for_bit(name, tmp_path):
    src, dst, t, msg = stream("unipartite")[:4]
    going, path = filled(name, time_offset=-3), tmp_path / "stream.pt"
    torch.save(going.state_dict(), path)
    again = LinkStream(fresh(name))
    again.load_state_dict(torch.load(path, weights_only=True))
    assert again.time_offset == -3
    assert repr(again) == repr(going)
    assert same(again.state_dict(), going.state_dict())
    for made in (going, again):
        made.late = made.observe(src[40:], dst[40:], t[40:], msg[40:])
    assert torch.equal(going.late, again.late)
    assert same(again.state_dict(), going.state_dict())
    assert torch.equal(going.rank(0, None, 1000)[1], again.rank(0, None, 1000)[1])


def test_a_state_that_does_not_fit_is_refused_and_leaves_the_stream():
    made = filled()
    before = made.state_dict()
    lacking = {name: value for name, value in before.items() if name != "now"}
    wider = LinkStream(fresh(), num_neighbors=6).state_dict()
    larger = LinkStream(fresh(num_nodes=NUM_NODES + 1)).state_dict()
    half = before | {"network.memory.memory": before["network.memory.memory"].half()}
    for state, message in ((lacking, "now"), (wider, "history.node"), (larger, "growth='grow'"), (half, "float16")):
        with pytest.raises(ValueError, match=message):
            made.load_state_dict(state)
        assert same(before, made.state_dict())
    assert not same(before, filled(num_neighbors=6).state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stream_that_grew_is_one_that_was_large_from_the_start(name):
    src, dst, t, msg = stream("unipartite")[:4]
    order = torch.cat([src, dst]).unique()  # ids in the order in which they come, so that new ones keep coming
    first = {int(node): rank for rank, node in enumerate(dict.fromkeys(torch.stack([src, dst], 1).flatten().tolist()))}
    src, dst = (torch.tensor([first[int(node)] for node in column]) for column in (src, dst))
    small, large = LinkStream(fresh(name, 2), growth="grow"), LinkStream(fresh(name))
    large.network.load_state_dict(dict(small.network.named_parameters()), strict=False)
    for low in range(0, 90, 9):
        part = slice(low, low + 9)
        columns = src[part], dst[part], t[part], msg[part]
        unseen = small.score(NUM_NODES - 1, 0, t[part][0])
        torch.testing.assert_close(unseen, large.score(NUM_NODES - 1, 0, t[part][0]))
        assert torch.equal(small.observe(*columns), large.observe(*columns))
    assert small.num_nodes == len(order) == NUM_NODES
    assert same(small.state_dict(), large.state_dict())
    again = LinkStream(fresh(name, 2), growth="grow")
    again.load_state_dict(small.state_dict())
    assert same(again.state_dict(), small.state_dict())
    again.reset_state()
    again.load_state_dict(LinkStream(fresh(name, 5), growth="grow").state_dict())
    assert again.num_nodes == 5


def test_a_question_about_an_unknown_node_is_no_state():
    made = filled(growth="grow")
    before = made.state_dict()
    made.score(NUM_NODES + 30, 0, 1000)
    made.rank(0, [NUM_NODES + 90], 1000)
    assert same(before, made.state_dict())


def test_a_name_is_no_number_of_a_node():
    made, untouched = filled(growth="grow"), filled(growth="grow")
    for src, dst in ((0, 10**13), (10**9, 1), (0, 2**63 - 1)):
        with pytest.raises(DataError, match=rf"node {max(src, dst)} .* 14 nodes"):
            made.observe([src], [dst], [500], torch.zeros(1, 3))
        with pytest.raises(DataError, match="node .* 14 nodes: .*1000000000"):
            made.score(src, dst, 1000)
    assert same(made.state_dict(), untouched.state_dict())
    assert made.network.num_nodes == untouched.network.num_nodes


def test_unknown_nodes_share_a_free_row_in_questions():
    made = filled(growth="grow")
    room = made.network.num_nodes
    rows = made._rows_of({"src": torch.tensor([0, 5 * 10**8]), "dst": torch.tensor([[NUM_NODES, 7], [3, 10**8]])})
    assert [ids.tolist() for ids in rows] == [[0, NUM_NODES], [[NUM_NODES, 7], [3, NUM_NODES]]]
    assert room <= made.network.num_nodes <= 1 + room + room // 2
    assert made.num_nodes == NUM_NODES
    with pytest.raises(DataError, match="node 20 .*max_nodes = 20"):
        filled(growth="grow", max_nodes=20)._rows_of({"src": torch.tensor([20])})
    with pytest.raises(DataError, match="^dst names node 99"):
        filled()._rows_of({"dst": torch.tensor([99])})
    assert filled()._rows_of({"dst": torch.tensor([4])})[0].tolist() == [4]


def test_growth_has_its_limits():
    with pytest.raises(DataError, match="node 20 .*max_nodes = 20"):
        filled(growth="grow", max_nodes=20).score(20, 0, 1000)
    assert filled(growth="grow", max_nodes=20).score(19, 0, 1000).shape == (1,)
    with pytest.raises(ValueError, match="corrector .*growth='error'"):
        LinkStream(fresh(corrector=PRESCorrector()), growth="grow")


# what cannot be used


def columns(**changed):
    good = {"src": [0, 1, 2], "dst": [3, 4, 5], "t": [500, 500, 501], "msg": torch.zeros(3, 3)}
    return good | changed


NAN, MSG = float("nan"), torch.zeros(3, 3)
BAD = {
    "beyond": (columns(dst=[3, NUM_NODES, 5]), f"dst names node {NUM_NODES}; the network knows nodes 0 to"),
    "negative": (columns(src=[0, -1, 2]), "src names node -1"),
    "fraction": (columns(src=[0.0, 1.0, 2.0]), "integers"),
    "words": (columns(src=["a", "b", "c"]), "src is not a column of numbers"),
    "old": (columns(t=[1, 500, 500]), "t is 1, before the state, which has reached"),
    "unsorted": (columns(t=[500, 502, 501]), "event 2 of the chunk is at 501, the one before at 502"),
    "nan": (columns(t=[500.0, NAN, 501.0]), "event 1 of the chunk is nan"),
    "inf": (columns(t=[500.0, 501.0, float("inf")]), "event 2 of the chunk is inf"),
    "float32": (columns(t=torch.tensor([500.0, 500.0, 501.0])), "t is torch.float32"),
    "half": (columns(t=np.array([500, 500, 501], dtype=np.float16)), "t is torch.float16"),
    "huge": (columns(t=[500, 500, 2**60]), "coarser unit"),
    "table of times": (columns(t=[[500], [500], [501]]), "t has shape"),
    "lengths": (columns(t=[500, 501]), "differ in length"),
    "no msg": (columns(msg=None), "3 features an event"),
    "narrow msg": (columns(msg=torch.zeros(3, 2)), "3 features an event"),
    "flat msg": (columns(msg=torch.zeros(3)), "3 features an event"),
    "nan msg": (columns(msg=MSG + NAN), "msg holds NaN"),
    "type": (columns(event_type=[0, 1, -1]), "types are numbered from 0"),
    "types": (columns(event_type=[0, 1]), "differ in length"),
}


@pytest.mark.parametrize("growth", ["error", "grow"])
@pytest.mark.parametrize("case", BAD)
def test_bad_events_leave_everything_as_it_was(case, growth):
    given_columns, message = BAD[case]
    made, untouched = (filled(growth=growth, batch_size=1) for _ in range(2))
    if growth == "grow" and case == "beyond":
        return
    with pytest.raises(DataError, match=message):
        made.observe(**given_columns)
    assert same(made.state_dict(), untouched.state_dict())
    assert made.network.num_nodes == untouched.network.num_nodes
    assert torch.equal(made.observe(**columns()), untouched.observe(**columns()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neg_dst": torch.tensor([[1], [99], [0]])}, "neg_dst names node 99"),
        ({"neg_dst": torch.tensor([1, 2, 0])}, "neg_dst is torch.int64"),
        ({"neg_dst": torch.zeros(3, 1)}, "neg_dst is torch.float32"),
        ({"cut": torch.tensor([1, 2, 3])}, "cut='time'"),
    ],
)
def test_bad_batches(change, message):
    made = filled()
    before = made.state_dict()
    given_columns = {name: torch.as_tensor(value) for name, value in columns().items()}
    batch = EventBatch(**given_columns, e_id=torch.arange(3), start=0)
    with pytest.raises(DataError, match=message):
        made.observe(replace(batch, **change))
    with pytest.raises(TypeError, match="batch .*src, dst and t,"):
        made.observe(batch, [1])
    with pytest.raises(TypeError, match="src, dst and t, .*EventBatch"):
        made.observe([1], [2])
    assert same(before, made.state_dict())


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda made: made.score(0, 1, 2), DataError, "t is 2, .* 41"),
        (lambda made: made.score(0, NUM_NODES, 1000), DataError, "dst names node"),
        (lambda made: made.score([0, 1], [1, 2, 3], 1000), DataError, "src, dst and t have 2, 3 and 1 "),
        (lambda made: made.score(0, 1, torch.tensor([1000.0])), DataError, "float32"),
        (lambda made: made.score(0, 1, NAN), DataError, "nan"),
        (lambda made: made.score(0, 1, 1000, output="odds"), ValueError, "'probability' or 'logit'"),
        (lambda made: made.rank(0, [1, -2], 1000), DataError, "node -2"),
        (lambda made: made.rank(0, [], 1000), DataError, "no candidates"),
        (lambda made: made.rank([0, 1], [[1, 2]] * 3, 1000), DataError, "candidates"),
        (lambda made: made.rank(0, [1, 2], 1000, k=0), ValueError, "k is 0"),
    ],
)
def test_bad_questions(ask, error, message):
    made = filled()
    before = made.state_dict()
    with pytest.raises(error, match=message):
        ask(made)
    assert same(before, made.state_dict())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_neighbors": 3}, ValueError, "num_neighbors"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"growth": "yes"}, ValueError, "growth is 'yes'"),
        ({"max_nodes": 3}, ValueError, "max_nodes is 3"),
        ({"time_offset": NAN}, ValueError, "time_offset"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        LinkStream(fresh(), **options)
    with pytest.raises(TypeError, match="MemoryNetwork"):
        LinkStream(nn.Linear(2, 2))


# histories


def test_a_history_that_is_not_that_of_the_state_is_refused(evaluated):
    path, _ = evaluated("TGN")
    data, network = data_module(inductive_ratio=0.1), graphseq.load(path).model
    before = network.state_buffers()
    for options in ({"splits": ("train",)}, {"splits": ("train", "val", "test")}):
        with pytest.raises(DataError, match="state .*history .*replay=True"):
            LinkStream.from_history(network, data, **options)
    broken = [replace(batch, src=batch.src - 5) for batch in data.batches("val")]
    with pytest.raises(DataError, match="numbered from 0"):
        LinkStream.from_history(network, [*data.batches("train"), *broken], replay=True)
    assert same(before, network.state_buffers())
    with pytest.warns(UserWarning, match="LinkStream.from_history"):
        LinkStream(network).score(0, 25, 10**6)


def test_all_of_a_data_module_can_be_past_and_its_cut_by_time_is_replayed():
    data = data_module(cut="time")
    made = LinkStream.from_history(
        fresh("DyRep", data.num_nodes, 2), data, replay=True, splits=("train", "val", "test")
    )
    other = TemporalLinkPrediction(fresh("DyRep", data.num_nodes, 2))
    for split in ("train", "val", "test"):
        other.observe(data.batches(split))
    torch.testing.assert_close(made.network.memory.mail, other.network.memory.mail, atol=1e-5, rtol=1e-4)
    assert made.rank(0, None, int(data.events.t[-1]) + data.events.time_offset + 5)[0].shape == (1, 10)


def test_times_are_those_of_the_outside():
    """Unix times in nanoseconds, whole and shifted in whole numbers, give what small times give."""
    with pytest.raises(DataError, match="t is -5, before 0, .* time_offset"):  # of an empty stream nothing is later
        LinkStream(fresh()).score(0, 1, -5)
    near, far = LinkStream(fresh()), LinkStream(fresh(), time_offset=float(1_700_000_000 * 10**9))
    src, dst, t, msg = stream("unipartite")[:4]
    assert torch.equal(near.observe(src, dst, t, msg), far.observe(src, dst, t + 1_700_000_000 * 10**9, msg))
    with pytest.raises(DataError, match="1700000000000000000, .*state.*1700000000"):
        far.score(0, 1, 1_700_000_000 * 10**9 + 1)
    fractions = LinkStream(fresh(), time_offset=0.5)
    assert torch.equal(
        fractions.observe(src, dst, t + 0.5 + torch.zeros(90).double(), msg),
        LinkStream(fresh()).observe(src, dst, t, msg),
    )


def test_networks_without_memory_and_with_sums_know_their_features():
    time_encoder = TimeEncoder(8)
    sums = functools.partial(TemporalSumEmbedding, 8, 8, 3, 8, 4)
    for memory in (None, NodeMemory(NUM_NODES, 8, 3, time_encoder)):
        network = MemoryNetwork(memory, sums(), time_encoder, num_nodes=NUM_NODES, dim=8)
        assert LinkStream(network).msg_channels == 3


def test_a_corrector_goes_along():
    src, dst, t, msg = stream("unipartite")[:4]
    built = (fresh(corrector=PRESCorrector(gamma_init=0.5, update_in_eval=True)) for _ in range(3))
    one, other, without = (LinkStream(network) for network in built)
    for part in (slice(0, 25), slice(25, 50)):
        one.observe(src[part], dst[part], t[part], msg[part])
    assert one.network.corrector.count.sum() > 0
    assert any(name.startswith("network.corrector.") for name in one.state_dict())
    for made in (other, without):
        made.load_state_dict(one.state_dict())
    without.network.corrector.reset_state()
    answers = [made.observe(src[50:], dst[50:], t[50:], msg[50:]) for made in (one, other, without)]
    assert torch.equal(*answers[:2])
    assert not torch.allclose(answers[0], answers[2])  # the moments matter
    assert same(one.state_dict(), other.state_dict())


def test_replay_moves_the_moments_of_a_corrector_as_training_did():
    """Weights that do not change, so that the state of training and validation can be told from scratch."""
    lightning.seed_everything(0, verbose=False)
    data = data_module()
    network = JODIE(data.num_nodes, 2, data.time_statistics, corrector=PRESCorrector(gamma_init=0.5), **SMALL)
    task = TemporalLinkPrediction(network, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet).fit(task, data)
    kept = LinkStream.from_history(copy.deepcopy(network), data)
    replayed = LinkStream.from_history(copy.deepcopy(network), data, replay=True)
    assert kept.network.corrector.count.sum() > 0
    for name, value in kept.network.state_buffers().items():
        torch.testing.assert_close(replayed.network.state_buffers()[name], value, rtol=0, atol=1e-6)
    test = next(iter(data.batches("test")))
    torch.testing.assert_close(kept.observe(test), replayed.observe(test), rtol=0, atol=1e-5)
    assert not replayed.network.corrector.update_in_eval
    # by the task
    expected = copy.deepcopy(network).state_buffers()
    task.reset_state()
    task.observe(data.batches("train"), track_moments=True)
    task.observe(data.batches("val"))
    for name, value in network.state_buffers().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


def test_splits_without_events_are_passed_over():
    data = data_module(val_fraction=0)
    seen = LinkStream.from_history(JODIE(data.num_nodes, 2, **SMALL), data, replay=True)
    assert len(data.splits["train"]) == seen._num_events
    with pytest.raises(DataError, match="splits .*past.*empty"):
        LinkStream.from_history(JODIE(data.num_nodes, 2, **SMALL), data, replay=True, splits=["val"])
