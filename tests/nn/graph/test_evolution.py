"""Graph soft evolution and the co-occurrence graph against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.nn import GraphSoftEvolution, VariableMixing
from graphseq.ops import co_occurrence
from tests.reference import regenn as reference


def panel(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return values * (torch.rand(*shape, generator=generator) > 0.4)


def drawn(layer: GraphSoftEvolution) -> GraphSoftEvolution:
    """All parameters non-zero, so that none can be forgotten."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        layer.adjacency.copy_(torch.rand_like(layer.adjacency))
    return layer


@pytest.mark.parametrize("kind", ["zeros", "positive", "absent", "two"])
def test_co_occurrence_equals_four_loops(kind: str) -> None:
    x = panel(3, 5, 2 if kind == "two" else 4)
    if kind == "positive":
        x = x + 1
    if kind == "absent":
        x[..., 1] = 0
    found = co_occurrence(x)
    np.testing.assert_allclose(found.numpy(), reference.co_occurrence(x.numpy(), (x > 0).numpy()), rtol=1e-12)
    if kind == "positive":
        assert torch.equal(found.diagonal(), torch.zeros(4, dtype=torch.float64))
    if kind == "absent":
        assert torch.equal(found[1], torch.zeros(4, dtype=torch.float64))


def test_co_occurrence_takes_a_mask_of_presence() -> None:
    x, present = panel(3, 5, 4), panel(3, 5, 4, seed=1) > 0.2
    expected = reference.co_occurrence(x.numpy(), present.numpy())
    np.testing.assert_allclose(co_occurrence(x, present).numpy(), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="present"):
        co_occurrence(x, present[:2])


@settings(deadline=None)  # the first call loads libraries
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_co_occurrence_of_parts_adds_up_before_the_diagonal_rule(
    series: int, steps: int, count: int, seed: int
) -> None:
    x = panel(series, steps, count, seed=seed)
    off = ~torch.eye(count, dtype=torch.bool)
    whole = co_occurrence(x)[off]
    parts = sum(co_occurrence(piece)[off] for piece in x.split(1, dim=1))
    torch.testing.assert_close(whole, torch.as_tensor(parts).reshape(whole.shape).double(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("time_map", [False, True])
def test_layer_equals_loops(time_map: bool) -> None:
    x = panel(3, 6, 4)
    layer = drawn(GraphSoftEvolution(4, 6 if time_map else None, out_window=5 if time_map else None))
    y, hidden = layer(x)
    parameters = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    expected, graph = reference.evolution(x.numpy(), parameters["adjacency"], parameters)
    if time_map:
        expected = reference.time_map(expected, parameters["time_map.weight"], parameters["time_map.bias"])
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(hidden.numpy(), graph, atol=1e-10)


def test_gradients_pass_gradcheck_and_the_graph_has_none() -> None:
    layer, x = drawn(GraphSoftEvolution(3, 4)), panel(2, 4, 3).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))[0]

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))
    y, hidden = layer(x)
    assert not hidden.requires_grad
    assert not layer.adjacency.requires_grad
    y.sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in layer.parameters())


def test_a_graph_of_another_layer_gives_it_no_gradient() -> None:
    first, second, x = drawn(GraphSoftEvolution(3)), drawn(GraphSoftEvolution(3)), panel(2, 4, 3)
    _, hidden = first(x)
    second(x, hidden)[0].sum().backward()
    assert all(parameter.grad is None for parameter in first.parameters())


def test_scaled_rows_of_the_graph_change_nothing_without_the_row_bias() -> None:
    x, layer = panel(2, 4, 3), drawn(GraphSoftEvolution(3))
    scaled = layer.adjacency * torch.tensor([[2.0], [0.5], [7.0]])
    assert not torch.allclose(layer(x)[0], layer(x, scaled)[0])
    with torch.no_grad():
        assert layer.graph_bias is not None
        layer.graph_bias.zero_()
    torch.testing.assert_close(layer(x)[0], layer(x, scaled)[0])


def test_identity_with_zero_cosine_weight_and_unit_bias() -> None:
    layer = GraphSoftEvolution(3).double()
    with torch.no_grad():
        layer.cosine_weight.zero_()
        assert layer.cosine_bias is not None
        layer.cosine_bias.copy_(torch.eye(3))
    x = panel(2, 4, 3)
    torch.testing.assert_close(layer(x)[0], x)


def test_an_absent_variable_gives_no_nan() -> None:
    layer = GraphSoftEvolution(3, bias=False)
    series = panel(2, 10, 3).float()
    series[..., 2] = 0
    layer.fit_graph(series)
    assert bool(layer.mixing_matrix().isfinite().all())
    assert not bool(layer.adjacency[2].any())
    assert float(layer.adjacency.max()) == 1


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="num_variables"):
        GraphSoftEvolution(0)
    with pytest.raises(ValueError, match="out_window"):
        GraphSoftEvolution(2, out_window=3)
    with pytest.raises(ValueError, match="dropout"):
        GraphSoftEvolution(2, dropout=1.0)
    with pytest.raises(ValueError, match="variables"):
        GraphSoftEvolution(2).fit_graph(torch.ones(4, 3))
    with pytest.raises(ValueError, match="NaN"):
        GraphSoftEvolution(2).fit_graph(torch.tensor([[1.0, float("nan")]]))


def test_free_mixing_equals_its_formula() -> None:
    layer, x = VariableMixing(3, 4).double(), panel(2, 4, 3)
    y, graph = layer(x, torch.ones(3, 3))
    assert graph is None
    assert layer.time_map is not None
    mixed = torch.einsum("ab,stb->sta", layer.mixing.weight, x)
    expected = reference.time_map(
        mixed.detach().numpy(), layer.time_map.weight.detach().numpy(), layer.time_map.bias.detach().numpy()
    )
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)
    with pytest.raises(ValueError, match="window"):
        VariableMixing(3, 0)


def test_what_would_be_broadcast_or_never_called():
    layer, x = GraphSoftEvolution(3, 4), torch.randn(2, 4, 3)
    for adjacency in (torch.ones(1, 3), torch.ones(3), torch.ones(2, 3, 3)):
        with pytest.raises(ValueError, match="adjacency has shape"):
            layer(x, adjacency)
    with pytest.raises(ValueError, match="no step"):
        layer.fit_graph(torch.zeros(0, 3))
    for kind in (GraphSoftEvolution, VariableMixing):
        for activation, said in (("relu", "'relu'"), (torch.nn.ReLU, "ReLU")):
            with pytest.raises(TypeError, match=f"activation is {said}"):
                kind(3, activation=activation)
        for series in (x[..., :2], x[:, :3]):
            with pytest.raises(ValueError, match=r"\(\*, 4, 3\)"):
                kind(3, 4)(series)
        with pytest.raises(TypeError, match="int64"):
            kind(3, 4)(x.long())
    mixing = VariableMixing(3, 4)
    before = mixing(x)[0]
    mixing.reset_parameters()
    assert not torch.equal(mixing(x)[0], before)
