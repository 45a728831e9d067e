"""What is passed to the kernels of flash-linear-attention, by a stand-in, and by the package where it is installed."""

import sys
from types import ModuleType

import pytest
import torch

from graphseq.ops import gated_linear_attention, gated_linear_recurrent
from graphseq.ops.gated_linear import kernels
from tests.ops.gated_linear.test_forms import inputs


@pytest.fixture
def stand_in(monkeypatch):
    """A package with the signature of flash-linear-attention: heads behind steps, gates by g or gk."""
    called = []

    def step_by_step(name, q, k, v, g, scale, initial_state, output_final_state):
        assert output_final_state
        assert all(part.is_contiguous() and part.dtype == torch.float32 for part in (q, k, v, g))
        called.append((name, tuple(q.shape)))
        swapped = (part.transpose(1, 2) for part in (q, k, v, g))
        o, state = gated_linear_recurrent(*swapped, state=initial_state, scale=scale)
        return o.transpose(1, 2), state

    def chunk_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False):
        return step_by_step("chunks", q, k, v, g, scale, initial_state, output_final_state)

    def fused_recurrent_gla(q, k, v, gk=None, scale=None, initial_state=None, output_final_state=False):
        return step_by_step("steps", q, k, v, gk, scale, initial_state, output_final_state)

    module = ModuleType("fla.ops.gla")
    module.chunk_gla, module.fused_recurrent_gla = chunk_gla, fused_recurrent_gla
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "fla.ops.gla", module)
    kernels.flash_kernels.cache_clear()
    yield called
    kernels.flash_kernels.cache_clear()


def test_kernels_are_called_on_a_gpu_and_give_the_same(stand_in, monkeypatch):
    q, k, v, g, state = inputs(9, heads=2, dtype=torch.float32)
    gated_linear_attention(q, k, v, g)
    assert stand_in == [], "not on a processor"
    monkeypatch.setattr(kernels, "on_gpu", lambda q: True)
    for steps in (9, 1):
        given = [part[:, :, :steps].requires_grad_() for part in (q, k, v, g)]
        found, expected = (
            form(*given, state=state, scale=0.3) for form in (gated_linear_attention, gated_linear_recurrent)
        )
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
        gradients = [torch.autograd.grad(o.sum(), given) for o, _ in (found, expected)]
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))
    assert stand_in == [("chunks", (2, 9, 2, 3)), ("steps", (2, 1, 2, 3))]
    half = gated_linear_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), g)
    assert half[0].dtype == torch.bfloat16
    gated_linear_attention(*(part.double() for part in (q, k, v, g)))
    assert len(stand_in) == 3, "the kernels have no double precision"


def test_without_the_package_the_own_form_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "fla", None)
    kernels.flash_kernels.cache_clear()
    monkeypatch.setattr(kernels, "on_gpu", lambda q: True)
    *given, state = inputs(4, dtype=torch.float32)
    found, expected = (form(*given, state=state) for form in (gated_linear_attention, gated_linear_recurrent))
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    with pytest.raises(ImportError, match="flash-linear-attention"):
        kernels.gated_linear_kernel(*given)
    kernels.flash_kernels.cache_clear()


@pytest.mark.gpu
def test_the_package_itself():
    pytest.importorskip("fla", reason="flash-linear-attention is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    given = [part.cuda() for part in inputs(100, heads=2, width=64, values=64, dtype=torch.float32)]
    found = gated_linear_attention(*given[:4], state=given[4])
    expected = gated_linear_recurrent(*given[:4], state=given[4])
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max() / other.abs().max()) < 5e-3
