import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import para, para_gru, para_lstm
from graphseq.ops.para import plain
from tests.reference import recurrences as reference

CELLS = {"gru": (para_gru, 3, ()), "lstm": (para_lstm, 5, (2,))}
MODES = ["auto", "parallel", "sequential"]


def draw(cell, rows=2, steps=11, dim=3, scale=0.6, seed=0, dtype=torch.float64):
    _, diagonals, parts = CELLS[cell]
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, steps, 3 * dim), (diagonals, dim), (rows, *parts, dim))
    gates, weight, initial = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [part.to(dtype).requires_grad_() for part in (gates, scale * weight, initial)]


def recorded_loop(cell, gates, weight, initial):
    state, found = initial, []
    for x in gates.unbind(1):
        state = getattr(plain, cell)(state, x, weight)
        found.append(state)
    return torch.stack(found, 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 3), steps=st.integers(1, 12), dim=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_all_modes_equal_the_loop_over_numbers(cell, rows, steps, dim, seed):
    parts = draw(cell, rows, steps, dim, seed=seed)
    gates, weight, initial = (part.tolist() for part in parts)
    expected = torch.tensor(
        [reference.states(cell, gates[row], weight, initial[row]) for row in range(rows)], dtype=torch.float64
    )
    recorded = recorded_loop(cell, *parts)
    assert torch.allclose(recorded, expected, rtol=0, atol=1e-12)
    arriving = torch.randn_like(expected)
    theirs = torch.autograd.grad(recorded, parts, arriving)
    for mode in MODES:
        states, report = CELLS[cell][0](*parts, mode=mode)
        assert torch.allclose(states, expected, rtol=0, atol=1e-12)
        assert (report is None) == (mode != "parallel")
        ours = torch.autograd.grad(states, parts, arriving)
        assert all(torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_jacobian_is_that_of_the_step(cell):
    gates, weight, initial = (part.detach() for part in draw(cell, rows=1, steps=1))
    new, jacobian = getattr(plain, f"{cell}_jacobian")(initial[0], gates[0, 0], weight)
    assert torch.allclose(new, getattr(plain, cell)(initial[0], gates[0, 0], weight), rtol=0, atol=1e-15)
    whole = torch.func.jacrev(lambda state: getattr(plain, cell)(state, gates[0, 0], weight))(initial[0])
    if cell == "gru":
        whole, jacobian = whole[None, :, None], jacobian[None, None]
    for i in range(whole.shape[0]):
        for j in range(whole.shape[2]):  # (2, D, 2, D): channels do not depend on each other
            assert torch.allclose(whole[i, :, j], torch.diag(jacobian[i, j]), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_gradcheck(cell, mode):
    parts = draw(cell, rows=2, steps=4, dim=2)
    assert torch.autograd.gradcheck(lambda *given: CELLS[cell][0](*given, mode=mode)[0], parts)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_single_precision(cell, mode):
    parts = draw(cell, rows=3, steps=300, dim=40, dtype=torch.float32, scale=0.4)
    states, _ = CELLS[cell][0](*parts, mode=mode)
    assert states.dtype == torch.float32
    exact = [part.detach().double().requires_grad_() for part in parts]
    expected = recorded_loop(cell, *exact)
    assert torch.allclose(states.double(), expected, rtol=0, atol=5e-6)
    arriving = torch.randn_like(states)
    ours = torch.autograd.grad(states, parts, arriving)
    theirs = torch.autograd.grad(expected, exact, arriving.double())
    assert all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_newton_equals_the_loop_on_a_device(cell, device):
    parts = [part.detach().to(device).requires_grad_() for part in draw(cell, steps=70)]
    states, report = CELLS[cell][0](*parts, mode="parallel")
    assert bool(report.converged)
    expected = recorded_loop(cell, *parts)
    assert torch.allclose(states, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(y.square().sum(), parts) for y in (states, expected))
    assert all(torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
def test_gates_that_are_shut_or_open(cell):
    """A gate at 0 or 1 keeps or replaces the state exactly, and gradients stay finite."""
    gates, weight, initial = draw(cell, rows=1, steps=3, dim=2)
    with torch.no_grad():
        gates[0, 0, :2] = -1e4 if cell == "gru" else 1e4  # z of the GRU at 0, f of the LSTM at 1: the state is kept
        gates[0, 1, :2] = 1e4 if cell == "gru" else -1e4  # the candidate replaces it
    for mode in ("parallel", "sequential"):
        states, report = CELLS[cell][0](gates, weight, initial, mode=mode)
        kept = states if cell == "gru" else states[:, :, 0]
        start = initial if cell == "gru" else initial[:, 0]
        assert torch.allclose(kept[:, 0], start, rtol=0, atol=1e-12)
        assert bool((kept[:, 1].abs() <= 1).all())
        assert report is None or bool(report.converged)
        gradients = torch.autograd.grad(states.sum(), (gates, weight, initial))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert bool((gradients[0][0, 0, :2] == 0).all())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_works_in_single(cell, dtype):
    parts = [part.detach().to(dtype) for part in draw(cell, steps=200)]
    states, _ = CELLS[cell][0](*parts)
    exact, _ = CELLS[cell][0](*(part.float() for part in parts))
    assert states.dtype == dtype
    assert torch.equal(states, exact.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, _ = CELLS[cell][0](*(part.float() for part in parts), mode="parallel")
    assert torch.allclose(again, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("numba", [True, False])
def test_the_faster_mode_is_chosen_by_size(numba, monkeypatch):
    monkeypatch.setattr("graphseq.ops.processor._numba_imports", lambda: numba)
    for rows, steps, dim, parallel in (
        (1, 128, 64, True),
        (8, 128, 64, True),
        (9, 128, 64, False),
        (1, 127, 64, False),
    ):
        _, report = para_gru(*draw("gru", rows, steps, dim))
        assert (report is not None) == (parallel and not numba)


def test_an_accelerator_solves_all_steps_at_once_but_decodes_step_by_step():
    for steps, parallel in ((1, False), (2, True), (64, True)):
        gates = torch.empty(1, steps, 3, device="meta")
        assert para._is_parallel(gates, gates[:, 0, :1], False) == parallel


@pytest.mark.usefixtures("way")
def test_newton_that_does_not_converge_falls_back():
    """Large weights of opposite sign: the map has steep slopes, and one iteration is too few."""
    parts = draw("gru", rows=2, steps=200, scale=20.0)
    states, report = para_gru(*parts, mode="parallel", max_iterations=1)
    assert report.fell_back
    assert not bool(report.converged)
    assert torch.allclose(states, recorded_loop("gru", *parts), rtol=0, atol=1e-8)
    rough, report = para_gru(*parts, mode="parallel", max_iterations=1, fallback=False)
    assert not report.fell_back
    assert not torch.allclose(rough, states, rtol=0, atol=1e-8)


def test_nothing_is_kept_without_gradients_and_second_derivatives_are_refused():
    parts = draw("gru")
    for mode in ("parallel", "sequential"):
        with torch.no_grad():
            assert para_gru(*parts, mode=mode)[0].grad_fn is None
        with pytest.raises(RuntimeError, match="create_graph"):
            torch.autograd.grad(para_gru(*parts, mode=mode)[0].sum(), parts[0], create_graph=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cell", CELLS)
def test_no_steps_and_no_rows(cell):
    for rows, steps in ((2, 0), (0, 3)):
        parts = draw(cell, rows, steps)
        states, _ = CELLS[cell][0](*parts, mode="sequential")
        assert states.shape == (rows, steps, *CELLS[cell][2], 3)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gates": torch.zeros(2, 5, 10)}, r"\(2, 5, 10\)"),
        ({"gates": torch.zeros(2, 9)}, r"\(2, 9\)"),
        ({"gates": torch.zeros(2, 5, 9, dtype=torch.int64)}, "int64"),
        ({"weight": torch.zeros(4, 3)}, r"weight is \(4, 3\)"),
        ({"initial": torch.zeros(3, 3)}, r"initial is \(3, 3\)"),
        ({"mode": "newton"}, "mode is 'newton'"),
    ],
)
def test_refused(cell, change, message):
    gates, weight, initial = (part.detach().float() for part in draw(cell, steps=5))
    given = {"gates": gates, "weight": weight, "initial": initial, **change}
    with pytest.raises(ValueError, match=message):
        CELLS[cell][0](given.pop("gates"), given.pop("weight"), given.pop("initial"), **given)
