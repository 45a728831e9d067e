"""A live stream that speaks the user's ids and dates, and knows sources from destinations."""

import datetime

import numpy as np
import pytest
import torch

from graphseq.core import DataError, EventBatch
from graphseq.data import TemporalDataModule, TemporalEvents
from graphseq.models import TGN, LinkStream

NAMES = ["ann", "bob", "eve", "tea", "milk", "rum"]
SRC, DST = torch.arange(30) % 3, 3 + torch.arange(30) % 2


def network(num_nodes=6):
    torch.manual_seed(1)
    made = TGN(num_nodes, memory_dim=8, time_dim=8, embedding_dim=8, num_neighbors=3)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return made


def module(ids, bipartite=True):
    events = TemporalEvents(
        SRC, DST, 1_700_000_000 + torch.arange(30), num_nodes=6, node_ids=ids, num_sources=3 if bipartite else None
    )
    return TemporalDataModule(events, batch_size=5, eval_batch_size=5)


def streams(ids, **options):
    """A stream that speaks ids, and one that speaks numbers."""
    both = []
    for given in (ids, None):
        both.append(LinkStream.from_history(network(), module(given, **options), replay=True))
    return both


@pytest.mark.parametrize("ids", [NAMES, torch.tensor([70, 50, 10, 40, 30, 20])])
@pytest.mark.parametrize("bipartite", [False, True])
def test_answers_are_those_of_the_numbers_in_ids(ids, bipartite):
    named, numbered = streams(ids, bipartite=bipartite)
    array = np.asarray(ids, dtype=object if isinstance(ids, list) else np.int64)
    t = 1_700_000_040
    for candidates in (None, torch.tensor([5, 3]), torch.tensor([[5, 3], [4, 5]])):
        wanted, scores = numbered.rank([0, 2], candidates, t, k=2)
        given = None if candidates is None else array[candidates.numpy()].tolist()
        found, same = named.rank(array[[0, 2]].tolist(), given, t, k=2)
        assert np.asarray(found).tolist() == array[wanted.numpy()].tolist()
        assert torch.equal(scores, same)
    assert torch.equal(named.score(array[1], array[4], t), numbered.score(1, 4, t))
    one = named.observe(array[[0, 1]].tolist(), array[[3, 4]].tolist(), [t, t + 1])
    assert torch.equal(one, numbered.observe([0, 1], [3, 4], [t, t + 1]))
    assert torch.equal(named.score(array[1], array[4], t + 9), numbered.score(1, 4, t + 9))


def test_times_may_be_dates():
    stream = streams(NAMES)[0]
    when = datetime.datetime(2023, 11, 14, 22, 14, 0, tzinfo=datetime.UTC)
    wanted = stream.score("ann", "tea", int(when.timestamp()))
    for t in (when, "2023-11-14T23:14:00+01:00", np.datetime64("2023-11-14T22:14"), ["2023-11-14T22:14Z"]):
        assert torch.equal(stream.score("ann", "tea", t), wanted)
    stream.observe(["ann", "bob"], ["tea", "tea"], ["2023-11-14T22:14Z", "2023-11-14T22:15Z"])
    with pytest.raises(DataError, match="t is 1700000000, before"):
        stream.score("ann", "tea", 1_700_000_000)
    with pytest.raises(DataError, match=r"t\[0\]: 'tomorrow'"):
        stream.score("ann", "tea", "tomorrow")


def test_unknown_ids_are_named():
    stream = streams(NAMES)[0]
    before = stream.state_dict()
    for src, dst, message in (
        ("zoe", "tea", "src names 'zoe', no source"),
        ("ann", "gin", "dst names 'gin', no destination"),
        ("tea", "tea", "src names 'tea', no source"),
        (0, "tea", "src holds 0"),
    ):
        with pytest.raises(DataError, match=message):
            stream.score(src, dst, 1_700_000_040)
        with pytest.raises(DataError, match=message):
            stream.observe([src], [dst], [1_700_000_040])
    for candidates in (["ann"], ["tea", "bob"]):
        with pytest.raises(DataError, match="candidates names '(ann|bob)', no destination"):
            stream.rank("ann", candidates, 1_700_000_040)
    with pytest.raises(DataError, match="src is float64"):
        streams(torch.arange(6))[0].score(0.5, 3, 1_700_000_040)
    assert str(stream.state_dict()) == str(before)


def test_a_bipartite_stream_ranks_no_source():
    stream = streams(None)[1]
    t = 1_700_000_040
    for ask in (
        lambda: stream.rank(0, [1, 4], t),
        lambda: stream.rank(0, torch.arange(6), t),
        lambda: stream.rank(4, None, t),
        lambda: stream.score(0, 2, t),
        lambda: stream.observe([0], [2], [t]),
        lambda: stream.observe([3], [4], [t]),
    ):
        with pytest.raises(DataError, match=r"(src|dst) names node \d, a (source|destination).* 0 to 2, .* 3 to 5"):
            ask()
    assert streams(None, bipartite=False)[1].rank(0, [1, 4], t)[0].shape == (1, 2)


def test_new_names_take_new_nodes(tmp_path):
    stream = LinkStream.from_history(network(), module(NAMES), replay=True, growth="grow")
    t = 1_700_000_040
    alike = stream.score("zoe", "gin", t)
    assert torch.equal(alike, stream.score("kim", "gin", t))  # nothing is known of either
    assert (stream.num_nodes, len(stream.nodes)) == (6, 6)
    stream.observe(["zoe", "ann", "zoe"], ["gin", "gin", "tea"], [t, t, t + 1])
    assert (stream.num_nodes, stream.nodes.ids.tolist()[6:]) == (8, ["zoe", "gin"])
    found = stream.rank("zoe", None, t + 2)[0]
    assert sorted(found[0].tolist()) == ["gin", "milk", "tea"]
    with pytest.raises(DataError, match="batch names nodes beyond the 8"):
        stream.observe(EventBatch(torch.tensor([9]), torch.tensor([3]), torch.tensor([99]), torch.zeros(1, 0),
                                  torch.tensor([0]), start=0))  # fmt: skip
    torch.save(stream.state_dict(), tmp_path / "stream.pt")
    again = LinkStream(network(), growth="grow")
    again.load_state_dict(torch.load(tmp_path / "stream.pt", weights_only=True))
    assert np.array_equal(again.rank(["zoe", "ann"], None, t + 2)[0], stream.rank(["zoe", "ann"], None, t + 2)[0])
    unseen = again.rank("zoe", ["ann", "nut", "gin"], t + 2)[0]  # an item called like a user is another node
    assert sorted(unseen[0].tolist()) == ["ann", "gin", "nut"]
    again.reset_state()
    assert again.nodes.ids.tolist() == NAMES


def test_one_new_name_in_both_roles():
    stream = LinkStream.from_history(network(), module(NAMES, bipartite=False), replay=True, growth="grow")
    stream.observe(["zoe", "ann"], ["ann", "zoe"], [1_700_000_040, 1_700_000_041])
    assert (stream.num_nodes, stream.nodes.ids.tolist()[6:]) == (7, ["zoe"])
    assert sorted(stream.rank("ann", ["zoe", "ann"], 1_700_000_050)[0][0].tolist()) == ["ann", "zoe"]


def test_ids_need_one_entry_a_node():
    with pytest.raises(ValueError, match="node_ids has 2 entries; the network has 6"):
        LinkStream(network(), node_ids=["a", "b"])
