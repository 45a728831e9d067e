"""Environments, pooled validation and balanced classes of graph data, against plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphseq.core import DataError
from graphseq.data import (
    DigitGraphsDataModule,
    GraphDataModule,
    GraphStore,
    MotifDataModule,
    TUDataModule,
    group_environments,
    pooled_split,
    shift_images,
    size_environments,
    size_split,
)


def graphs(count=40, y=lambda n: torch.tensor([n % 2])):
    edges = torch.zeros(2, 0, dtype=torch.int64)
    return [Data(x=torch.ones(n + 1, 1), edge_index=edges, y=y(n)) for n in range(count)]


# sizes and groups


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=40), st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6)
)
@settings(max_examples=60, deadline=None)
def test_size_environments(sizes, number, training, seed):
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
    train = order[: min(training, len(sizes))]
    env = size_environments(torch.tensor(sizes), train, number).tolist()
    trained = {env[n] for n in train.tolist()}
    most = max(sizes[n] for n in train.tolist())
    assert trained == set(range(len(trained)))
    assert len(trained) <= number
    for a, size in enumerate(sizes):
        assert (env[a] == len(trained)) == (size > most)
        for b, other in enumerate(sizes):
            assert size != other or env[a] == env[b]  # equal sizes stay together
            assert size >= other or env[a] <= env[b]  # and larger ones come later


def test_distinct_sizes_make_environments_of_equal_number():
    env = size_environments(torch.randperm(103), torch.arange(100), 4)
    assert torch.bincount(env[:100]).tolist() == [25, 25, 25, 25]


@given(st.lists(st.integers(-3, 8), min_size=3, max_size=40), st.integers(1, 4), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_group_environments(groups, number, training):
    train = torch.arange(min(training, len(groups)))
    known = {groups[n] for n in train.tolist()}
    if len(known) < number:
        with pytest.raises(DataError, match=f"{len(known)} groups.*{number}"):
            group_environments(torch.tensor(groups), train, number)
        return
    env = group_environments(torch.tensor(groups), train, number).tolist()
    of = {}
    for group, e in zip(groups, env, strict=True):
        assert of.setdefault(group, e) == e  # groups stay whole
        assert (e == number) == (group not in known)
    held = [sum(env[n] == e for n in train.tolist()) for e in range(number)]
    largest = max(groups[: len(train)].count(group) for group in known)
    assert min(held) > 0
    assert max(held) - min(held) <= largest  # what filling the emptiest first guarantees


def test_a_validation_set_between_the_sizes():
    sizes = torch.randint(1, 30, (50,), generator=torch.Generator().manual_seed(0))
    split = size_split(sizes, [0.6, 0.2, 0.2], 0, shifted_val=True)
    assert sizes[split["train"]].max() <= sizes[split["val"]].min()
    assert sizes[split["val"]].max() <= sizes[split["test"]].min()
    assert sorted(torch.cat(list(split.values())).tolist()) == list(range(50))


def test_a_field_of_the_store():
    store = GraphStore.from_dataset(graphs(5))
    more = store.with_field("env", torch.arange(5) * 2).with_field("env", torch.arange(5) * 3)
    batch = more.take(torch.tensor([4, 1]))
    assert batch.env.tolist() == [12, 3]
    assert batch.to_data_list()[1].env.tolist() == [3]
    assert store.field("env") is None
    assert GraphStore.from_dict(more.to_dict()).field("env").tolist() == [0, 3, 6, 9, 12]
    with pytest.raises(DataError, match="env .* 4 rows .* 5 graphs"):
        store.with_field("env", torch.arange(4))


# data modules


@pytest.mark.parametrize("split", ["size", "size_middle", "stratified"])
def test_tu_sets(mirror, split):
    data = TUDataModule("MUTAG", split=split, fractions=[0.6, 0.2, 0.2], num_environments=3)
    env, sizes = data.graphs.field("env"), data.graphs.num_nodes
    assert torch.equal(env, size_environments(sizes, data.splits["train"], 3))
    assert env[data.splits["train"]].unique().tolist() == [0, 1, 2]
    larger = data.splits["test"][sizes[data.splits["test"]] > sizes[data.splits["train"]].max()]
    assert (env[larger] == 3).all()
    assert (len(larger) > 10) == (split != "stratified")
    assert next(data.batches()).env.shape == next(data.batches()).y.shape
    assert TUDataModule("MUTAG", split=split).graphs.field("env") is None
    with pytest.raises(ValueError, match="num_environments is 1"):
        TUDataModule("MUTAG", num_environments=1)


def test_molecules(tmp_path, own_cache):
    pytest.importorskip("rdkit", reason="molecules need rdkit")
    from graphseq.data import MoleculeDataModule, scaffold

    smiles = [
        "CCO",
        "CCC",
        "Cc1ccccc1",
        "Oc1ccccc1",
        "C1CCCCC1",
        "CC1CCCCC1",
        "c1ccncc1",
        "Cc1ccncc1",
        "C1CC1",
        "CC1CC1",
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["smiles,t", *(f"{text},{n % 2}" for n, text in enumerate(smiles))]))
    data = MoleculeDataModule(path=path, target_columns=["t"], fractions=[0.6, 0.2, 0.2], num_environments=2)
    env = data.graphs.field("env").tolist()
    trained = {scaffold(smiles[n]) for n in data.splits["train"].tolist()}
    of = {}
    for text, e in zip(smiles, env, strict=True):
        assert of.setdefault(scaffold(text), e) == e
        assert (e == 2) == (scaffold(text) not in trained)
    assert {env[n] for n in data.splits["train"].tolist()} == {0, 1}
    assert {env[n] for n in [*data.splits["val"].tolist(), *data.splits["test"].tolist()]} == {2}
    data = MoleculeDataModule(path=path, target_columns=["t"], split="size_middle", num_environments=2)
    expected = size_environments(data.graphs.num_nodes, data.splits["train"], 2)
    assert torch.equal(data.graphs.field("env"), expected)


def test_digits_of_several_strengths():
    plain = DigitGraphsDataModule(shift="intensity", strength=0.5)
    env = plain.graphs.field("env")
    assert env[plain.splits["test"]].unique().tolist() == [1]
    assert not env[plain.clean_test].any()
    assert not env[torch.cat([plain.splits["train"], plain.splits["val"]])].any()
    several = DigitGraphsDataModule(shift="intensity", strength=0.5, train_strength=[0.0, 0.2, 0.5], val_strength=0.4)
    env, train = several.graphs.field("env"), several.splits["train"]
    parts = train.tensor_split(3)
    assert [env[part].unique().tolist() for part in parts] == [[0], [1], [2]]
    assert env[several.splits["val"]].unique().tolist() == [3]
    assert env[several.splits["test"]].unique().tolist() == [2]  # as strong as a part of training
    bright = [plain.graphs.take(part).x.max() for part in parts]
    found = [several.graphs.take(part).x.max() for part in parts]
    torch.testing.assert_close(torch.stack(found) / torch.stack(bright), torch.tensor([1.0, 0.8, 0.5]))
    assert torch.equal(several.graphs.field("y")[train], plain.graphs.field("y")[train])
    same = [data.graphs.take(data.splits["test"]).x for data in (plain, several)]
    assert torch.equal(*same)
    assert not DigitGraphsDataModule(shift="none", train_strength=0.3).graphs.field("env").any()
    with pytest.raises(ValueError, match="train_strength"):
        DigitGraphsDataModule(train_strength=[])
    with pytest.raises(ValueError, match="intensity"):
        DigitGraphsDataModule(shift="intensity", train_strength=[0.0, 1.0])
    assert shift_images(torch.ones(1, 2, 2), "none", 0.0, torch.Generator()).all()


# the pooled control


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_pooled_splits(train, val, seed):
    parts = {
        "train": torch.arange(train),
        "val": torch.arange(train, train + val),
        "test": torch.arange(train + val, train + val + 5),
    }
    if train + val < 2:
        with pytest.raises(DataError, match="leave nothing"):
            pooled_split(parts, seed)
        return
    found = pooled_split(parts, seed)
    assert torch.equal(found["test"], parts["test"])
    joined = torch.cat([found["train"], found["val"]])
    assert sorted(joined.tolist()) == list(range(train + val))
    assert len(found["val"]) == max(1, round(0.1 * (train + val)))
    assert len(pooled_split(parts, seed, 0.0)["val"]) == 0


def test_pooling_in_a_data_module():
    alone = MotifDataModule(num_train=60, num_val=40, num_test=10)
    pooled = MotifDataModule(num_train=60, num_val=40, num_test=10, pool_validation=True)
    assert torch.equal(alone.graphs.field("edge_index"), pooled.graphs.field("edge_index"))  # the same graphs
    assert pooled.split_sizes() == {"train": 90, "val": 10, "test": 10}
    assert torch.equal(pooled.splits["test"], alone.splits["test"])
    assert int((pooled.splits["train"] >= 60).sum()) > 30  # those of validation
    assert alone.fingerprint() != pooled.fingerprint()
    again = MotifDataModule(num_train=60, num_val=40, num_test=10, pool_validation=True)
    assert torch.equal(again.splits["train"], pooled.splits["train"])


def test_what_cannot_be_pooled():
    with pytest.raises(DataError, match="validation .*test "):
        pooled_split({"train": torch.arange(4), "val": torch.arange(4, 6), "test": torch.arange(4, 6)}, 0)
    with pytest.raises(ValueError, match="fraction is 1"):
        pooled_split({"train": torch.arange(4), "val": torch.arange(0), "test": torch.arange(0)}, 0, 1.0)


# balanced classes


def test_balanced_classes_count_the_same():
    split = {"train": list(range(30)), "val": [], "test": list(range(30, 40))}
    data = GraphDataModule(graphs(y=lambda n: torch.tensor([0 if n < 20 else 3 if n < 30 else 1])), split=split)
    assert data.class_weights == pytest.approx([0.75, 0.0, 0.0, 1.5])
    total = torch.tensor(data.class_weights)[data.graphs.field("y")[:30]]
    assert float(total.mean()) == pytest.approx(1.0)


def test_balanced_labels():
    nan = float("nan")
    rows = {0: [1.0, nan, 1.0], 1: [0.0, 1.0, 1.0], 2: [0.0, nan, 1.0], 3: [0.0, 0.0, nan]}
    split = {"train": list(range(36)), "val": [], "test": [36, 37, 38, 39]}
    data = GraphDataModule(graphs(y=lambda n: torch.tensor([rows[n % 4]])), split=split)
    assert data.class_weights == [3.0, 1.0, 1.0]
    numbers = GraphDataModule(graphs(y=lambda n: torch.tensor([0.5 * n])), split=split)
    with pytest.raises(DataError, match="targets are numbers"):
        _ = numbers.class_weights
