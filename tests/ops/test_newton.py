import itertools

import pytest
import torch
from torch import nn

from graphseq.ops import linear_scan, newton_solve, processor, sequential_solve

DOUBLE = {"dtype": torch.float64}


def cell(weight, state, x):
    return torch.tanh(weight * state + x)


def pair(weight, state, x):
    """Two numbers a channel that depend on each other."""
    c, h = state.unbind(-2)
    new = torch.sigmoid(weight * h) * c + x
    return torch.stack([new, torch.tanh(new - weight * h + 0.3 * c)], -2)


def draw(block, rows=2, steps=30, dim=3, scale=0.7):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, **DOUBLE)

    weight = (scale * normal(dim)).requires_grad_()
    x = normal(rows, steps, dim).requires_grad_()
    initial = normal(rows, *((2,) if block else ()), dim).requires_grad_()
    return weight, x, initial


def loop(step, x, initial):
    state, found = initial, []
    for t in range(x.shape[1]):
        state = step(state, x[:, t])
        found.append(state)
    return torch.stack(found, 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("solve", [newton_solve, sequential_solve])
@pytest.mark.parametrize("function", [cell, pair])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_equals_the_recorded_loop(solve, function, steps):
    weight, x, initial = draw(function is pair, steps=steps)

    def step(state, x):
        return function(weight, state, x)

    expected = loop(step, x, initial)
    found = solve(step, x, initial)
    if solve is newton_solve:
        found, report = found
        assert bool(report.converged)
        assert not report.fell_back
        assert float(report.residual) < 1e-14
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    arriving = torch.randn_like(expected)
    ours = torch.autograd.grad(found, (weight, x, initial), arriving)
    theirs = torch.autograd.grad(expected, (weight, x, initial), arriving)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in zip(ours, theirs, strict=True))


def test_gradcheck():
    weight, x, initial = draw(False, steps=6)

    def solve(weight, x, initial):
        return newton_solve(lambda state, x: cell(weight, state, x), x, initial)[0]

    assert torch.autograd.gradcheck(solve, (weight, x, initial))
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(solve(weight, x, initial).sum(), x, create_graph=True)


def test_a_linear_recurrence_takes_one_iteration():
    _, x, initial = draw(False, steps=200)
    a = torch.empty(3, **DOUBLE).uniform_(-0.9, 0.9)
    found, report = newton_solve(lambda state, x: a * state + x, x, initial)
    assert report.iterations == 1
    assert torch.allclose(found, linear_scan(a.expand_as(x), x, initial), rtol=0, atol=1e-12)


def test_errors_are_squared_and_first_steps_are_exact(monkeypatch):
    """After k iterations the first k states are those of the loop, and the others' error falls quadratically."""
    weight, x, initial = draw(False, steps=200)

    def step(state, x):
        return cell(weight, state, x)

    with torch.no_grad():
        expected = loop(step, x, initial)
        errors = []
        for count in range(1, 5):
            found, report = newton_solve(step, x, initial, max_iterations=count, fallback=False, tolerance=1e-300)
            assert report.iterations == count
            assert torch.allclose(found[:, : count + 1], expected[:, : count + 1], rtol=0, atol=1e-14)
            errors.append(float((found - expected).abs().max()))
    assert errors[0] > 1e-3
    for before, after in itertools.pairwise(errors):
        assert after <= 10 * before**2 + 1e-14


def chaotic(state, x):
    """A map whose slope is up to 6, so that Newton's steps grow from one time step to the next."""
    return 3 * torch.sin(2 * state) + x


@pytest.mark.usefixtures("way")
def test_divergence_is_reported_and_replaced_by_the_loop():
    _, x, initial = draw(False, steps=3000)
    expected = loop(chaotic, x.detach(), initial.detach())
    found, report = newton_solve(chaotic, x, initial)
    assert report.fell_back
    assert not bool(report.converged)
    assert torch.equal(found, expected)
    (gradient,) = torch.autograd.grad(found[:, :3].sum(), initial)
    (theirs,) = torch.autograd.grad(loop(chaotic, x[:, :3], initial).sum(), initial)
    assert torch.allclose(gradient, theirs)
    raw, told = newton_solve(chaotic, x, initial, fallback=False)
    assert not told.fell_back
    assert not bool(told.converged)
    assert not torch.allclose(raw, expected)


def test_numbers_beyond_the_range_end_the_iteration():
    x = torch.zeros(1, 2000, 1)
    found, report = newton_solve(lambda state, x: 2 * state + state.square().clamp(max=1) + x, x, torch.ones(1, 1))
    assert report.fell_back
    assert not bool(report.residual.isfinite())
    assert report.iterations < 10
    assert float(found[0, 1, 0]) == 7


def test_missing_numbers_are_those_of_the_loop():
    x = torch.randn(1, 10, 2)
    x[0, 4] = torch.nan
    found, report = newton_solve(lambda state, x: torch.tanh(state + x), x, torch.zeros(1, 2))
    assert report.fell_back
    assert bool(found[0, :4].isfinite().all())
    assert bool(found[0, 4:].isnan().all())


def test_an_accelerator_reads_the_residual_once_or_never(monkeypatch):
    """Where reads wait, all iterations are made, and no value decides in between."""
    monkeypatch.setattr("graphseq.ops.newton.reads_are_free", lambda device: False)
    monkeypatch.setattr(processor, "_numba_imports", lambda: False)
    weight, x, initial = draw(False)

    def step(state, x):
        return cell(weight, state, x)

    read = []
    real = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: read.append(1) or real(tensor))
    found, report = newton_solve(step, x, initial, max_iterations=8)
    assert (report.iterations, len(read)) == (8, 1)
    newton_solve(step, x, initial, fallback=False)
    assert len(read) == 1
    monkeypatch.undo()
    assert torch.allclose(found, loop(step, x, initial), rtol=0, atol=1e-12)


def test_nothing_of_the_iterations_is_kept():
    """Memory for the gradient does not depend on the number of iterations."""
    weight, x, initial = draw(False, steps=64)

    def linearize(state, x):
        new = cell(weight, state, x)
        return new, weight * (1 - new * new)

    def kept(count):
        sizes, options = [], {"linearize": linearize, "max_iterations": count, "fallback": False, "tolerance": 1e-300}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            newton_solve(lambda state, x: cell(weight, state, x), x, initial, **options)
        return sum(sizes)

    assert kept(1) == kept(6) > 0
    with torch.no_grad():
        assert kept(6) == 0


def test_parameters_of_a_module_get_their_gradient():
    layer = nn.Linear(4, 3).double()
    x, initial = torch.randn(2, 9, 4, **DOUBLE), torch.zeros(2, 3, **DOUBLE)

    def step(state, x):
        return torch.tanh(0.5 * state + layer(x))

    ours = torch.autograd.grad(newton_solve(step, x, initial)[0].sum(), list(layer.parameters()))
    theirs = torch.autograd.grad(loop(step, x, initial).sum(), list(layer.parameters()))
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))


def test_no_steps():
    x, initial = torch.zeros(2, 0, 3), torch.zeros(2, 2, 3)
    found, report = newton_solve(lambda state, x: state, x, initial)
    assert found.shape == sequential_solve(lambda state, x: state, x, initial).shape == (2, 0, 2, 3)
    assert (report.iterations, report.fell_back) == (0, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, r"\(2, 3\)"),
        ({"x": torch.zeros(2, 3, 4, dtype=torch.int64)}, "int64"),
        ({"initial": torch.zeros(3, 4)}, r"initial is \(3, 4\)"),
        ({"initial": torch.zeros(2, 3, 4)}, r"initial is \(2, 3, 4\)"),
        ({"initial": torch.zeros(2, 4).double()}, "float64"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
    ],
)
def test_refused(change, message):
    given = {"x": torch.zeros(2, 5, 4), "initial": torch.zeros(2, 4), **change}
    with pytest.raises(ValueError, match=message):
        newton_solve(lambda state, x: state + x, given.pop("x"), given.pop("initial"), **given)
