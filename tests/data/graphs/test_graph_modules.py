import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import TUDataset

from graphseq.core import DataError
from graphseq.data import DigitGraphsDataModule, GraphDataModule, TUDataModule, pixel_graphs, shift_images


def graphs(count=30, label=lambda i: i % 3):
    generator = torch.Generator().manual_seed(0)
    out = []
    for i in range(count):
        n = 3 + i % 5
        edge_index = torch.randint(0, n, (2, 2 * n), generator=generator)
        out.append(Data(x=torch.rand(n, 4, generator=generator), edge_index=edge_index, y=torch.tensor([label(i)])))
    return out


def my_graphs():
    return graphs()


class TestGraphDataModule:
    def test_sizes(self):
        data = GraphDataModule(graphs(), split="stratified", batch_size=8)
        assert (data.num_features, data.num_outputs, data.num_edge_features) == (4, 3, 0)
        histogram = torch.tensor(data.degree_histogram)
        nodes = sum(graphs()[i].num_nodes for i in data.splits["train"].tolist())
        edges = sum(graphs()[i].num_edges for i in data.splits["train"].tolist())
        assert int(histogram.sum()) == nodes
        assert int((histogram * torch.arange(len(histogram))).sum()) == edges

    def test_function_and_given_splits(self):
        split = {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6]}
        data = GraphDataModule(my_graphs, split=split)
        assert {name: part.tolist() for name, part in data.splits.items()} == split

    def test_float_targets_count_columns(self):
        given = [Data(x=torch.ones(2, 1), y=torch.rand(1, 5)) for _ in range(10)]
        assert GraphDataModule(given).num_outputs == 5

    @pytest.mark.parametrize(
        ("given", "options", "error", "message"),
        [
            ([], {}, DataError, "empty"),
            (graphs(label=lambda i: 1), {}, DataError, r"24 .*label \[1\]"),
            (graphs(label=lambda i: i - 2), {}, DataError, "labels .*-2.*graph 0"),
            (graphs(), {"fractions": [0.5, 0.1, 0.1]}, ValueError, "sum to 1"),
            (graphs(), {"split": "other"}, ValueError, "split is 'other'"),
            ([Data(x=torch.ones(1, 1)) for _ in range(10)], {"split": "stratified"}, DataError, "integer class"),
            (graphs(), {"split": {"train": [0], "val": [0], "test": [1]}}, DataError, "disjoint"),
        ],
    )
    def test_bad_input(self, given, options, error, message):
        with pytest.raises(error, match=message):
            GraphDataModule(given, **options).load()


class TestDigits:
    def test_pixel_graphs_equal_a_loop_over_pixels(self):
        image = torch.rand(5, 4) * (torch.rand(5, 4) > 0.4)
        (graph,) = pixel_graphs(image.unsqueeze(0), torch.tensor([3]), threshold=0.2)
        inked = [(r, c) for r in range(5) for c in range(4) if image[r, c] > 0.2]
        assert graph.x.flatten().tolist() == [float(image[p]) for p in inked]
        expected = {
            (inked.index(p), inked.index(q), q[0] - p[0], q[1] - p[1])
            for p in inked
            for q in inked
            if p != q and max(abs(p[0] - q[0]), abs(p[1] - q[1])) == 1
        }
        found = [tuple(e) for e in torch.cat([graph.edge_index.t(), graph.edge_attr.long()], 1).tolist()]
        assert len(found) == len(expected)
        assert set(found) == expected
        assert torch.allclose(graph.pos, torch.tensor([(r / 4, c / 3) for r, c in inked]))

    def test_blank_image_is_one_node(self):
        (graph,) = pixel_graphs(torch.zeros(1, 3, 3), torch.tensor([0]))
        assert graph.num_nodes == 1
        assert graph.num_edges == 0

    @pytest.mark.parametrize("shift", ["noise", "intensity", "size", "none"])
    def test_only_the_test_graphs_are_shifted(self, shift):
        clean, shifted = DigitGraphsDataModule(shift="none"), DigitGraphsDataModule(shift=shift, strength=0.5)
        for name in ("train", "val"):
            assert torch.equal(clean.splits[name], shifted.splits[name])
        first = clean.graphs.take(clean.splits["train"][:20])
        assert torch.equal(first.x, shifted.graphs.take(shifted.splits["train"][:20]).x)
        a, b = (data.graphs.take(data.splits["test"]) for data in (clean, shifted))
        assert torch.equal(a.y, b.y)
        same = a.x.shape == b.x.shape and torch.equal(a.x, b.x)
        assert same == (shift == "none")
        again = shifted.graphs.take(shifted.clean_test)
        assert torch.equal(again.x, a.x)
        if shift == "size":
            assert b.num_nodes > 1.5 * a.num_nodes

    def test_shifts(self):
        images = torch.rand(2, 4, 4)
        generator = torch.Generator().manual_seed(0)
        assert torch.allclose(shift_images(images, "intensity", 0.25, generator), 0.75 * images)
        noisy = shift_images(images, "noise", 0.3, generator)
        assert 0 <= noisy.min() <= noisy.max() <= 1
        assert 0.05 < (noisy - images).std() < 0.3

    @pytest.mark.parametrize(
        "options", [{"shift": "blur"}, {"strength": -1.0}, {"shift": "intensity", "strength": 1.0}]
    )
    def test_bad_shift(self, options):
        with pytest.raises(ValueError, match="shift"):
            DigitGraphsDataModule(**options)


def write_set(folder, name="TOY", **replace):
    """A TU data set of three graphs: a triangle, an edge, and an isolated node that comes last."""
    pairs = [(1, 2), (2, 1), (2, 3), (3, 2), (3, 1), (1, 3), (4, 5), (5, 4)]
    files = {
        "A": "".join(f"{a}, {b}\n" for a, b in pairs),
        "graph_indicator": "1\n1\n1\n2\n2\n3\n",
        "graph_labels": "1\n-1\n1\n",
        "node_labels": "0\n1\n0\n1\n1\n2\n",
        **replace,
    }
    raw = folder / "TUDataset" / name / "raw"
    raw.mkdir(parents=True)
    for part, text in files.items():
        if text is not None:
            (raw / f"{name}_{part}.txt").write_text(text)


@pytest.fixture
def toy(tmp_path, monkeypatch, own_cache, no_network):
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(tmp_path))
    split = {"split": "random", "fractions": [1.0, 0.0, 0.0]}
    return tmp_path, split


class TestTU:
    def test_reads_a_written_set(self, toy):
        folder, split = toy
        write_set(folder)
        data = TUDataModule("TOY", seed=1, **split)
        store = data.graphs
        assert store.num_nodes.tolist() == [3, 2, 1]
        assert store[2].edge_index.shape == (2, 0)
        assert store.field("y").tolist() == [1, 0, 1]
        assert store[0].x.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
        assert (data.num_features, data.num_outputs) == (3, 2)

    def test_degrees_where_there_are_no_features(self, toy):
        folder, split = toy
        write_set(folder, node_labels=None)
        assert TUDataModule("TOY", **split).graphs[0].x.tolist() == [[0, 0, 1]] * 3
        constant = TUDataModule("TOY", node_features="constant", **split)
        assert constant.graphs[1].x.tolist() == [[1.0], [1.0]]

    @pytest.mark.parametrize(
        ("replace", "message"),
        [
            ({"node_labels": "0\n1\n"}, "TOY.*truncated"),
            ({"graph_labels": "1\n"}, "TOY.*truncated"),
            ({"A": "1, 2\n2, x\n"}, "TOY.*truncated"),
            ({"A": "1, 2\n2, 1"}, "line of TOY_A.txt"),
            ({"A": "1, 2\n2, 99\n"}, r"TOY.*truncated|edge \[1, 98\]"),
            ({"A": "1, 2\n1, 5\n"}, r"graph 0.*edge \[0, 4\]"),
        ],
    )
    def test_truncated_or_mixed_files(self, toy, replace, message):
        folder, split = toy
        write_set(folder, **replace)
        with pytest.raises(DataError, match=message):
            TUDataModule("TOY", **split).load()

    def test_missing_set_names_mirror_and_address(self, toy):
        with pytest.raises(DataError, match=r"NOWHERE_A\.txt.*GRAPHSEQ_MIRROR.*NOWHERE\.zip"):
            TUDataModule("NOWHERE").load()

    def test_wrong_checksum_of_a_known_set(self, toy):
        folder, split = toy
        write_set(folder, name="MUTAG")
        with pytest.raises(DataError, match="SHA-256"):
            TUDataModule("MUTAG", **split).load()
        assert len(TUDataModule("MUTAG", verify_checksums=False, **split).graphs) == 3

    @pytest.mark.parametrize(
        "options",
        [
            {"split": "other"},
            {"split": "k_fold", "fold": 10},
            {"node_features": "ones"},
            {"max_degree": 0},
            {"fractions": [1]},
        ],
    )
    def test_bad_options(self, options):
        with pytest.raises(ValueError, match=list(options)[-1]):
            TUDataModule("MUTAG", **options)

    @pytest.mark.parametrize(
        ("name", "counts"),
        [  # graphs, classes, node features, edge features
            ("MUTAG", (188, 2, 7, 4)),
            ("PTC_MR", (344, 2, 18, 4)),
            ("PROTEINS", (1113, 2, 3, 0)),
            ("ENZYMES", (600, 6, 3, 0)),
            ("NCI1", (4110, 2, 37, 0)),
            ("IMDB-BINARY", (1000, 2, 136, 0)),
            ("IMDB-MULTI", (1500, 3, 89, 0)),
        ],
    )
    def test_real_sets(self, mirror, name, counts, no_network):
        data = TUDataModule(name, split="k_fold", fold=2)
        assert (len(data.graphs), data.num_outputs, data.num_features, data.num_edge_features) == counts
        assert len(set(torch.cat(list(data.splits.values())).tolist())) == counts[0]

    def test_equals_pyg(self, mirror, tmp_path, no_network):
        import shutil

        shutil.copytree(f"{mirror}/TUDataset/ENZYMES/raw", tmp_path / "ENZYMES" / "raw")
        theirs = TUDataset(str(tmp_path), "ENZYMES", use_node_attr=True)
        store = TUDataModule("ENZYMES", use_node_attr=True).graphs
        for position in (0, 7, 599):
            ours = store[position]
            assert set(ours.keys()) == set(theirs[position].keys())
            assert all(torch.equal(theirs[position][key], ours[key]) for key in theirs[position].keys())  # noqa: SIM118


class Listed(torch.utils.data.Dataset):
    """A data set of torch that refuses no position, so that only its length says where it ends."""

    def __len__(self):
        return 30

    def __getitem__(self, position):
        return graphs()[position % 30]


def test_a_data_set_of_torch_ends_at_its_length():
    assert len(GraphDataModule(Listed()).graphs) == 30


@pytest.mark.parametrize("dataset", [Data(), Batch.from_data_list([Data(num_nodes=1)]), "MUTAG", 5, None])
def test_a_source_that_is_no_set_of_graphs(dataset):
    with pytest.raises(TypeError, match=f"dataset is a {type(dataset).__name__}"):
        GraphDataModule(dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "foo"}, "split is 'foo'"),
        ({"split": "k_fold", "fold": 10}, "fold is 10"),
        ({"num_shots": 2.5}, "2.5"),
    ],
)
def test_options_are_checked_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        GraphDataModule(graphs(), **options)


def test_arrays_and_infinite_targets_are_refused():
    given = graphs()
    given[3].y = torch.tensor([torch.inf])
    for graph in given:
        graph.y = graph.y.float()
    with pytest.raises(DataError, match="y holds 1 infinite .* graph 3"):
        GraphDataModule(given).load()
    for graph in given:
        graph.x = graph.x.numpy()
    with pytest.raises(DataError, match="x of graph 0 is a ndarray"):
        GraphDataModule(given).load()
