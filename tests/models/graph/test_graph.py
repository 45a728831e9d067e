import copy
import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GATConv, GENConv, GraphConv, SAGEConv

from graphseq.core import DataError, apply_model
from graphseq.models import EncoderClassifier, GraphClassifier, GraphEncoder, NodeClassifier
from graphseq.nn import VirtualNode
from tests.reference import graph as reference

CONVOLUTIONS = {
    "gin": {},
    "gine": {"edge_channels": 2},
    "gcn": {},
    "sage": {},
    "gat": {"heads": 2},
    "pna": {"degree_histogram": [2, 3, 4, 1]},
}


def graphs(seed=0, sizes=(4, 1, 5), edges=2, features=3, edge_features=2):
    """Random directed graphs with self-loops, repeated edges and isolated nodes, as PyG makes them."""
    generator = torch.Generator().manual_seed(seed)
    data = []
    for size in sizes:
        count = edges * size if size > 1 else 0
        data.append(
            Data(
                x=torch.randn(size, features, generator=generator, dtype=torch.float64),
                edge_index=torch.randint(max(size - 1, 1), (2, count), generator=generator),  # the last has none
                edge_attr=torch.randn(count, edge_features, generator=generator, dtype=torch.float64),
            )
        )
    return data


def one_batch(data):
    return next(iter(DataLoader(data, batch_size=len(data))))


def settled(module, seed=0):
    """In float64, with parameters and statistics that nothing hides behind (no zero bias, no unit variance)."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for name, value in itertools.chain(module.named_parameters(), module.named_buffers()):
        if value.is_floating_point() and "avg_deg" not in name:
            with torch.no_grad():
                positive = name.endswith("running_var")
                value.copy_(
                    torch.rand(value.shape, generator=generator, dtype=torch.float64) + (0.5 if positive else -0.5)
                )
    return module


def norm_arguments(norm, training):
    norm = getattr(norm, "module", norm)
    arguments = [norm.weight, norm.bias]
    return arguments if training else [*arguments, norm.running_mean, norm.running_var]


def convolution_by_loops(conv, rows, edge_index, edge_attr, training):
    kind = type(conv).__name__
    if kind in ("GINConv", "GINEConv"):
        if kind == "GINConv":
            summed = reference.gin_sum(rows, edge_index, conv.eps)
        else:
            edge_rows = reference.linear(list(edge_attr), conv.lin.weight, conv.lin.bias)
            summed = reference.gine_sum(rows, edge_index, edge_rows, conv.eps)
        first, norm, _, second = conv.nn
        return reference.gin_mlp(
            summed, (first.weight, first.bias), norm_arguments(norm, training), (second.weight, second.bias)
        )
    if kind == "GCNConv":
        return reference.gcn(rows, edge_index, conv.lin.weight, conv.bias)
    if kind == "SAGEConv":
        return reference.sage(rows, edge_index, conv.lin_l.weight, conv.lin_l.bias, conv.lin_r.weight)
    edges = () if conv.lin_edge is None else (list(edge_attr), conv.lin_edge.weight, conv.att_edge[0])
    return reference.gat(rows, edge_index, conv.lin.weight, conv.att_src[0], conv.att_dst[0], conv.bias, *edges)


def encode_by_loops(encoder, x, batch, training):
    rows, layers, owners = list(x), [], batch.batch.tolist()
    if encoder.input.linear is not None:
        rows = reference.linear(rows, encoder.input.linear.weight, encoder.input.linear.bias)
    virtual = encoder.virtual_node
    states = None if virtual is None else [virtual.start] * batch.num_graphs
    for layer, (conv, norm) in enumerate(zip(encoder.convs, encoder.norms, strict=True)):
        if virtual is not None:
            rows = [row + states[owner] for row, owner in zip(rows, owners, strict=True)]
        new = convolution_by_loops(conv, rows, batch.edge_index, batch.edge_attr, training)
        if isinstance(norm, nn.LayerNorm):
            new = reference.layer_norm(new, norm.weight, norm.bias)
        elif not isinstance(norm, nn.Identity):
            new = reference.batch_norm(new, *norm_arguments(norm, training))
        new = reference.relu(new)
        if virtual is not None and layer < len(virtual.updates):
            update = virtual.updates[layer]
            stages = [((m.weight, m.bias), norm_arguments(n, training)) for m, n in [update[0:2], update[3:5]]]
            states = reference.virtual_update(states, rows, owners, stages)
        if encoder.residual and len(rows[0]) == len(new[0]):
            new = [row + change for row, change in zip(rows, new, strict=True)]
        rows = new
        layers.append(rows)
    if encoder.jump is not None:
        stacks = zip(*layers, strict=True)
        join = torch.cat if encoder.jump.mode == "cat" else lambda stack: torch.stack(stack).max(dim=0).values
        rows = [join(list(stack)) for stack in stacks]
    return torch.stack(reference.pool(rows, owners, batch.num_graphs, encoder.pool.mode)), torch.stack(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"conv": "gin", "norm": "none", "train_eps": True},
        {"conv": "gin", "norm": "batch", "training": True, "pool": "sum", "virtual_node": True},
        {"conv": "gin", "norm": "batch", "pool": "max", "residual": True, "virtual_node": True},
        {"conv": "gine", "norm": "layer", "edge_channels": 2, "jumping_knowledge": "cat"},
        {"conv": "gine", "norm": "batch", "edge_channels": 2, "training": True},
        {"conv": "gcn", "norm": "none", "edge_channels": 2, "residual": True},
        {"conv": "gcn", "norm": "batch", "jumping_knowledge": "max"},
        {"conv": "sage", "norm": "batch", "training": True, "residual": True},
        {"conv": "sage", "norm": "layer", "pool": "sum", "virtual_node": True, "training": True},
        {"conv": "gat", "norm": "none", "heads": 1},
        {"conv": "gat", "norm": "layer", "heads": 2, "jumping_knowledge": "cat"},
        {"conv": "gat", "norm": "batch", "heads": 2, "edge_channels": 2, "training": True},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()),
)
def test_encoder_equals_loops_and_its_gradient_too(options):
    options = dict(options)
    training = options.pop("training", False)
    encoder = settled(GraphEncoder(3, hidden_channels=4, num_layers=3, **options)).train(training)
    batch = one_batch(graphs())
    x = batch.x.clone().requires_grad_()
    expected = encode_by_loops(encoder, x, batch, training)
    got = encoder.encode(x, batch.edge_index, batch.batch, batch.edge_attr, batch.ptr)
    cotangents = [torch.randn_like(part) for part in expected]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    parameters = [x, *(p for p in encoder.parameters() if p.requires_grad)]
    gradients, wanted = (
        torch.autograd.grad(parts, parameters, cotangents, allow_unused=True) for parts in (got, expected)
    )
    assert gradients[0].abs().max() > 1e-3
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("virtual_node", [False, True])
def test_a_batch_is_its_graphs_alone_whatever_the_batch_carries(name, virtual_node):
    data = graphs(seed=1, sizes=(4, 1, 6, 2))
    data[3].edge_index, data[3].edge_attr = torch.empty(2, 0, dtype=torch.long), data[3].edge_attr[:0]
    network = settled(GraphClassifier(3, 2, 4, 2, name, virtual_node=virtual_node, **CONVOLUTIONS[name])).eval()
    batch = one_batch(data)
    together = apply_model(network, batch)
    alone = torch.cat([network(d.x, d.edge_index, edge_attr=d.edge_attr) for d in data])
    torch.testing.assert_close(together, alone)
    by_batch = network(batch.x, batch.edge_index, batch.batch, batch.edge_attr)
    by_ptr = network(batch.x, batch.edge_index, None, batch.edge_attr, batch.ptr)
    torch.testing.assert_close(by_batch, together)
    torch.testing.assert_close(by_ptr, together)
    nothing = one_batch(data[1:2] + data[3:])  # not one edge in the batch
    torch.testing.assert_close(apply_model(network, nothing), alone[[1, 3]])


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(CONVOLUTIONS)),
    seed=st.integers(0, 10**6),
    size=st.integers(1, 8),
    virtual_node=st.booleans(),
    jumping_knowledge=st.sampled_from(["last", "cat", "max", "lstm"]),
)
def test_renaming_nodes_permutes_nodes_and_leaves_graphs(name, seed, size, virtual_node, jumping_knowledge):
    (data,) = graphs(seed, (size,))
    options = {"virtual_node": virtual_node, "jumping_knowledge": jumping_knowledge, **CONVOLUTIONS[name]}
    encoder = settled(GraphEncoder(3, 4, 2, name, **options)).eval()
    graph, node = encoder.encode(data.x, data.edge_index, edge_attr=data.edge_attr)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(size, generator=generator)
    edges = torch.randperm(data.num_edges, generator=generator)
    renamed = order.argsort()[data.edge_index][:, edges]
    moved_graph, moved_node = encoder.encode(data.x[order], renamed, edge_attr=data.edge_attr[edges])
    torch.testing.assert_close(moved_graph, graph)
    torch.testing.assert_close(moved_node, node[order])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_training_works_on_one_node_and_reaches_every_parameter(name):
    torch.manual_seed(0)
    options = {"virtual_node": True, "jumping_knowledge": "lstm", "dropout": 0.1, **CONVOLUTIONS[name]}
    network = GraphClassifier(3, 2, 16, 2, name, **options)
    batch = one_batch(graphs(sizes=(5, 6, 7, 8))).apply(lambda t: t.float() if t.is_floating_point() else t)
    apply_model(network, batch).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    single = one_batch(graphs(sizes=(1,))).apply(lambda t: t.float() if t.is_floating_point() else t)
    assert apply_model(network, single).isfinite().all()


def test_copies_states_and_resets():
    for network in (
        GraphClassifier(3, 2, 4, conv="gine", edge_channels=2, virtual_node=True),
        NodeClassifier(3, 2, 4, 3, "gat", heads=2, edge_channels=2),
    ):
        network = network.double().eval()
        batch = one_batch(graphs())
        output = apply_model(network, batch)
        twin = copy.deepcopy(network)
        assert twin._record == network._record
        assert apply_model(twin, batch).equal(output)
        twin.reset_parameters()
        assert not apply_model(twin, batch).equal(output)
        weights = [p for p in network.parameters() if p.dim() > 1]
        drawn = [p for p in twin.parameters() if p.dim() > 1]
        assert not any(a.equal(b) for a, b in zip(weights, drawn, strict=True))
        twin.load_state_dict(network.state_dict())
        assert apply_model(twin, batch).equal(output)


def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model")
    return parser


@pytest.mark.parametrize(
    "network",
    [
        GraphEncoder(3, node_categories=[4, 5], edge_categories=[2], conv="gine"),
        GraphClassifier(3, 2, 8, conv="pna", degree_histogram=[1, 2, 3], jumping_knowledge="lstm"),
        GraphClassifier(3, 2, 8, conv=GraphConv, virtual_node=VirtualNode(8, 3)),
        GraphClassifier(3, 2, 8, conv=partial(SAGEConv, aggr="max"), residual=True, pool="sum"),
        NodeClassifier(3, 2, 8, conv="gat", heads=2, input_dropout=0.5, norm="layer"),
    ],
    ids=lambda network: type(network).__name__,
)
def test_its_record_builds_it_again(network):
    assert network._record["class_path"] == f"graphseq.models.{type(network).__name__}"
    built = parser().instantiate(parser().parse_object({"model": network._record})).model
    built.load_state_dict(network.state_dict())
    assert str(built) == str(network)


def test_sizes_linked_from_the_data_are_taken_by_every_convolution():
    class DataModule:
        def __init__(self) -> None:
            self.num_features, self.num_outputs, self.num_edge_features = 3, 2, 2
            self.degree_histogram, self.node_categories, self.edge_categories = [1, 2, 3], None, None

    links = {
        "num_features": "in_channels",
        "num_outputs": "out_channels",
        "num_edge_features": "edge_channels",
        "degree_histogram": "degree_histogram",
        "node_categories": "node_categories",
        "edge_categories": "edge_categories",
    }
    linked = parser()
    linked.add_class_arguments(DataModule, "data")
    for source, target in links.items():
        linked.link_arguments(f"data.{source}", f"model.init_args.{target}", apply_on="instantiate")
    batch = one_batch(graphs()).apply(lambda t: t.float() if t.is_floating_point() else t)
    for kind, rows in [("GraphClassifier", 3), ("NodeClassifier", 10)]:
        for name in CONVOLUTIONS:
            spec = {"class_path": f"graphseq.models.{kind}", "init_args": {"conv": name, "hidden_channels": 8}}
            network = linked.instantiate(linked.parse_object({"model": spec})).model
            assert network._record["init_args"]["degree_histogram"] == [1, 2, 3]
            assert apply_model(network, batch).shape == (rows, 2)


def test_categories_of_nodes_and_edges():
    encoder = GraphEncoder(2, 4, 2, "gine", node_categories=[5, 3], edge_categories=[4]).double().eval()
    x, edge_index = torch.tensor([[4, 2], [0, 0], [1, 2]]), torch.tensor([[0, 1], [1, 2]])
    bonds = torch.tensor([3, 0])
    graph, node = encoder.encode(x, edge_index, edge_attr=bonds)
    twin = GraphEncoder(4, 4, 2, "gine", edge_channels=4).double().eval()
    twin.load_state_dict(encoder.state_dict(), strict=False)
    embedded = encoder.input(x), encoder.edge_input(bonds)
    expected = twin.encode(embedded[0], edge_index, edge_attr=embedded[1])
    torch.testing.assert_close((graph, node), expected)
    assert not encoder.encode(x, edge_index, edge_attr=bonds.flip(0))[1].allclose(node)


def test_a_layer_of_ones_own_gets_edges_only_if_they_were_announced():
    x, edge_index, edge_attr = torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.randn(3, 2)
    without = GraphEncoder(3, 8, 2, GENConv)
    assert without(x, edge_index, edge_attr=edge_attr).shape == (1, 8)
    with_edges = GraphEncoder(3, 8, 2, partial(GENConv, edge_dim=2), edge_channels=2).eval()
    first = with_edges(x, edge_index, edge_attr=edge_attr)
    assert not first.allclose(with_edges(x, edge_index, edge_attr=-edge_attr))
    with pytest.raises(ValueError, match=r"GATConv .* 16 .*hidden_channels=8"):
        GraphEncoder(3, 8, 2, partial(GATConv, heads=2))(x, edge_index)


def test_node_classifier_is_the_network_of_the_gcn_paper():
    (data,) = graphs(seed=5, sizes=(6,))
    network = settled(NodeClassifier(3, 7, 4, 2, "gcn", norm="none", dropout=0.5, input_dropout=0.5)).eval()
    (hidden,) = network.encoder.convs
    rows = reference.relu(reference.gcn(list(data.x), data.edge_index, hidden.lin.weight, hidden.bias))
    expected = torch.stack(reference.gcn(rows, data.edge_index, network.head.lin.weight, network.head.bias))
    torch.testing.assert_close(network(data.x, data.edge_index), expected)
    assert sum(p.numel() for p in network.parameters()) == 3 * 4 + 4 + 4 * 7 + 7
    graph, node = network.encode(data.x, data.edge_index)
    assert (graph.shape, node.shape) == ((1, network.graph_channels), (6, network.node_channels))


def test_node_classifier_drops_inputs_only_in_training():
    x, edge_index = torch.ones(2000, 1), torch.empty(2, 0, dtype=torch.long)
    network = NodeClassifier(1, 1, 1, 1, "gcn", output="linear", norm="none", input_dropout=0.25)
    with torch.no_grad():
        network.encoder.convs[0].lin.weight.fill_(1)
        network.head.weight.fill_(1)
        network.head.bias.zero_()
    values, counts = network(x, edge_index).unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    assert 400 < counts[0] < 600
    assert network.eval()(x, edge_index).eq(1).all()


@pytest.mark.parametrize("output", ["convolution", "linear"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_node_classifier_takes_all_options(name, output):
    batch = one_batch(graphs())
    options = {"virtual_node": True, "jumping_knowledge": "cat", "residual": True, **CONVOLUTIONS[name]}
    network = NodeClassifier(3, 5, 4, 3, name, output=output, **options).double()
    assert apply_model(network, batch).shape == (10, 5)
    assert len(network.encoder.convs) == (2 if output == "convolution" else 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": "gine"}, "edge_channels"),
        ({"conv": "pna"}, "degree_histogram"),
        ({"conv": "cheb"}, "conv is 'cheb'"),
        ({"norm": "group"}, "norm is 'group'"),
        ({"pool": "median"}, "mode='median'"),
        ({"jumping_knowledge": "sum"}, "jumping_knowledge='sum'"),
        ({"dropout": 1.5}, r"\[0, 1\)"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"in_channels": 0}, "OneHotDegree or Constant"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphEncoder(**({"in_channels": 3} | arguments))


def test_more_refusals():
    with pytest.raises(ValueError, match="head_layers is 0"):
        GraphClassifier(3, 2, head_layers=0)
    with pytest.raises(ValueError, match="no hidden layer"):
        NodeClassifier(3, 2, num_layers=1)
    with pytest.raises(ValueError, match="'conv'"):
        NodeClassifier(3, 2, output="conv")
    with pytest.raises(ValueError, match="input_dropout=1"):
        NodeClassifier(3, 2, input_dropout=1)
    with pytest.raises(TypeError, match="hidden"):
        GraphClassifier(3, 2, hidden=8)


def test_features_that_do_not_fit_are_refused():
    edge_index = torch.tensor([[0], [1]])
    network = GraphClassifier(3, 2, conv="gine", edge_channels=2)
    with pytest.raises(DataError, match="OneHotDegree or Constant"):
        network(None, edge_index)
    with pytest.raises(DataError, match="node_categories"):
        network(torch.ones(2, 3, dtype=torch.long), edge_index)
    with pytest.raises(DataError, match="batch .*no edge_attr"):
        network(torch.ones(2, 3), edge_index)
    with pytest.raises(DataError, match=r"\(1, 3\).*2 features"):
        network(torch.ones(2, 3), edge_index, edge_attr=torch.ones(1, 3))


def test_a_batch_of_pyg_goes_through_unchanged():
    batch = Batch.from_data_list(graphs())
    network = GraphClassifier(3, 2, 4).double()
    before = batch.clone()
    apply_model(network, batch)
    assert all(value.equal(before[key]) for key, value in batch)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"virtual_node": "no"}, TypeError, "virtual_node is no"),
        ({"virtual_node": VirtualNode}, TypeError, "virtual_node is VirtualNode"),
        ({"virtual_node": nn.Linear(2, 2)}, TypeError, "virtual_node is Linear"),
        ({"virtual_node": VirtualNode(8, 2)}, ValueError, "num_layers=2"),
        ({"virtual_node": VirtualNode(4, 3)}, ValueError, "dim=4"),
        ({"conv": GraphConv(3, 8)}, TypeError, "conv is an instance of GraphConv"),
        ({"conv": lambda before, after: before}, TypeError, "returned a int"),
        ({"hidden_channels": 8.0}, ValueError, r"hidden_channels is 8\.0"),
    ],
)
def test_modules_classes_and_sizes_that_are_mistaken(arguments, error, said):
    with pytest.raises(error, match=said):
        GraphEncoder(**({"in_channels": 3, "hidden_channels": 8} | arguments))


@pytest.mark.parametrize("conv", ["gin", "gcn", "sage", "gat", "pna"])
def test_in_a_plain_program_of_pyg(conv):
    """Isolated nodes, self-loops, duplicated edges, no edges; adjacencies of torch; heterogeneous data are refused."""
    network = GraphClassifier(3, 2, hidden_channels=8, conv=conv, degree_histogram=[2, 3, 1]).eval()
    edges = [torch.tensor([[0, 1, 1], [1, 1, 0]]), torch.zeros(2, 0, dtype=torch.int64), torch.tensor([[0, 0], [2, 2]])]
    graphs = [Data(x=torch.randn(3, 3), edge_index=edge_index) for edge_index in edges]
    (batch,) = DataLoader(graphs, batch_size=3)
    found = network(batch.x, batch.edge_index, batch.batch)
    alone = torch.cat([network(graph.x, graph.edge_index) for graph in graphs])
    torch.testing.assert_close(found, alone)
    path = torch.tensor([[0, 1], [1, 2]])
    adjacency = torch.sparse_coo_tensor(path.flip(0), torch.ones(2), (3, 3)).coalesce()
    for layout in (adjacency, adjacency.to_sparse_csr()):  # rows are targets, as PyG has them
        torch.testing.assert_close(network(graphs[0].x, layout), network(graphs[0].x, path))
    data = HeteroData()
    data["a"].x, data["a", "to", "a"].edge_index = graphs[0].x, edges[0]
    with pytest.raises(DataError, match="to_homogeneous"):
        network(data.x_dict, data.edge_index_dict)


def test_edge_features_for_other_edges_are_refused():
    network = GraphClassifier(3, 2, hidden_channels=8, conv="gine", edge_channels=2)
    for rows in (1, 3):
        with pytest.raises(DataError, match=f"{rows} rows for 2 edges"):
            network(torch.randn(3, 3), torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.randn(rows, 2))


def test_only_the_head_on_an_encoder_is_drawn_again():
    network = EncoderClassifier(GraphEncoder(3, 8), 2, head_layers=2)
    before = copy.deepcopy(network.state_dict())
    network.reset_parameters()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"head.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    with pytest.raises(TypeError, match="class GraphEncoder"):
        EncoderClassifier(GraphEncoder, 2)
    with pytest.raises(ValueError, match="out_channels is 0"):
        NodeClassifier(3, 0)
