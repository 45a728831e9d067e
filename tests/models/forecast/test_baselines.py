"""Baseline forecasts against loops, and what they may depend on."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphseq.core import SeriesSpan, WindowBatch, apply_model
from graphseq.models import (
    ConvolutionalForecaster,
    DifferencedWindows,
    DLinear,
    Drift,
    ExponentialSmoothing,
    GraphRecurrentForecaster,
    LeastSquaresForecaster,
    NLinear,
    NormalizedWindows,
    PatchTransformer,
    Persistence,
    RecurrentForecaster,
    SeasonalNaive,
)
from tests.reference import forecasts as reference

B, S, T, V, Z = 2, 3, 9, 2, 4
RING = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])


def windows(seed: int = 0) -> Tensor:
    return torch.randn(B, S, T, V, generator=torch.Generator().manual_seed(seed)).double()


def each(x: Tensor | np.ndarray, forecast) -> np.ndarray:
    found = np.zeros((B, S, Z, V))
    for b, s, v in np.ndindex(B, S, V):
        found[b, s, :, v] = forecast(np.asarray(x[b, s, :, v]))
    return found


def assert_equals(network: nn.Module, x: Tensor, forecast) -> None:
    """Compare a network with ``forecast(parameters, x)`` in numpy: its output, and the derivative in one direction."""
    generator = np.random.default_rng(0)
    parts = {"x": x.clone().requires_grad_(), **dict(network.named_parameters())}
    y = network(parts["x"])
    values = {name: part.detach().numpy() for name, part in parts.items()}
    np.testing.assert_allclose(y.detach().numpy(), forecast(values, values["x"]), atol=1e-12)
    weight = generator.standard_normal(y.shape)
    gradients = torch.autograd.grad((torch.from_numpy(weight) * y).sum(), list(parts.values()))
    for (name, value), gradient in zip(values.items(), gradients, strict=True):
        direction = generator.standard_normal(value.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = {**values, name: value + step * direction}
            ends.append(float((weight * forecast(moved, moved["x"])).sum()))
        expected = (ends[0] - ends[1]) / 2e-6
        assert float((gradient.numpy() * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_naive_forecasts_equal_loops() -> None:
    x = windows()
    np.testing.assert_allclose(Persistence(Z)(x).numpy(), each(x, lambda w: np.full(Z, w[-1])))
    np.testing.assert_allclose(Drift(Z)(x).numpy(), each(x, lambda w: reference.drift(w, Z)))
    for season in (1, 3, T):
        found = SeasonalNaive(Z, season)(x).numpy()
        np.testing.assert_allclose(found, each(x, lambda w, m=season: reference.seasonal(w, Z, m)))
    assert torch.equal(Persistence(Z, targets=[1])(x), Persistence(Z)(x)[..., 1:])


def test_exponential_smoothing_equals_a_loop_with_gradients() -> None:
    x, network = windows(), ExponentialSmoothing(T, Z).double()
    alpha, beta, phi = network.rates.tolist()
    assert (alpha, beta, phi) == pytest.approx((0.5, 0.1, 0.9))
    with torch.no_grad():
        network.logits.copy_(torch.tensor([0.3, -0.4, 1.1]))
    rates = network.rates.tolist()
    np.testing.assert_allclose(network(x).detach().numpy(), each(x, lambda w: reference.holt(w, Z, *rates)), atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda logits: torch.func.functional_call(network, {"logits": logits}, (x,)), (network.logits,)
    )


def test_linear_networks_equal_loops_with_gradients() -> None:
    def relative(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        w, b = p["linear.weight"], p["linear.bias"]
        return each(x, lambda v: v[-1] + w @ (v - v[-1]) + b)

    def decomposed(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        def one(v: np.ndarray) -> np.ndarray:
            average = reference.moving_average(v, 5)
            parts = (p["average.weight"] @ average, p["average.bias"])
            return sum(parts) + p["remainder.weight"] @ (v - average) + p["remainder.bias"]

        return each(x, one)

    assert_equals(NLinear(T, Z).double(), windows(), relative)
    assert_equals(DLinear(T, Z, kernel_size=5).double(), windows(), decomposed)


def test_patches_equal_loops_with_gradients() -> None:
    torch.manual_seed(0)
    network = PatchTransformer(T, Z, patch=4, stride=3, dim=4, num_heads=2, num_layers=2).double().eval()
    assert_equals(
        network, windows(), lambda p, x: each(x, lambda v: reference.patch_transformer(v, p, 4, 3, heads=2, layers=2))
    )


@pytest.mark.parametrize("inputs", ["own", "all"])
@pytest.mark.parametrize("gaps", [False, True])
def test_least_squares_equal_the_augmented_problem(inputs: str, gaps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphseq.models.forecast.least_squares._CHUNK", 50)  # several chunks
    series = torch.randn(S, 40, V, generator=torch.Generator().manual_seed(0)).double()
    observed = torch.ones_like(series, dtype=torch.bool)
    if gaps:
        observed[0, 20, 1] = False
    network = LeastSquaresForecaster(3, 2, V, inputs=inputs, ridge=0.01).double()  # type: ignore[arg-type]  # a literal
    network.fit_to(SeriesSpan(series.where(observed, 0.0), series, observed))
    x = windows()[:, :, :3]
    for target in range(V):
        pasts, futures = [], []
        for s in range(S):
            for start in range(40 - 4):
                columns = [target] if inputs == "own" else list(range(V))
                if bool(observed[s, start : start + 5, columns].all()):
                    pasts.append(series[s, start : start + 3, columns].flatten().numpy())
                    futures.append(series[s, start + 3 : start + 5, target].numpy())
        weight, bias = reference.regression(np.stack(pasts), np.stack(futures), 0.01)
        rows = x[..., [target]].flatten(2) if inputs == "own" else x.flatten(2)
        np.testing.assert_allclose(network(x)[..., target].numpy(), rows.numpy() @ weight + bias, atol=1e-8)


def test_least_squares_of_constants_and_gaps_everywhere() -> None:
    ones = torch.ones(1, 20, 1)
    network = LeastSquaresForecaster(3, 2, 1, ridge=0.0)
    network.fit_to(SeriesSpan(ones, ones, ones.bool()))  # singular: the smallest solution is taken
    torch.testing.assert_close(network(torch.ones(1, 1, 3, 1)), torch.ones(1, 1, 2, 1))
    with pytest.raises(ValueError, match="variable 0"):
        network.fit_to(SeriesSpan(ones, ones, torch.arange(20).view(1, 20, 1) % 4 > 0))


def test_convolutions_equal_loops_with_gradients() -> None:
    torch.manual_seed(0)

    def forecast(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        y = np.zeros((B, S, Z, V))
        for b, s in np.ndindex(B, S):
            h = x[b, s].T
            for n in range(2):
                inner = h
                for name in ("first", "second"):
                    weight, bias = p[f"{name}.{n}.weight"], p[f"{name}.{n}.bias"]
                    inner = np.maximum(reference.causal_convolution(inner, weight, bias, 2**n), 0)
                skip = p["skip.weight"][:, :, 0] @ h + p["skip.bias"][:, None] if n == 0 else h
                h = np.maximum(inner + skip, 0)
            y[b, s] = (p["head.weight"] @ h[:, -1] + p["head.bias"]).reshape(Z, V)
        return y

    network = ConvolutionalForecaster(V, Z, hidden_channels=3, num_layers=2, kernel_size=2).double()
    assert_equals(network, windows(), forecast)


@pytest.mark.parametrize("changing", [False, True])
def test_recurrence_on_a_graph_equals_loops_with_gradients(changing: bool) -> None:
    torch.manual_seed(0)
    weights = torch.rand(B, T, 4).double() if changing else torch.rand(4).double()

    class OnRing(GraphRecurrentForecaster):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the graph is fixed
            return super().forward(x, RING, weights)

    def forecast(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        def conv(name: str, rows: np.ndarray, w: Tensor) -> np.ndarray:
            own, other, bias = (p[f"{name}.{part}"] for part in ("lin_root.weight", "lin_rel.weight", "lin_rel.bias"))
            return np.maximum(reference.mean_neighbours(rows, RING.numpy(), w.numpy(), own, other, bias), 0)

        y = np.zeros((B, S, Z, V))
        recurrent = {name.removeprefix("recurrence."): value for name, value in p.items() if "recurrence." in name}
        for b in range(B):
            steps = np.stack([conv("input", x[b, :, t], weights[b, t] if changing else weights) for t in range(T)])
            last = np.stack([reference.gru(steps[:, s], recurrent) for s in range(S)])
            read = conv("output", last, weights[b, -1] if changing else weights)
            y[b] = (read @ p["head.weight"].T + p["head.bias"]).reshape(S, Z, V)
        return y

    assert_equals(OnRing(V, Z, hidden_channels=3).double(), windows(), forecast)


def test_decoder_reads_its_own_forecast_or_the_truth() -> None:
    torch.manual_seed(0)
    network, x = RecurrentForecaster(V, Z, hidden_channels=5, targets=[1, 0]).double(), windows()
    target = torch.randn(B, S, Z, V).double()

    def decoded(true: Tensor | None) -> Tensor:
        rows = []
        for b in range(B):
            for s in range(S):
                _, state = network.encoder(x[b, s][None])
                read, steps = x[b, s, -1, [1, 0]], []
                for z in range(Z):
                    output, state = network.decoder(read.view(1, 1, V), state)
                    steps.append(network.head(output[0, 0]))
                    read = steps[-1] if true is None else true[b, s, z]
                rows.append(torch.stack(steps))
        return torch.stack(rows).view(B, S, Z, V)

    for ours, plain in ((network(x), decoded(None)), (network.forward_with_target(x, target, 1.0), decoded(target))):
        torch.testing.assert_close(ours, plain)
        pulled = [torch.autograd.grad(y.square().sum(), list(network.parameters())) for y in (ours, plain)]
        for one, other in zip(*pulled, strict=True):
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(network.forward_with_target(x, target, 0.0), decoded(None))
    torch.testing.assert_close(network.forward_with_target(x, torch.full_like(target, torch.nan), 1.0), decoded(None))


@pytest.mark.parametrize("level", ["last", "mean"])
@pytest.mark.parametrize("spread", [False, True])
def test_normalised_windows_follow_level_and_spread(level: str, spread: bool) -> None:
    network = NormalizedWindows(NLinear(T, Z), level=level, spread=spread).double()  # type: ignore[arg-type]  # a literal
    x = windows()
    torch.testing.assert_close(network(x + 100), network(x) + 100)
    if spread:
        torch.testing.assert_close(network(7 * x), 7 * network(x))
    assert bool(network(torch.ones_like(x)).isfinite().all())


@pytest.mark.parametrize("spread", [False, True])
def test_differenced_windows_equal_loops_with_gradients(*, spread: bool) -> None:
    torch.manual_seed(0)
    network = DifferencedWindows(NLinear(T, Z), spread=spread).double()
    x = windows()
    x[1, 0] = 4.0  # a window without change stays as it is
    linear: nn.Linear = network.network.linear  # type: ignore[assignment]  # of NLinear
    x.requires_grad_()
    expected = torch.empty(B, S, Z, V, dtype=torch.float64)
    for b, s, v in itertools.product(range(B), range(S), range(V)):
        row = x[b, s, :, v]
        changes = [row[0] * 0, *(row[t] - row[t - 1] for t in range(1, T))]
        size = sum(change.abs() for change in changes) / (T - 1) if spread else torch.ones(())
        divided = torch.stack([change / size if size > 0 else change for change in changes])
        steps = divided[-1] + linear.weight @ (divided - divided[-1]) + linear.bias
        for z in range(Z):
            expected[b, s, z, v] = row[-1] + size * steps[: z + 1].sum()
    y = network(x)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    inputs = [x, *network.parameters()]
    ours, theirs = (torch.autograd.grad((weight * out).sum(), inputs) for out in (y, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    if spread:
        torch.testing.assert_close(y[1, 0], torch.full((Z, V), 4.0, dtype=torch.float64))


NETWORKS = {
    "nlinear": lambda: NLinear(T, Z),
    "dlinear": lambda: DLinear(T, Z, kernel_size=3),
    "smoothing": lambda: ExponentialSmoothing(T, Z),
    "lstm": lambda: RecurrentForecaster(V, Z, hidden_channels=4),
    "gru": lambda: RecurrentForecaster(V, Z, hidden_channels=4, cell="gru", num_layers=2),
    "convolution": lambda: ConvolutionalForecaster(V, Z, hidden_channels=4),
    "patches": lambda: PatchTransformer(T, Z, patch=4, stride=2, dim=8, num_heads=2, dropout=0.0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_windows_and_series_are_independent_and_all_parameters_learn(name: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = NETWORKS[name]().double()
    x = windows()
    y = network(x)
    assert y.shape == (B, S, Z, V)
    torch.testing.assert_close(network(x[1:])[0], y[1])
    torch.testing.assert_close(network(x[:, [2, 0, 1]]), y[:, [2, 0, 1]])
    changed = x.clone()
    changed[0, 1:] += 3
    torch.testing.assert_close(network(changed)[0, 0], y[0, 0])
    y.square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
    other = copy.deepcopy(network)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))


def test_covariates_of_the_future_are_read_by_the_decoder_only_when_known() -> None:
    network = RecurrentForecaster(V, Z, num_known=2, hidden_channels=4).double()
    x, known = windows(), torch.randn(B, T + Z, 2).double()
    later = known.clone()
    later[:, T + 2 :] += 5
    first, second = network(x, known), network(x, later)
    torch.testing.assert_close(first[:, :, :2], second[:, :, :2])
    assert not torch.allclose(first[:, :, 2], second[:, :, 2])
    with pytest.raises(ValueError, match="known"):
        network(x)
    convolution = ConvolutionalForecaster(V, Z, num_known=2).double()
    torch.testing.assert_close(convolution(x, known), convolution(x, later))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Persistence(0), "horizon"),
        (lambda: SeasonalNaive(3, 0), "season"),
        (lambda: SeasonalNaive(3, T + 1)(windows()), "season"),
        (lambda: Drift(3)(windows()[:, :, :1]), "1 step"),
        (lambda: NLinear(0, 3), "window"),
        (lambda: DLinear(4, 3, kernel_size=4), "kernel_size"),
        (lambda: ExponentialSmoothing(1, 3), "window"),
        (lambda: ExponentialSmoothing(4, 3)(windows()), "steps"),
        (lambda: NormalizedWindows(nn.Identity(), level="first"), "level"),
        (lambda: DifferencedWindows(nn.Identity())(windows()[:, :, :1]), "1 step"),
        (lambda: DifferencedWindows(Persistence(3, [0]))(windows()), "1 of 2 variables"),
        (lambda: LeastSquaresForecaster(3, 2, 1, ridge=-1.0), "ridge"),
        (lambda: LeastSquaresForecaster(3, 2, 2, targets=[2]), r"targets is \[2\]; .* 0 to 1"),
        (lambda: RecurrentForecaster(2, 4, targets=[-1]), r"targets is \[-1\]"),
        (lambda: RecurrentForecaster(2, 4, targets=[]), r"targets is \[\]"),
        (lambda: Persistence(4, targets=[1, 1]), r"targets is \[1, 1\]"),
        (lambda: ConvolutionalForecaster(2, 4, num_targets=0), "num_targets is 0"),
        (lambda: GraphRecurrentForecaster(2, 4, num_targets=0), "num_targets is 0"),
        (lambda: LeastSquaresForecaster(3, 2, 1, inputs="some"), "inputs"),
        (lambda: LeastSquaresForecaster(3, 2, 1)(windows()), "batch, series, 3"),
        (lambda: RecurrentForecaster(V, Z, cell="rnn"), "cell"),
        (lambda: RecurrentForecaster(V, Z, hidden_channels=0), "hidden_channels"),
        (lambda: PatchTransformer(8, 2, patch=9), "patch"),
        (lambda: PatchTransformer(16, 2, dim=10, num_heads=4), "num_heads"),
        (lambda: GraphRecurrentForecaster(V, 0), "horizon"),
    ],
)
def test_bad_input(build, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build()


@pytest.mark.parametrize("wrapper", [NormalizedWindows, DifferencedWindows])
def test_a_closed_form_is_not_read_relative_to_its_windows(wrapper: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match="LeastSquaresForecaster"):
        wrapper(LeastSquaresForecaster(3, 2, 1))


def test_a_regression_that_is_not_solved_makes_no_forecast() -> None:
    network = LeastSquaresForecaster(3, 2, 1)
    with pytest.raises(ValueError, match="not solved yet"):
        network(torch.randn(1, 1, 3, 1))
    line = torch.arange(20.0).view(1, 20, 1)
    network.fit_to(SeriesSpan(line, line, torch.ones_like(line, dtype=torch.bool)))
    loaded = LeastSquaresForecaster(3, 2, 1)
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded(line[None, :, :3]), copy.deepcopy(network)(line[None, :, :3]))


def test_persistence_repeats_the_last_observed_value() -> None:
    x = windows()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[0, 0, :, 0] = False
    x = x.where(mask, 0.0)
    last = [
        next((float(x[b, s, t, v]) for t in reversed(range(T)) if mask[b, s, t, v]), 0.0)
        for b, s, v in itertools.product(range(B), range(S), range(V))
    ]
    expected = torch.tensor(last).double().view(B, S, 1, V).expand(-1, -1, Z, -1)
    assert torch.equal(Persistence(Z)(x, mask), expected)
    assert torch.equal(Persistence(Z, targets=[1])(x, mask), expected[..., 1:])
    batch = WindowBatch(x, expected, loc=torch.zeros(S, 1, V), scale=torch.ones(S, 1, V), mask=mask)
    assert torch.equal(apply_model(Persistence(Z), batch), expected)
