import copy
import warnings

import networkx
import pytest
import torch

from graphseq.core.spec import import_path
from graphseq.models import SequenceClassifier
from graphseq.nn import GraphRNN
from graphseq.sparsity import LayeredDAG, RandomDAG
from tests.reference import graph_rnn as reference

CELLS = ["rnn_tanh", "rnn_relu", "gru", "lstm"]
CHAIN = [(0, 1), (1, 2), (2, 3), (0, 2), (0, 3), (1, 4)]  # vertex 4 is a sink of layer 2, vertex 3 of layer 3


def random_structure(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(6, 12, (1,), generator=generator))
    return RandomDAG("erdos_renyi", size, {"p": 0.4}, order="random", seed=seed)


def build(structure, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return GraphRNN(structure, 3, **options).double()


def weights_of(layer):
    return [getattr(layer, name).tolist() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seed", range(20))
def test_equals_the_interpreter_of_vertices_and_edges(seed, cell):
    structure, x = random_structure(seed), torch.randn(1, 3, 3, dtype=torch.float64)
    options = {"recurrent": ["dense", "diagonal", "graph"][seed % 3], "skip": ["cell", "input"][seed % 2]}
    layer = build(structure, cell=cell, readout="all", **options)
    skips = {pair: weights_of(extra) for pair, extra in zip(layer._skips, layer.skip_layers, strict=True)}
    edges = [tuple(edge) for edge in structure.edge_index.T.tolist()]
    own = [weights_of(part) for part in layer.layers]
    expected = reference.network(cell, structure.num_vertices, edges, own, skips, x[0].tolist(), **options)
    y, _ = layer(x)
    for step, values in enumerate(expected):
        found = dict(zip(layer.readout_vertices, y[0, step].tolist(), strict=True))
        assert found == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("skip", ["cell", "input"])
def test_gradients_of_a_step_follow_the_edges(cell, skip):
    """dh_v / dh_u at one step is nonzero only if u reaches v; a first step has no recurrence."""
    structure = random_structure(3)
    layer = build(structure, cell=cell, skip=skip, readout="all")
    graph = structure.to_networkx()
    place = {vertex: column for column, vertex in enumerate(layer.readout_vertices)}
    x = torch.randn(1, 1, 3, dtype=torch.float64)
    for u in range(structure.num_vertices):
        moved = copy.deepcopy(layer)
        target = structure.layer[u]
        row = structure.layers[target].index(u)
        size = len(structure.layers[target])
        with torch.no_grad():
            for gate in range(moved.layers[target].gates):
                moved.layers[target].bias_ih[gate * size + row] += 0.7
        changed = (moved(x)[0] != layer(x)[0])[0, 0]
        allowed = {u, *networkx.descendants(graph, u)}
        assert {v for v in place if changed[place[v]]} <= allowed
        assert changed[place[u]] or cell == "rnn_relu"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("skip", ["cell", "input"])
def test_padding_changes_nothing_and_state_carries_on(cell, skip):
    layer = build(random_structure(5), cell=cell, skip=skip, readout="sinks")
    lengths = torch.tensor([6, 2, 4])
    x = torch.full((3, 6, 3), 1e3, dtype=torch.float64)
    for row, size in enumerate(lengths.tolist()):
        x[row, :size] = torch.randn(size, 3, dtype=torch.float64)
    y, state = layer(x, None, lengths)
    assert torch.allclose(layer.outputs(x, lengths), y, atol=1e-12)
    parts = state if cell == "lstm" else (state,)
    assert parts[0].shape == (3, layer.num_units)
    for row, size in enumerate(lengths.tolist()):
        own, own_state = layer(x[row : row + 1, :size])
        assert torch.allclose(y[row, :size], own[0], atol=1e-12)
        assert (y[row, size:] == 0).all()
        own_parts = own_state if cell == "lstm" else (own_state,)
        assert all(torch.allclose(many[row], one[0], atol=1e-12) for many, one in zip(parts, own_parts, strict=True))
    first, middle = layer(x[:1, :2])
    for given in (None, torch.tensor([4])):
        second, _ = layer(x[:1, 2:], middle, given)
        assert torch.allclose(torch.cat([first, second], 1), layer(x[:1])[0], atol=1e-12)


def test_vertices_that_are_not_read_are_reported_and_get_no_gradient():
    structure = LayeredDAG(5, CHAIN)
    assert structure.layers == [[0], [1], [2, 4], [3]]
    for recurrent, unread in (("diagonal", [4]), ("dense", []), ("graph", [])):  # 2 and 4 share the neighbour 1
        if unread:
            with pytest.warns(UserWarning, match="1 of 5 vertices"):
                layer = GraphRNN(structure, 3, recurrent=recurrent, skip="input").double()
        else:
            layer = build(structure, recurrent=recurrent, skip="input")
        assert layer.unread_vertices == unread
        layer(torch.randn(2, 4, 3, dtype=torch.float64))[0].sum().backward()
        gradient = layer.layers[2].weight_ih.grad.view(3, 2, -1)[:, 1]
        assert (gradient == 0).all() == bool(unread)
    sinks = build(structure, recurrent="diagonal", skip="input", readout="sinks")
    assert (sinks.unread_vertices, sinks.readout_vertices) == ([], [4, 3])
    sinks(torch.randn(2, 4, 3, dtype=torch.float64))[0].sum().backward()
    assert all((part.weight_ih.grad != 0).any(1).all() for part in sinks.layers)


def test_weights_outside_the_edges_stay_zero_and_are_not_counted():
    layer = build(random_structure(1), cell="gru", skip="input", recurrent="graph", readout="sinks")
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 4, 3, dtype=torch.float64))[0].sum().backward()
        optimizer.step()
    masked = [(part.weight_ih, part.mask_ih) for part in layer.layers if part.mask_ih is not None]
    masked += [(part.weight_hh, part.mask_hh) for part in layer.layers]
    assert all((weight[~mask] == 0).all() for weight, mask in masked)
    edges = layer.structure.edge_index.shape[1]
    first = len(layer.structure.layers[0])
    recurrent = sum(int(part.mask_hh.sum()) for part in layer.layers)
    assert layer.num_weights() == 3 * (edges + 3 * first) + recurrent + 6 * layer.structure.num_vertices


def test_checkpoint_holds_the_edges(monkeypatch):
    """The network is rebuilt from its record, by whatever version of networkx, and refuses weights of other edges."""
    layer = GraphRNN(RandomDAG("erdos_renyi", 8, {"p": 0.5}, seed=2), 3, readout="sinks")
    model = SequenceClassifier(2, vocab_size=5, hidden_channels=3, recurrent=layer)
    spec = model._record["init_args"]["recurrent"]["init_args"]["structure"]
    assert spec["class_path"] == "graphseq.sparsity.LayeredDAG"
    again = GraphRNN(import_path(spec["class_path"])(**spec["init_args"]), 3, readout="sinks")
    again.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 3)
    assert torch.equal(again(x)[0], layer(x)[0])
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    assert not torch.equal(layer.layers[0].weight_ih, before["layers.0.weight_ih"])
    first, second = LayeredDAG(4, [(0, 2), (1, 2), (1, 3)]), LayeredDAG(4, [(0, 2), (1, 2), (0, 3)])
    with pytest.raises(RuntimeError, match="layers.1.mask_ih differs"):
        build(second).load_state_dict(build(first).state_dict())


def test_classifier_reads_any_width():
    structure = RandomDAG("barabasi_albert", 12, {"edges": 2}, seed=0)
    layer = GraphRNN(structure, 16, cell="lstm", skip="input", readout="sinks")
    model = SequenceClassifier(2, vocab_size=7, hidden_channels=16, recurrent=layer)
    assert model(torch.randint(7, (3, 9)), torch.tensor([9, 1, 4])).shape == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, "cell is 'elman'"),
        ({"recurrent": "none"}, "recurrent is 'none'"),
        ({"skip": "sum"}, "skip is 'sum'"),
        ({"readout": "first"}, "readout is 'first'"),
        ({"input_size": 0}, "input_size is 0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GraphRNN(LayeredDAG(2, [(0, 1)]), **{"input_size": 3, **options})
    with pytest.warns(UserWarning, match="structure"), pytest.raises(TypeError, match="structure is a Graph"):
        GraphRNN(networkx.path_graph(3), 3)
    with pytest.raises(ValueError, match=r"\(1, 2, 5\)"):
        GraphRNN(LayeredDAG(2, [(0, 1)]), 3)(torch.zeros(1, 2, 5))
