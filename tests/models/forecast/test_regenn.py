"""ReGENN against loops in numpy, and what a prediction may depend on."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import ReGENN
from tests.reference import regenn as reference

Attention = Literal["series", "variables"] | None


def network(attention: Attention = "series", *, bidirectional: bool = False) -> ReGENN:
    torch.manual_seed(0)
    made = ReGENN(3, 6, 4, attention=attention, feedforward_size=8, bidirectional=bidirectional, dropout=0.0).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    made.fit_graph(torch.rand(5, 30, 3).double() * (torch.rand(5, 30, 3) > 0.3))
    return made.eval()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("attention", ["series", "variables", None])
def test_output_equals_loops(attention: Attention, bidirectional: bool) -> None:
    made, x = network(attention, bidirectional=bidirectional), torch.randn(2, 5, 6, 3).double()
    state = {name: value.numpy() for name, value in made.state_dict().items()}
    expected = np.stack([reference.forward(window, state, attention, bidirectional) for window in x.numpy()])
    np.testing.assert_allclose(made(x).detach().numpy(), expected, atol=1e-10)
    torch.testing.assert_close(made(x[0]), made(x)[0])


def test_gradients_equal_finite_differences() -> None:
    made, x = network(), torch.randn(1, 2, 6, 3).double()
    loss = made(x).square().sum()
    loss.backward()
    for name in ("source.graph_weight", "source.time_map.weight", "gate.weight_ih_l0", "target.cosine_weight"):
        parameter = made.get_parameter(name)
        with torch.no_grad():
            kept, step = float(parameter.flatten()[1]), 1e-6
            values = []
            for sign in (1, -1):
                parameter.view(-1)[1] = kept + sign * step
                # the graph that the target evolution reads is a constant: hold it as it was
                if name == "source.graph_weight":
                    hidden = held(made, kept, x)
                    values.append(float(frozen_target(made, x, hidden).square().sum()))
                else:
                    values.append(float(made(x).square().sum()))
            parameter.view(-1)[1] = kept
        assert parameter.grad is not None
        assert float(parameter.grad.flatten()[1]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def held(made: ReGENN, kept: float, x: torch.Tensor) -> torch.Tensor:
    clean = copy.deepcopy(made)
    clean.get_parameter("source.graph_weight").view(-1)[1] = kept
    return clean.source(x)[1]


def frozen_target(made: ReGENN, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Forward in which the target evolution reads a given graph."""
    handle = made.target.register_forward_pre_hook(lambda _, inputs: (inputs[0], hidden))
    try:
        return made(x)
    finally:
        handle.remove()


def test_a_window_does_not_depend_on_its_batch() -> None:
    made, x = network(), torch.randn(7, 5, 6, 3).double()
    together = made(x)
    for number in range(7):
        torch.testing.assert_close(made(x[number : number + 1])[0], together[number], rtol=1e-12, atol=1e-12)


def test_permuted_series_permute_the_forecast() -> None:
    made, x, order = network(), torch.randn(2, 5, 6, 3).double(), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(made(x[:, order]), made(x)[:, order])


@pytest.mark.parametrize("attention", ["variables", None])
def test_a_series_does_not_depend_on_the_others_without_attention_between_them(attention: Attention) -> None:
    made, x = network(attention), torch.randn(2, 5, 6, 3).double()
    changed = x.clone()
    changed[:, 1:] = torch.randn(2, 4, 6, 3).double()
    torch.testing.assert_close(made(changed)[:, 0], made(x)[:, 0])
    assert not torch.allclose(network("series")(changed)[:, 0], network("series")(x)[:, 0])


def test_evaluation_does_not_depend_on_the_last_training_batch() -> None:
    made, x = network(), torch.randn(2, 5, 6, 3).double()
    before = made(x)
    made.train()
    made(torch.randn(2, 5, 6, 3).double())
    torch.testing.assert_close(made.eval()(x), before, rtol=0, atol=0)


def test_state_dict_gives_the_same_forecast_and_graph() -> None:
    made, x = network(), torch.randn(2, 5, 6, 3).double()
    other = ReGENN(3, 6, 4, feedforward_size=8, dropout=0.0).double().eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))
    assert torch.equal(copy.deepcopy(made)(x), made(x))
    assert torch.equal(other.source.get_buffer("adjacency"), made.source.get_buffer("adjacency"))


def test_identities_leave_parts_out() -> None:
    bare = ReGENN(
        3, 6, 4, attention=None, autoregression=False, source=make(nn.Identity), target=make(nn.Identity),
        sequencer=make(nn.Identity), dropout=0.0,
    ).double()  # fmt: skip
    x = torch.randn(2, 5, 6, 3).double()
    gated = bare.gate(x.transpose(2, 3).flatten(0, 1))[0].view(2, 5, 3, 4).transpose(2, 3)
    torch.testing.assert_close(bare(x), gated)
    bare.fit_graph(x[0].float())  # nothing to fit, no error


def test_the_graph_is_fitted_to_scaled_series() -> None:
    series = torch.rand(4, 20, 3) * (torch.rand(4, 20, 3) > 0.3)
    one, other = ReGENN(3, 6, 4), ReGENN(3, 6, 4)
    one.fit_graph(series)
    other.fit_graph(series * torch.tensor([1.0, 1e6, 10.0, 3.0])[:, None, None])
    torch.testing.assert_close(one.source.get_buffer("adjacency"), other.source.get_buffer("adjacency"))
    hidden = series > 0.5
    one.fit_graph(series.where(~hidden, torch.nan), ~hidden)
    assert bool(one.source.get_buffer("adjacency").isfinite().all())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="horizon"):
        ReGENN(3, 6, 0)
    with pytest.raises(ValueError, match="attention"):
        ReGENN(3, 6, 4, attention="time")  # type: ignore[arg-type]  # the error is about the value
    with pytest.raises(ValueError, match="dropout"):
        ReGENN(3, 6, 4, dropout=1.5)
    with pytest.raises(ValueError, match="window"):
        ReGENN(3, 6, 4)(torch.zeros(2, 5, 7, 3))
