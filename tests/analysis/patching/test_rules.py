import itertools

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, GraphNorm, LayerNorm, TransformerConv

from graphseq.analysis import relevance_rules
from graphseq.core import make
from graphseq.nn import (
    SELU,
    BlockStack,
    CausalAttention,
    CrossAttention,
    CRReLU,
    FeedForward,
    GatedFeedForward,
    GatedLinearAttention,
    PostNorm,
    PreNorm,
    SelfAttention,
    SequenceBlock,
    SparseGatedFeedForward,
    SwiGLU,
)

RULES = ("ln", "identity", "half", "ah")
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 4, 3, 0, 1]])
GRAPHS = torch.tensor([0, 0, 0, 1, 1])


class Nodes(nn.Module):
    """Graph network with each norm and attention that has a rule."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList([GATConv(8, 4, heads=2), GATv2Conv(8, 8), TransformerConv(8, 8)])
        self.norms = nn.ModuleList([GraphNorm(8), LayerNorm(8), LayerNorm(8, mode="node")])

    def forward(self, x):
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x, EDGES), GRAPHS).relu()
        return x


class Encoder(nn.Module):
    """Encoder of torch.nn with a decoder layer; activations are functions."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 16, activation="gelu", batch_first=True)

    def forward(self, x):
        h = self.encoder(x)
        return self.decoder(x, h)


def networks():
    plain = SequenceBlock(CausalAttention(8, 2), FeedForward(8, 16), PreNorm(8, make(nn.LayerNorm, 8)))
    gated = SequenceBlock(SelfAttention(8, 2), SwiGLU(8, 16))
    post = SequenceBlock(GatedLinearAttention(8, 2), SwiGLU(8, 16), PostNorm(8))
    functions = nn.Sequential(nn.GLU(), nn.Linear(4, 8), CRReLU(), SELU())
    return [BlockStack([plain, gated]), Encoder(), functions, BlockStack([post])]


def gradient(y, x):
    return torch.autograd.grad(y.square().sum(), x, allow_unused=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_forward_is_equal_bit_for_bit_and_nothing_stays():
    x, nodes = torch.randn(2, 5, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    for network, given in [*((network, x) for network in networks()), (Nodes(), nodes)]:
        network.eval()
        first = network(given)
        expected = first[0] if isinstance(first, tuple) else first
        before = gradient(expected, [given, *network.parameters()])
        moved = set()
        for number in range(5):
            for rules in itertools.combinations(RULES, number):
                with relevance_rules(network, rules):
                    y = network(given)
                    y = y[0] if isinstance(y, tuple) else y
                    with torch.no_grad():
                        again = network(given)
                assert torch.equal(y, expected), rules
                again = again[0] if isinstance(again, tuple) else again
                assert torch.allclose(again, expected, atol=1e-6)  # torch's encoder has another path for it
                if not torch.allclose(gradient(y, [given])[0], before[0], rtol=1e-3):
                    moved.add(rules)
        assert len(moved) >= 8, "rules that change nothing are no test of the forward pass"
        after = network(given)
        after = gradient(after[0] if isinstance(after, tuple) else after, [given, *network.parameters()])
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True) if one is not None)


def test_names_of_the_modules_that_follow_each_rule():
    with relevance_rules(networks()[0], RULES) as applied:
        pass
    assert applied["ln"] == ["blocks.0.mixer_residual.norm", "blocks.0.feed_forward_residual.norm",
                             "blocks.1.mixer_residual.norm", "blocks.1.feed_forward_residual.norm", "norm"]  # fmt: skip
    assert applied["identity"] == ["blocks.0.feed_forward.activation", "blocks.1.feed_forward.activation"]
    assert applied["half"] == ["blocks.1.feed_forward"]
    with relevance_rules(Nodes(), RULES) as applied:
        pass
    assert applied["ln"] == [f"norms.{n}" for n in range(3)]
    assert applied["ah"] == [f"convolutions.{n}" for n in range(3)]


@pytest.mark.parametrize("centred", [True, False])
def test_norms_have_a_constant_divisor(centred):
    norm = nn.LayerNorm(6) if centred else nn.RMSNorm(6)
    norm = norm.double()
    nn.init.normal_(norm.weight)
    x = torch.randn(6, dtype=torch.float64)
    eps = norm.eps if centred else torch.finfo(torch.float64).eps
    centre = x - x.mean() if centred else x
    scale = ((centre @ centre) / 6 + eps).sqrt()
    mixing = torch.eye(6, dtype=torch.float64) - (1 / 6 if centred else 0)
    with relevance_rules(norm):
        found = torch.autograd.functional.jacobian(norm, x)
    assert torch.allclose(found, norm.weight.diag() / scale @ mixing, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(torch.autograd.functional.jacobian(norm, x), found, rtol=1e-2)


@pytest.mark.parametrize("norm", [GraphNorm(3), LayerNorm(3), LayerNorm(3, mode="node")], ids=str)
@pytest.mark.parametrize("batch", [GRAPHS, None], ids=["two graphs", "one graph"])
def test_norms_of_graphs_have_a_constant_divisor(norm, batch):
    norm = norm.double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    rows, over = [], torch.zeros(5, dtype=torch.int64) if batch is None else batch
    for node in range(5):  # the formula of each norm, one node after the other
        if isinstance(norm, GraphNorm):
            group = x[over == over[node]]
            centre, all_of = x[node] - group.mean(0) * norm.mean_scale, group - group.mean(0) * norm.mean_scale
            scale = (all_of.square().mean(0) + norm.eps).sqrt()
        else:
            group = x[over == over[node]] if norm.mode == "graph" else x[node]
            centre = x[node] - group.mean()
            square = (group - group.mean()).square().mean()
            one = norm.mode == "graph" and batch is None
            scale = square.sqrt() + norm.eps if one else (square + norm.eps).sqrt()
        rows.append(norm.weight * centre / scale.detach() + norm.bias)
    expected = torch.stack(rows)
    with relevance_rules(norm):
        y = norm(x, batch)
    assert torch.allclose(y, expected, rtol=1e-9)
    weight = torch.randn(5, 3, dtype=torch.float64)
    found, wanted = (torch.autograd.grad((weight * out).sum(), x)[0] for out in (y, expected))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(inplace=True), nn.Tanh(), SELU(), CRReLU()], ids=str)
def test_activations_have_their_ratio_as_slope(activation):
    points = [-2.0, -1e-7, 0.0, 1e-8, 0.5, 3.0]
    z = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = activation(z.detach().clone()).detach()
    with relevance_rules(activation):
        y = activation(z)
    assert z.tolist() == points
    assert torch.equal(y, value)
    (found,) = torch.autograd.grad(y.sum(), z)
    expected = [float(v) / (p + (-1e-6 if p < 0 else 1e-6)) for v, p in zip(value, points, strict=True)]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)


def test_relu_is_left_alone():
    network, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)), torch.randn(4, 3, requires_grad=True)
    plain = gradient(network(x), [x])[0]
    with relevance_rules(network, ["identity"]) as applied:
        assert torch.equal(gradient(network(x), [x])[0], plain)
    assert applied["identity"] == []


def test_gates_share_the_relevance_of_their_product():
    gated = GatedFeedForward(4, 6, nn.SiLU()).double()
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    w, v = gated.gate_and_value.weight.detach().chunk(2)
    out = gated.output.weight.detach()
    plain = torch.autograd.functional.jacobian(gated, x)
    with relevance_rules(gated, ["half"]):
        assert torch.allclose(torch.autograd.functional.jacobian(gated, x), plain / 2, rtol=1e-12)
    with relevance_rules(gated, ["identity", "half"]):
        found = torch.autograd.functional.jacobian(gated, x)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for unit in range(6):
        gate, value = (w[unit] @ x).detach(), (v[unit] @ x).detach()
        silu = gate / (1 + torch.exp(-gate))
        ratio = silu / (gate + (-1e-6 if gate < 0 else 1e-6))
        expected += torch.outer(out[:, unit], ratio * value * w[unit] / 2 + silu * v[unit] / 2)
    assert torch.allclose(found, expected, rtol=1e-10)


def test_layers_that_read_active_units_follow_the_rules_of_dense_ones():
    dense = GatedFeedForward(4, 6, make(nn.ReLU)).double()
    sparse, x = SparseGatedFeedForward.from_dense(dense), torch.randn(4, dtype=torch.float64)
    plain = torch.autograd.functional.jacobian(dense, x)
    for layer in (dense, sparse):
        with relevance_rules(layer) as applied:
            found = torch.autograd.functional.jacobian(layer, x)
        assert applied["half"] == [""]
        assert torch.allclose(found, plain / 2, rtol=1e-12)


def test_attention_weights_are_constants():
    layer, x = CausalAttention(8, 2).double(), torch.randn(1, 4, 8, dtype=torch.float64, requires_grad=True)
    q, k, v = layer._projected(x, torch.arange(4)[None])
    rows = []
    for head in range(2):
        for step in range(4):
            weight = torch.stack([q[0, head, step] @ k[0, head, s] / 2 for s in range(step + 1)]).softmax(0).detach()
            rows.append(sum(weight[s] * v[0, head, s] for s in range(step + 1)))
    expected = layer.output(torch.stack(rows).view(2, 4, 4).transpose(0, 1).flatten(1))[None]
    with relevance_rules(layer, ["ah"]):
        y, _ = layer(x)
    wanted, found = (gradient(out, [x, layer.projection.weight]) for out in (expected, y))
    assert torch.allclose(y, expected, rtol=1e-9)
    assert torch.allclose(found[0], wanted[0], rtol=1e-9, atol=1e-12)
    assert torch.allclose(found[1], wanted[1], rtol=1e-9, atol=1e-12)
    assert not found[1][:16].any()
    cross, memory = CrossAttention(8, 2), torch.randn(1, 3, 8)
    queries = torch.randn(1, 4, 8, requires_grad=True)
    with relevance_rules(cross, ["ah"]):
        y = cross(queries, *cross.project(memory))
    assert gradient(y, [queries, cross.key_and_value.weight])[0] is None
    torchs = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    with relevance_rules(torchs, ["ah"]) as applied:
        y, _ = torchs(queries, queries, queries)
        assert applied["ah"] == [""]
    weight = torch.autograd.grad(y.sum(), torchs.in_proj_weight)[0]
    assert weight[16:].any()
    assert not (gradient(torchs(queries, queries, queries)[0], [queries])[0] == 0).all()
    with relevance_rules(torchs, ["ah"]):
        assert gradient(torchs(queries, memory, memory)[0], [queries])[0] is None


ATTENTIONS = [
    GATConv(3, 2, bias=False),
    GATv2Conv(3, 2, bias=False),
    TransformerConv(3, 2, bias=False, root_weight=False),
]


@pytest.mark.parametrize("layer", ATTENTIONS, ids=str)
def test_attention_over_neighbours_is_constant(layer):
    """With constant weights and without biases, a layer is linear: its input times its gradient is its output."""
    x = torch.randn(5, 3, requires_grad=True)
    with relevance_rules(layer, ["ah"]):
        y = layer(x, EDGES)
    (rule,), (plain,) = (torch.autograd.grad(out.square().sum() / 2, x) for out in (y, layer(x, EDGES)))
    assert torch.allclose((rule * x).sum(), y.square().sum(), rtol=1e-4)
    assert not torch.allclose(rule, plain, rtol=1e-2)


@pytest.mark.parametrize("gated", [False, True])
def test_relevance_is_conserved(gated):
    """Without biases the relevance of each layer, activation times rule, sums to the output."""
    middle = GatedFeedForward(6, 8) if gated else FeedForward(6, 8, bias=False)
    network = nn.Sequential(nn.Linear(4, 6, bias=False), nn.RMSNorm(6), middle, nn.Linear(6, 1, bias=False)).double()
    x = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    gaps = {}
    for rules in (("ln", "identity", "half"), ()):
        with relevance_rules(network, rules):
            hidden = [x]
            for layer in network:
                hidden.append(layer(hidden[-1]))
            grads = torch.autograd.grad(hidden[-1].sum(), hidden)
        gaps[rules] = [abs(float(((a * g).sum() - hidden[-1]).detach())) for a, g in zip(hidden, grads, strict=True)]
    assert max(gaps["ln", "identity", "half"]) < 1e-4 * abs(hidden[-1].item())
    assert max(gaps[()]) > 1e-2 * abs(hidden[-1].item())


def test_classes_of_the_user_follow_a_rule_by_name():
    class Cube(nn.Module):
        def forward(self, x):
            return x**3

    x = torch.tensor([2.0], requires_grad=True)
    for rule, expected in (("identity", 4.0), ("half", 6.0)):
        with relevance_rules(cube := Cube(), extra={Cube: rule}):
            y = cube(x)
        assert float(torch.autograd.grad(y, x)[0]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="'ln'"), relevance_rules(cube, extra={Cube: "ln"}):
        pass


def test_contexts_are_left_and_not_nested():
    network = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.LayerNorm(2))
    with pytest.raises(ValueError, match="'zero'"), relevance_rules(network, ["zero"]):
        pass
    with relevance_rules(network), pytest.raises(RuntimeError, match="already"), relevance_rules(network[1]):
        pass
    with pytest.raises(KeyError), relevance_rules(network, RULES):
        raise KeyError
    assert not any("forward" in vars(module) or module._forward_hooks for module in network.modules())
    with relevance_rules(network):
        pass
