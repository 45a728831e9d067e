"""Every form of the scan, the compiled one included, against the loop over numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import linear_scan, processor
from graphseq.ops.scan import compiled, plain
from tests.ops.scan.draws import draw
from tests.reference import recurrences as reference

METHODS = ["compiled", "chunked", "tree", "doubling", "loop", "auto"]


def brute_force(a, b, initial, reverse):
    h = torch.empty_like(b)
    for row in range(len(b)):
        for d in range(b.shape[-1]):
            h[row, ..., d] = torch.tensor(
                reference.linear(
                    a[row, ..., d].tolist(), b[row, ..., d].tolist(), initial[row, ..., d].tolist(), reverse
                ),
                dtype=torch.float64,
            )
    return h


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("block", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 3), steps=st.integers(1, 20), dim=st.integers(1, 4), reverse=st.booleans(), seed=st.integers(0)
)
def test_equals_the_loop_with_gradients(method, block, rows, steps, dim, reverse, seed):
    parts = draw(rows, steps, dim, block, seed % 2**31)
    h = linear_scan(*parts, reverse=reverse, method=method)
    assert torch.allclose(h, brute_force(*parts, reverse), rtol=1e-10, atol=1e-10)
    turned = [parts[0].flip(1), parts[1].flip(1), parts[2]] if reverse else parts
    plainly = plain.scan(*turned)
    plainly = plainly.flip(1) if reverse else plainly
    arriving = torch.randn_like(h)
    ours, theirs = (torch.autograd.grad(y, parts, arriving) for y in (h, plainly))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_added_up_in_single(method):
    a, b = torch.full((1, 300, 1), 1.0, dtype=torch.bfloat16), torch.ones(1, 300, 1, dtype=torch.bfloat16)
    h = linear_scan(a, b, method=method)
    assert h.dtype == torch.bfloat16
    assert float(h[0, -1, 0]) == 300  # in bfloat16 256 + 1 is 256


@pytest.mark.parametrize("method", METHODS)
def test_infinite_and_missing_numbers_stay_after_their_step(method):
    a, b = torch.full((1, 8, 1), 0.5), torch.ones(1, 8, 1)
    b[0, 4] = torch.nan
    h = linear_scan(a, b, method=method)
    assert bool(h[0, 4:].isnan().all())
    assert bool(h[0, :4].isfinite().all())


def test_scans_do_not_loop_over_all_steps(monkeypatch):
    """The number of calls of torch grows with log T or the root of T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.calls += 1
            return func(*args, **(kwargs or {}))

    def calls(method, steps):
        Count.calls = 0
        a, b, _ = (part.detach() for part in draw(1, steps, 1))
        with Count():
            linear_scan(a, b, method=method)
        return Count.calls

    for method in ("tree", "doubling"):
        assert calls(method, 4096) < 1.6 * calls(method, 256)
    assert calls("chunked", 4096) < 4.5 * calls("chunked", 256)


def test_compiled_needs_numba_and_is_not_assumed(monkeypatch):
    monkeypatch.setattr(processor, "_numba_imports", lambda: False)
    with pytest.raises(ValueError, match="'compiled'"):
        linear_scan(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), method="compiled")


@pytest.mark.parametrize("numba", [True, False])
def test_a_processor_takes_the_compiled_loop_if_it_can(numba, monkeypatch):
    monkeypatch.setattr(processor, "_numba_imports", lambda: numba)
    taken = []
    for form in ("scan", "gradients"):
        real = getattr(compiled, form)
        monkeypatch.setattr(compiled, form, lambda *given, form=form, real=real: taken.append(form) or real(*given))
    linear_scan(*draw()).sum().backward()
    assert taken == (["scan", "gradients"] if numba else [])
