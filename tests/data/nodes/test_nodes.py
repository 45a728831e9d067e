import io
import pickle
import urllib.request
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from torch_geometric.data import Data
from torch_geometric.datasets import Actor, Planetoid
from torch_geometric.nn import GCN

from graphseq.core import DataError, UnsupportedStrategyError, make
from graphseq.data import ActorDataModule, NodeDataModule, PlanetoidDataModule
from graphseq.tasks import NodeClassification

PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
STAGES = ("train", "val", "test")


@pytest.fixture(autouse=True)
def _isolated(own_cache, no_network):
    """No test meets the cache of another, nor the network."""


@pytest.fixture
def own_mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(folder))
    return folder


def graph_of(count=60, num_classes=3, **fields):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(count) % num_classes
    edge_index = torch.randint(count, (2, 4 * count), generator=generator)
    return Data(x=torch.rand(count, 5, generator=generator), edge_index=edge_index, y=y, **fields)


def with_masks(count=60, num_splits=None, **fields):
    part = torch.arange(count) // (count // 4)
    masks = {"train_mask": part == 0, "val_mask": part == 1, "test_mask": part == 2}
    if num_splits:
        masks = {n: torch.stack([m.roll(s) for s in range(num_splits)], 1) for n, m in masks.items()}
    return graph_of(count, **masks, **fields)


def masks_of(data):
    return {stage: data.graph[f"{stage}_mask"] for stage in STAGES}


# one graph of your own


def test_batches_are_the_graph_itself():
    graph = with_masks()
    data = NodeDataModule(graph)
    for stage in STAGES:
        assert len(data.loader(stage)) == 1
        batches = list(data.batches(stage))
        assert len(batches) == 1
        assert batches[0] is data.graph
    assert all(torch.equal(index, torch.tensor([0])) for index in data.splits.values())
    for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(data.graph[name], graph[name])
    assert (data.num_nodes, data.num_features, data.num_edge_features, data.num_outputs) == (60, 5, 0, 3)


def test_degree_histogram_counts_incoming_edges():
    data = NodeDataModule(with_masks())
    arriving = data.graph.edge_index[1].tolist()
    counts = [arriving.count(node) for node in range(60)]
    assert data.degree_histogram == [counts.count(degree) for degree in range(max(counts) + 1)]


def test_the_given_graph_is_not_changed():
    graph = with_masks(num_splits=3)
    graph.y = graph.y.unsqueeze(1)
    before = {name: value.clone() for name, value in graph.to_dict().items()}
    data = NodeDataModule(graph, split="random", num_train_per_class=2, num_val=3, num_test=4, normalize_features=True)
    assert data.graph.y.shape == (60,)
    assert set(graph.keys()) == set(before)
    assert all(torch.equal(graph[name], value) for name, value in before.items())


def test_a_function_can_give_the_graph():
    calls = []

    def make():
        calls.append(1)
        return with_masks()

    data = NodeDataModule(make)
    assert not calls
    assert data.num_nodes == data.num_nodes == 60
    assert len(calls) == 1


def test_one_of_several_public_splits():
    graph = with_masks(num_splits=3)
    data = NodeDataModule(graph, split_index=2)
    assert all(torch.equal(mask, graph[f"{stage}_mask"][:, 2]) for stage, mask in masks_of(data).items())
    with pytest.raises(DataError, match="split_index is 3, train_mask .* 3"):
        NodeDataModule(graph, split_index=3).load()
    with pytest.raises(DataError, match="split_index is 1, .*train_mask"):
        NodeDataModule(with_masks(), split_index=1).load()


def test_full_split_trains_on_all_other_labelled_nodes():
    graph = with_masks()
    graph.y[-5:] = -1
    masks = masks_of(NodeDataModule(graph, split="full"))
    assert torch.equal(masks["val"], graph.val_mask)
    assert torch.equal(masks["test"], graph.test_mask)
    expected = [not bool(graph.val_mask[n] | graph.test_mask[n]) and int(graph.y[n]) >= 0 for n in range(60)]
    assert masks["train"].tolist() == expected


@given(
    st.lists(st.integers(-1, 3), min_size=20, max_size=80),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_random_split_has_the_asked_sizes(labels, per_class, seed):
    count = len(labels)
    known = [labels.count(label) for label in range(4)]
    trained = [min(per_class, number) for number in known]
    num_val = (sum(known) - sum(trained)) // 3
    num_test = sum(known) - sum(trained) - num_val
    if sum(number > 0 for number in known) < 2:
        return
    graph = Data(x=torch.ones(count, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64), y=torch.tensor(labels))
    data = NodeDataModule(
        graph, split="random", num_train_per_class=per_class, num_val=num_val, num_test=num_test, seed=seed
    )
    masks = masks_of(data)
    picked = [graph.y[masks["train"]].tolist().count(label) for label in range(4)]
    assert picked == trained
    assert [int(mask.sum()) for mask in masks.values()] == [sum(trained), num_val, num_test]
    together = sum(mask.long() for mask in masks.values())
    assert torch.equal(together, (graph.y >= 0).long())  # disjoint, and no node without a class


def test_random_split_depends_on_the_seed_alone():
    options = {"split": "random", "num_train_per_class": 4, "num_val": 10, "num_test": 20}
    first, same, other = (NodeDataModule(graph_of(), seed=seed, **options) for seed in (0, 0, 1))
    assert all(torch.equal(masks_of(first)[stage], masks_of(same)[stage]) for stage in STAGES)
    assert not torch.equal(masks_of(first)["train"], masks_of(other)["train"])
    with pytest.raises(DataError, match="60 .* 12 .* 48 "):
        NodeDataModule(graph_of(), split="random", num_train_per_class=4, num_val=30, num_test=20).load()


def test_stratified_split_keeps_the_shares():
    graph = graph_of(100, 2)
    graph.y = (torch.arange(100) % 5 == 0).long()
    graph.y[:10] = -1
    masks = masks_of(NodeDataModule(graph, split="stratified", fractions=(0.5, 0.25, 0.25)))
    assert [int(mask.sum()) for mask in masks.values()] == [45, 22, 23]
    assert not any(mask[:10].any() for mask in masks.values())
    for mask in masks.values():
        assert float(graph.y[mask].float().mean()) == pytest.approx(0.2, abs=0.03)


def test_normalized_features_sum_to_one():
    graph = with_masks()
    graph.x = torch.randint(0, 4, (60, 5))
    graph.x[:, 0] += 1
    graph.x[3, 1] = 0
    x = NodeDataModule(graph, normalize_features=True).graph.x
    for row, given_row in zip(x.tolist(), graph.x.tolist(), strict=True):
        assert row == pytest.approx([value / sum(given_row) for value in given_row])


def test_numbers_as_targets():
    graph = with_masks()
    graph.y = torch.rand(60, 2)
    assert NodeDataModule(graph).num_outputs == 2
    graph.y = torch.rand(60)
    assert NodeDataModule(graph).num_outputs == 1
    with pytest.raises(DataError, match="integer class.* y;"):
        NodeDataModule(graph, split="random").load()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", None, "x is a NoneType"),
        ("x", torch.rand(60), "node features"),
        ("x", torch.rand(60, 5).to_sparse(), "dense node features"),
        ("x", torch.full((60, 5), float("nan")), "x holds 300 NaN.*node 0"),
        ("edge_weight", torch.tensor([1.0, float("inf")]), "edge_weight holds 1 .* edge 1"),
        ("edge_index", torch.rand(2, 3), r"edge_index is torch\.float32"),
        ("edge_index", torch.zeros(3, 2, dtype=torch.int64), r"edge_index is torch\.int64 \(3, 2\)"),
        ("edge_index", torch.tensor([[0], [60]]), "edge_index .* 0 to 60; .* 60 nodes"),
        ("edge_index", torch.tensor([[-1], [0]]), "edge_index .* -1 "),
        ("y", None, "y is .* 60 nodes"),
        ("y", torch.zeros(59, dtype=torch.int64), "y is .* 60 nodes"),
        ("y", torch.zeros(60, dtype=torch.int64), "training nodes .*one label"),
        ("y", torch.arange(60) - 1, "node 0 .*label -1"),
        ("train_mask", None, "no train_mask"),
        ("val_mask", torch.ones(59, dtype=torch.bool), r"val_mask.*torch.bool \(59,\)"),
        ("val_mask", torch.arange(60), "val_mask is torch.int64"),
        ("train_mask", torch.zeros(60, dtype=torch.bool), "no node trains"),
        ("test_mask", torch.arange(60) == 3, "1 nodes.*train_mask and test_mask.*node 3"),
    ],
)
def test_graphs_that_cannot_be_used(field, value, message):
    graph = with_masks()
    graph[field] = value
    with pytest.raises(DataError, match=message):
        NodeDataModule(graph).load()


def test_something_that_is_no_graph():
    with pytest.raises(DataError, match="graph is a list"):
        NodeDataModule(lambda: [with_masks()]).load()


@pytest.mark.parametrize(
    "options",
    [
        {"split": "public-ish"},
        {"split_index": -1},
        {"num_train_per_class": 0},
        {"num_val": -1},
        {"num_test": -1},
        {"fractions": (0.5, 0.5)},
        {"device_resident": "sometimes"},
    ],
)
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NodeDataModule(graph_of(), **options)


def test_fingerprint_depends_on_masks_and_labels():
    first = NodeDataModule(with_masks())
    assert NodeDataModule(with_masks()).fingerprint() == first.fingerprint()
    moved = with_masks()
    moved.test_mask = moved.test_mask.roll(1)
    assert NodeDataModule(moved).fingerprint() != first.fingerprint()
    renamed = with_masks()
    renamed.y = renamed.y.roll(1)
    assert NodeDataModule(renamed).fingerprint() != first.fingerprint()
    with pytest.warns(UserWarning, match="'train': 15.*other samples"):
        first.load_state_dict(NodeDataModule(moved).state_dict())


def test_a_stage_without_nodes_has_no_loop():
    graph = with_masks()
    graph.val_mask[:] = False
    data = NodeDataModule(graph)
    assert data.val_dataloader() == []
    assert len(data.train_dataloader()) == len(data.test_dataloader()) == 1


def test_several_processes_are_refused():
    data = NodeDataModule(with_masks())

    class Two:
        world_size, global_rank = 2, 0

    data.trainer = Two()
    with pytest.raises(UnsupportedStrategyError, match="2 processes.*devices=1"):
        data.train_dataloader()


def test_training_resumes_and_leaves_the_graph_as_it_was(tmp_path):
    data = NodeDataModule(with_masks())
    before = {name: value.clone() for name, value in data.graph.to_dict().items()}
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def fit(epochs, path=None):
        torch.manual_seed(0)
        task = NodeClassification(make(GCN, data.num_features, 8, 2, data.num_outputs), data.num_outputs)
        trainer = Trainer(max_epochs=epochs, default_root_dir=tmp_path, enable_checkpointing=False, **options)
        trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
        assert trainer.global_step == epochs
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return trainer, task

    fit(2)
    trainer, task = fit(4, tmp_path / "2.ckpt")
    _, whole = fit(4)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), whole.parameters(), strict=True))
    metrics = trainer.test(task, datamodule=data, verbose=False)[0]
    with torch.no_grad():
        logits = task.model(data.graph.x, data.graph.edge_index)
    right = [int(row.argmax() == label) for row, label in zip(logits[30:45], data.graph.y[30:45], strict=True)]
    assert metrics["test/acc"] == pytest.approx(sum(right) / 15)
    assert all(torch.equal(data.graph[name], value) for name, value in before.items())
    other = NodeDataModule(graph_of(), split="stratified")
    with pytest.raises(DataError, match="'train': 15.*; resume"):
        Trainer(max_epochs=4, default_root_dir=tmp_path, enable_checkpointing=False, **options).fit(
            task, datamodule=other, ckpt_path=tmp_path / "2.ckpt", weights_only=True
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_graph_lives_on_the_device(tmp_path):
    data = NodeDataModule(with_masks())
    task = NodeClassification(make(GCN, data.num_features, 8, 2, data.num_outputs), data.num_outputs)
    Trainer(accelerator="gpu", devices=1, fast_dev_run=True, default_root_dir=tmp_path).fit(task, datamodule=data)
    assert data.graph.x.device.type == "cpu"  # given back


# citation graphs from raw files


def write_planetoid(folder, name="cora", num_train=14, num_all=540, num_test=20, width=6):
    """Raw files of a small graph; one test node has no features of its own, as in CiteSeer."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    allx = scipy.sparse.csr_matrix((rng.random((num_all, width)) < 0.5).astype(np.float32))
    tx = scipy.sparse.csr_matrix((rng.random((num_test, width)) < 0.5).astype(np.float32))
    one_hot = np.eye(7, dtype=np.int32)
    ally, ty = one_hot[np.arange(num_all) % 7], one_hot[np.arange(num_test) % 7]
    links = defaultdict(list)
    for first, second in rng.integers(0, num_all + num_test, (900, 2)).tolist():
        links[first].append(second)
        links[second].append(first)
    test_index = num_all + rng.permutation(num_test)
    parts = {"x": allx[:num_train], "tx": tx, "allx": allx, "y": ally[:num_train], "ty": ty, "ally": ally}
    for part, value in {**parts, "graph": links}.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(value, protocol=2))
    (folder / f"ind.{name}.test.index").write_text("\n".join(map(str, test_index)) + "\n")
    return links, allx.toarray(), tx.toarray(), test_index


@pytest.fixture
def small_cora(own_mirror):
    return own_mirror / "Planetoid/Cora/raw", write_planetoid(own_mirror / "Planetoid/Cora/raw")


UNVERIFIED = pytest.mark.filterwarnings("ignore:the raw files of .* are opened unverified")


@UNVERIFIED
def test_planetoid_from_raw_files(small_cora):
    links, allx, tx, test_index = small_cora[1]
    data = PlanetoidDataModule("Cora", verify_checksums=False, normalize_features=False)
    edges = {(a, b) for a, others in links.items() for b in others if a != b}
    assert set(map(tuple, data.graph.edge_index.t().tolist())) == edges
    assert data.graph.num_edges == len(edges)
    assert data.graph.is_undirected()
    assert (data.num_nodes, data.num_features, data.num_outputs) == (560, 6, 7)
    assert [int(mask.sum()) for mask in masks_of(data).values()] == [14, 500, 20]
    assert data.graph.x[:540].tolist() == allx.tolist()
    for row, node in enumerate(test_index.tolist()):  # the files list test nodes in another order
        assert data.graph.x[node].tolist() == tx[row].tolist()
        assert int(data.graph.y[node]) == row % 7


@UNVERIFIED
@pytest.mark.parametrize("part", ["x", "allx", "graph", "test.index"])
@pytest.mark.parametrize("keep", [0, 1, 40])
def test_truncated_raw_files(small_cora, part, keep):
    path = small_cora[0] / f"ind.cora.{part}"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"files of Cora .*truncated"):
        PlanetoidDataModule("Cora", verify_checksums=False).load()


@UNVERIFIED
def test_raw_files_of_different_versions(small_cora):
    write_planetoid(small_cora[0] / "other", num_all=530, width=8)
    (small_cora[0] / "other/ind.cora.allx").replace(small_cora[0] / "ind.cora.allx")
    with pytest.raises(DataError, match="of different versions"):
        PlanetoidDataModule("Cora", verify_checksums=False).load()


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.mkdir, (Path(self.path),)


@pytest.mark.parametrize("part", PARTS[:-1])
def test_no_pickle_is_opened_before_all_checksums_fit(small_cora, tmp_path, part):
    trap = tmp_path / "sprung"
    (small_cora[0] / f"ind.cora.{part}").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DataError, match="SHA-256"):
        PlanetoidDataModule("Cora").load()
    assert not trap.exists()


def test_a_cached_pickle_is_verified_again(small_cora, own_cache, tmp_path):
    trap = tmp_path / "sprung"
    cached = own_cache / "raw/Planetoid/Cora/raw"
    cached.mkdir(parents=True)
    for part in PARTS:
        (cached / f"ind.cora.{part}").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DataError, match="SHA-256"):
        PlanetoidDataModule("Cora").load()
    assert not trap.exists()


def test_a_download_is_verified_before_it_is_opened(monkeypatch, tmp_path):
    trap = tmp_path / "sprung"
    monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
    asked = []

    def reply(address, timeout):
        asked.append(address)
        return io.BytesIO(pickle.dumps(Trap(trap)))

    monkeypatch.setattr(urllib.request, "urlopen", reply)
    with pytest.raises(DataError, match="SHA-256"):
        PlanetoidDataModule("PubMed").load()
    assert asked == [f"{Planetoid.url}/ind.pubmed.x"]
    assert not trap.exists()


def test_opening_unverified_pickles_warns(small_cora):
    with pytest.warns(UserWarning, match="Cora .*pickles"):
        PlanetoidDataModule("Cora", verify_checksums=False).load()


@pytest.mark.parametrize("with_mirror", [True, False])
def test_raw_files_that_are_nowhere(own_mirror, monkeypatch, with_mirror):
    if not with_mirror:
        monkeypatch.delenv("GRAPHSEQ_MIRROR")
    with pytest.raises(DataError) as caught:
        PlanetoidDataModule("CiteSeer").load()
    looked = str(own_mirror / "Planetoid/CiteSeer/raw") if with_mirror else "GRAPHSEQ_MIRROR is not set"
    for part in ("ind.citeseer.allx", looked, f"{Planetoid.url}/ind.citeseer.x", "no network in this test"):
        assert part in str(caught.value)


def test_the_filters_of_warnings_stay(small_cora):
    import warnings

    before = list(warnings.filters)
    with pytest.warns(UserWarning, match="pickles"):
        PlanetoidDataModule("Cora", verify_checksums=False).load()
    assert warnings.filters == before


@pytest.mark.parametrize(("name", "split"), [("Karate", "public"), ("Cora", "stratified"), ("cora", "public")])
def test_wrong_names_and_splits(name, split):
    wrong = name if name != "Cora" else split
    with pytest.raises(ValueError, match=f"is '{wrong}'"):
        PlanetoidDataModule(name, split=split)


# Actor from raw files


def write_actor(folder, count=40):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    features = [sorted(rng.choice(12, rng.integers(1, 5), replace=False).tolist()) for _ in range(count)]
    features[0] = [11]
    lines = [f"{n}\t{','.join(map(str, features[n]))}\t{n % 5}" for n in rng.permutation(count).tolist()]
    (folder / "out1_node_feature_label.txt").write_text("\n".join(["node_id\tfeature\tlabel", *lines]) + "\n")
    pairs = rng.integers(0, count, (150, 2)).tolist()
    pairs += pairs[:20]  # doubled edges
    text = "\n".join(["node_id\tnode_id", *(f"{a}\t{b}" for a, b in pairs)])
    (folder / "out1_graph_edges.txt").write_text(text + "\n")
    masks = []
    for number in range(10):
        part = np.random.default_rng(number).permutation(count) % 4
        masks.append({"train_mask": (part < 2), "val_mask": part == 2, "test_mask": part == 3})
        arrays = {name: mask.astype(np.uint8) for name, mask in masks[-1].items()}
        np.savez(folder / f"film_split_0.6_0.2_{number}.npz", **arrays)
    return features, pairs, masks


@pytest.fixture
def small_actor(own_mirror):
    return own_mirror / "Actor/raw", write_actor(own_mirror / "Actor/raw")


def test_actor_from_raw_files(small_actor):
    features, pairs, masks = small_actor[1]
    for number in (0, 7):
        data = ActorDataModule(number, verify_checksums=False)
        graph = data.graph
        assert [row.nonzero().flatten().tolist() for row in graph.x] == features
        assert set(graph.x.unique().tolist()) == {0.0, 1.0}
        assert graph.edge_index.t().tolist() == sorted(map(list, {tuple(pair) for pair in pairs}))
        assert graph.y.tolist() == [node % 5 for node in range(40)]
        for stage, mask in masks_of(data).items():
            assert mask.dtype == torch.bool
            assert mask.tolist() == masks[number][f"{stage}_mask"].tolist()
        assert (data.num_nodes, data.num_features, data.num_outputs) == (40, 12, 5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out1_graph_edges.txt", b"node_id\tnode_id\n0\t40\n"),
        ("out1_graph_edges.txt", b"node_id\tnode_id\n0\t1\n2"),
        ("out1_graph_edges.txt", b"node_id\tnode_id\n0\tone\n"),
        ("out1_graph_edges.txt", b"node_id\tnode_id\n0\t1\n# 1\t0\n"),
        ("out1_graph_edges.txt", b"node_id\tnode_id\n0\t1 # 2\n"),
        ("out1_graph_edges.txt", b"node_id\tnode_id\n-1\t1\n"),
        ("out1_graph_edges.txt", b"\xff\xfe\x00"),
        ("out1_node_feature_label.txt", b"a\tb\tc\n0\t1,2\t3\n2\t1\t0\n"),
        ("out1_node_feature_label.txt", b"a\tb\tc\n0\t1,2\t3\n1\t1"),
        ("out1_node_feature_label.txt", b"a\tb\tc\n0\t1,\t3\n"),
        ("out1_node_feature_label.txt", b"a\tb\tc\n0\t-1\t3\n"),
        ("out1_node_feature_label.txt", b"a\tb\tc\n"),
        ("film_split_0.6_0.2_4.npz", b"PK\x03\x04 cut off"),
        ("film_split_0.6_0.2_4.npz", b""),
        ("film_split_0.6_0.2_4.npz", pickle.dumps([1])),
    ],
)
def test_damaged_actor_files(small_actor, name, content):
    (small_actor[0] / name).write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        ActorDataModule().load()
    with pytest.raises(DataError, match="files of Actor"):
        ActorDataModule(verify_checksums=False).load()


def test_actor_masks_of_another_graph(small_actor):
    write_actor(small_actor[0] / "other", count=30)
    for path in (small_actor[0] / "other").glob("*.npz"):
        path.replace(small_actor[0] / path.name)
    with pytest.raises(DataError, match=r"train_mask.*torch.bool \(30,\)"):
        ActorDataModule(verify_checksums=False).load()


def test_actor_that_is_nowhere(own_mirror):
    with pytest.raises(DataError) as caught:
        ActorDataModule().load()
    assert f"{Actor.url}/new_data/film/out1_node_feature_label.txt" in str(caught.value)
    assert f"{Actor.url}/splits/film_split_0.6_0.2_9.npz" in str(caught.value) or "no network" in str(caught.value)


@pytest.mark.parametrize("split_index", [-1, 10])
def test_actor_has_ten_splits(split_index):
    with pytest.raises(ValueError, match="splits 0 to 9"):
        ActorDataModule(split_index)


# the published graphs


def copied(mirror, dataset, target):
    target.mkdir(parents=True)
    for path in Path(mirror, dataset).glob("raw/*"):
        (target / path.name).write_bytes(path.read_bytes())


def same(mine, theirs):
    assert set(mine.keys()) == set(theirs.keys())
    for name in theirs.keys():  # noqa: SIM118
        assert torch.equal(mine[name], theirs[name]), name


PUBLISHED = {  # nodes, directed edges, features, nodes of each class
    "Cora": (2708, 10556, 1433, [351, 217, 418, 818, 426, 298, 180]),
    "CiteSeer": (3327, 9104, 3703, [264, 590, 668, 701, 596, 508]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_citation_graphs(name, mirror, tmp_path):
    data = PlanetoidDataModule(name, normalize_features=False)
    nodes, edges, features, classes = PUBLISHED[name]
    assert (data.num_nodes, data.graph.num_edges, data.num_features) == (nodes, edges, features)
    assert data.graph.y.bincount().tolist() == classes
    assert data.num_outputs == len(classes)
    assert data.graph.is_undirected()
    assert [int(mask.sum()) for mask in masks_of(data).values()] == [20 * len(classes), 500, 1000]
    copied(mirror, f"Planetoid/{name}", tmp_path / "root" / name / "raw")
    same(data.graph, Planetoid(str(tmp_path / "root"), name)[0])
    same(
        PlanetoidDataModule(name, split="full", normalize_features=False).graph,
        Planetoid(str(tmp_path / "root"), name, split="full")[0],
    )
    random = masks_of(PlanetoidDataModule(name, split="random"))
    assert [int(mask.sum()) for mask in random.values()] == [20 * len(classes), 500, 1000]
    assert data.graph.y[random["train"]].bincount().tolist() == [20] * len(classes)
    rows = PlanetoidDataModule(name).graph.x.sum(1)
    assert torch.allclose(rows[data.graph.x.sum(1) > 0], torch.ones(1))


def test_published_actor(mirror, tmp_path):
    copied(mirror, "Actor", tmp_path / "root" / "raw")
    theirs = Actor(str(tmp_path / "root"))[0]
    for number in (0, 9):
        data = ActorDataModule(number)
        assert (data.num_nodes, data.graph.num_edges, data.num_features, data.num_outputs) == (7600, 30019, 932, 5)
        assert data.graph.y.bincount().tolist() == [853, 1337, 1630, 1815, 1965]
        assert [int(mask.sum()) for mask in masks_of(data).values()] == [3648, 2432, 1520]
        for name in ("x", "edge_index", "y"):
            assert torch.equal(data.graph[name], theirs[name])
        for stage, mask in masks_of(data).items():
            assert torch.equal(mask, theirs[f"{stage}_mask"][:, number])


def test_a_damaged_published_file_is_refused(mirror, own_mirror):
    copied(mirror, "Planetoid/Cora", own_mirror / "Planetoid/Cora/raw")
    PlanetoidDataModule("Cora").load()
    path = own_mirror.parent / "cache/raw/Planetoid/Cora/raw/ind.cora.tx"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # one bit
    path.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        PlanetoidDataModule("Cora").load()


# transforms of the graph, once


def test_a_transform_is_applied_once_to_a_copy_before_the_masks():
    graph = graph_of()
    before = graph.x.clone()

    def grow(given):
        given.x *= 2
        return T.LargestConnectedComponents()(T.Constant(1.0)(given))

    data = NodeDataModule(graph, split="stratified", pre_transform=grow)
    assert torch.equal(graph.x, before)
    assert data.num_features == 6
    assert len(data.graph.train_mask) == data.num_nodes == T.LargestConnectedComponents()(graph).num_nodes
    assert float(data.graph.x[:, :5].max()) == float(2 * before.max())
    batch = next(data.batches("train"))
    assert torch.equal(batch.x, data.graph.x)
    masks = NodeDataModule(graph_of(), pre_transform=T.RandomNodeSplit(num_val=5, num_test=7), seed=3)
    assert (int(masks.graph.val_mask.sum()), int(masks.graph.test_mask.sum())) == (5, 7)
    same = NodeDataModule(graph_of(), pre_transform=T.RandomNodeSplit(num_val=5, num_test=7), seed=3)
    assert torch.equal(same.graph.val_mask, masks.graph.val_mask)
    with pytest.raises(DataError, match="pre_transform .*tuple"):
        NodeDataModule(graph_of(), split="stratified", pre_transform=T.RandomLinkSplit()).load()
    with pytest.raises(TypeError, match="pre_transform"):
        NodeDataModule(graph_of(), pre_transform="Constant")


def test_published_graphs_take_a_transform():
    assert isinstance(PlanetoidDataModule("Cora", pre_transform=T.ToUndirected()).pre_transform, T.ToUndirected)
    assert isinstance(ActorDataModule(pre_transform=T.ToUndirected()).pre_transform, T.ToUndirected)


@pytest.mark.parametrize("source", ["Cora", [Data()], None])
def test_a_source_that_is_no_graph(source):
    with pytest.raises(TypeError, match=f"graph is a {type(source).__name__}; .*dataset.0."):
        NodeDataModule(source)


def test_several_labels_of_each_node_are_as_many_outputs():
    graph = with_masks()
    graph.y = torch.ones(60, 5, dtype=torch.int64)
    for name in ("train_mask", "val_mask", "test_mask"):
        graph[name] = graph[name].numpy()
    assert NodeDataModule(graph).num_outputs == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edge_weight": torch.ones(2)}, "edge_weight is .*2,"),
        ({"edge_attr": torch.ones(2, 3)}, "edge_attr is .*2, 3"),
        ({"y": torch.full((60,), torch.inf)}, "y of node 0 is infinite"),
        ({"train_mask": [True] * 60}, "train_mask is a list"),
    ],
)
def test_fields_of_another_length_or_kind(fields, message):
    graph = with_masks()
    for name, value in fields.items():
        graph[name] = value
    with pytest.raises(DataError, match=message):
        NodeDataModule(graph).load()
