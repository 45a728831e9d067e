"""Few-shot training splits: their sizes, what they never hold, and what is refused."""

import pytest
import torch
from torch_geometric.data import Data

from graphseq.core import DataError
from graphseq.data import GraphDataModule, few_shots

NAN = float("nan")
LABELS = torch.tensor([0, 1, 2] * 10 + [0] * 10)
TRAIN = torch.arange(3, 37)


def test_shots_of_each_class():
    drawn = few_shots(TRAIN, LABELS, 0, shots_per_class=4)
    assert LABELS[drawn].bincount().tolist() == [4, 4, 4]
    assert len(drawn.unique()) == 12
    assert bool(torch.isin(drawn, TRAIN).all())
    assert torch.equal(drawn, few_shots(TRAIN, LABELS, 0, shots_per_class=4))
    assert not torch.equal(drawn, few_shots(TRAIN, LABELS, 1, shots_per_class=4))
    assert bool(torch.isin(few_shots(TRAIN, LABELS, 0, shots_per_class=2), drawn).all())


def test_shots_in_total_are_labelled():
    target = torch.where(torch.arange(40)[:, None] % 2 == 0, torch.nan, (torch.arange(40)[:, None] // 2 % 2).float())
    drawn = few_shots(TRAIN, target, 0, num_shots=10)
    assert len(drawn) == 10
    assert bool((drawn % 2 == 1).all())
    assert bool(torch.isin(few_shots(TRAIN, target, 0, num_shots=6), drawn).all())
    several = torch.tensor([[NAN, 1.0], [NAN, NAN], [0.0, NAN]])
    assert few_shots(torch.arange(3), several, 0, num_shots=2).tolist() == [0, 2]
    assert len(few_shots(TRAIN, torch.rand(40, 1), 0, num_shots=5)) == 5
    binary = few_shots(TRAIN, target, 0, shots_per_class=3)
    assert sorted(target[binary].flatten().tolist()) == [0.0] * 3 + [1.0] * 3


def test_every_sample_is_drawn_as_often():
    counts = torch.zeros(40)
    for seed in range(2000):
        counts[few_shots(TRAIN, torch.rand(40, 2), seed, num_shots=17)] += 1
    share = counts[TRAIN] / 2000
    assert (share - 0.5).abs().max() < 4.5 * (0.25 / 2000) ** 0.5


def test_refusals():
    with pytest.raises(ValueError, match="num_shots is None and shots_per_class is None"):
        few_shots(TRAIN, LABELS, 0)
    with pytest.raises(ValueError, match="num_shots is 0"):
        few_shots(TRAIN, LABELS, 0, num_shots=0)
    with pytest.raises(DataError, match="class 3 has no training sample"):
        few_shots(TRAIN, torch.cat([LABELS, torch.tensor([3])]), 0, shots_per_class=1)
    with pytest.raises(DataError, match="class 1 has 9 labelled training samples"):
        few_shots(TRAIN, LABELS, 0, shots_per_class=12)
    with pytest.raises(DataError, match="class .* has none of the 2 shots"):
        few_shots(TRAIN, LABELS, 0, num_shots=2)
    with pytest.raises(DataError, match="0 of 34 training samples have a known label"):
        few_shots(TRAIN, torch.full((40, 2), NAN), 0, num_shots=1)
    with pytest.raises(DataError, match="2 targets"):
        few_shots(TRAIN, torch.ones(40, 2), 0, shots_per_class=1)


def graphs(labels):
    return [Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=label) for label in labels]


def test_data_module_trains_on_shots_alone():
    labels = [torch.tensor([position % 2]) for position in range(40)]
    everything = GraphDataModule(graphs(labels), seed=3)
    few = GraphDataModule(graphs(labels), seed=3, shots_per_class=5)
    assert few.graphs.take(few.splits["train"]).y.bincount().tolist() == [5, 5]
    assert bool(torch.isin(few.splits["train"], everything.splits["train"]).all())
    for name in ("val", "test"):
        assert torch.equal(few.splits[name], everything.splits[name])
    assert sum(batch.num_graphs for batch in few.train_dataloader()) == 10
    some = GraphDataModule(graphs([torch.tensor([[float(i % 2), NAN]]) for i in range(40)]), num_shots=7)
    assert len(some.splits["train"]) == 7
    with pytest.raises(ValueError, match="num_shots is 1 and shots_per_class is 1"):
        GraphDataModule(graphs(labels), num_shots=1, shots_per_class=1)
    with pytest.raises(ValueError, match="shots_per_class is 0"):
        GraphDataModule(graphs(labels), shots_per_class=0)
    with pytest.raises(DataError, match="each node has a label"):
        GraphDataModule(graphs([torch.tensor([0, 1])] * 20), num_shots=4).load()
