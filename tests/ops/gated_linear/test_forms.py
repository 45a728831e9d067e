"""All forms of gated linear attention are the sum over pairs of steps, gradients too."""

import inspect
import math

import pytest
import torch
from torch.nn import functional

from graphseq.ops import (
    gated_linear_attention,
    gated_linear_chunkwise,
    gated_linear_quadratic,
    gated_linear_recurrent,
)
from tests.reference import gated_linear as reference

FORMS = {
    "recurrent": gated_linear_recurrent,
    "quadratic": gated_linear_quadratic,
    "chunkwise": gated_linear_chunkwise,
    "by rule": gated_linear_attention,
}


def inputs(steps, batch=2, heads=1, width=3, values=2, temperature=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(steps)
    q, k = torch.randn(2, batch, heads, steps, width, dtype=dtype, generator=generator).unbind()
    v = torch.randn(batch, heads, steps, values, dtype=dtype, generator=generator)
    logits = torch.randn(batch, heads, steps, width, dtype=dtype, generator=generator)
    state = torch.randn(batch, heads, width, values, dtype=dtype, generator=generator)
    return q, k, v, functional.logsigmoid(logits) / temperature, state


def by_pairs(q, k, v, g, state=None):
    rows = [[reference.outputs_and_state(q[b, h], k[b, h], v[b, h], g[b, h].exp(),
                                         None if state is None else state[b, h])
             for h in range(q.shape[1])] for b in range(q.shape[0])]  # fmt: skip
    return tuple(torch.stack([torch.stack([head[part] for head in row]) for row in rows]) for part in (0, 1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [1, 2, 5, 8])
@pytest.mark.parametrize("given", [False, True])
def test_equals_the_sum_over_pairs(form, steps, given):
    *tensors, state = inputs(steps)
    tensors = [tensor.requires_grad_() for tensor in (*tensors, *([state] if given else []))]
    incoming = torch.randn(2, 1, steps, 2, dtype=torch.float64), torch.randn(2, 1, 3, 2, dtype=torch.float64)

    def run(function):
        found = function(*tensors[:4], state=tensors[4] if given else None)
        gradients = torch.autograd.grad(found, tensors, incoming)
        return [*found, *gradients]

    expected = run(by_pairs)
    for one, other in zip(run(FORMS[form]), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize(("steps", "size"), [(1, 4), (3, 8), (8, 8), (13, 4), (13, 1), (37, 16), (64, 16)])
def test_chunks_of_any_size_equal_the_recurrence(steps, size):
    *tensors, state = inputs(steps, heads=2)
    expected = gated_linear_recurrent(*tensors, state=state)
    found = gated_linear_chunkwise(*tensors, state=state, chunk_size=size)
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(found, expected, strict=True))


def test_gradients_are_those_of_the_recurrence():
    *tensors, state = (tensor.requires_grad_() for tensor in inputs(70, heads=2))
    incoming = torch.randn(2, 2, 70, 2, dtype=torch.float64), torch.randn(2, 2, 3, 2, dtype=torch.float64)
    expected, found = (
        torch.autograd.grad(form(*tensors, state=state), [*tensors, state], incoming)
        for form in (gated_linear_recurrent, gated_linear_chunkwise)
    )
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(found, expected, strict=True))


def test_gradcheck():
    q, k, v, g, state = (tensor.requires_grad_() for tensor in inputs(5, batch=1, width=2))
    assert torch.autograd.gradcheck(
        lambda *given: gated_linear_chunkwise(*given[:4], state=given[4], chunk_size=4), (q, k, v, g, state)
    )


@pytest.mark.parametrize("form", FORMS)
def test_limits(form):
    q, k, v, _, state = inputs(11)
    kept, _ = FORMS[form](q, k, v, torch.zeros_like(q))
    assert torch.allclose(kept, (q @ k.mT / math.sqrt(3)).tril() @ v), "gates of 1: linear attention"
    steps = torch.arange(11.0, dtype=torch.float64)
    decayed, _ = FORMS[form](q, k, v, torch.full_like(q, math.log(0.9)))
    retention = (q @ k.mT / math.sqrt(3)) * 0.9 ** (steps[:, None] - steps).clamp(min=0)
    assert torch.allclose(decayed, retention.tril() @ v), "a constant gate: retention"
    cleared, last = FORMS[form](q, k, v, torch.full_like(q, -math.inf), state=state)
    assert torch.allclose(cleared, (q * k).sum(-1, keepdim=True) / math.sqrt(3) * v), "gates of 0: the step alone"
    assert torch.allclose(last, k[:, :, -1, :, None] * v[:, :, -1, None])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_of_0_and_1_among_others(form, dtype):
    q, k, v, g, state = inputs(150, width=4, temperature=16.0, dtype=dtype)
    g[0, 0, 40], g[0, 0, 100, 1], g[1, :, 60:70], g[:, :, 120] = -math.inf, -math.inf, -math.inf, 0.0
    double = [tensor.double() for tensor in (q, k, v, g.exp(), state)]
    s, expected = double[4], []
    for t in range(150):
        s = double[3][:, :, t, :, None] * s + double[1][:, :, t, :, None] * double[2][:, :, t, None]
        expected.append((double[0][:, :, t, None] @ s)[:, :, 0] / 2)
    g.requires_grad_()
    o, last = FORMS[form](q, k, v, g, state=state)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    assert torch.allclose(o.double(), torch.stack(expected, 2), atol=tolerance)
    assert torch.allclose(last.double(), s, atol=tolerance)
    o.sum().backward()
    assert torch.isfinite(g.grad).all()
    assert (g.grad[1, :, 65] == 0).all(), "what is cleared has no gradient"


def test_small_gates_over_many_steps_where_the_factorised_form_overflows():
    q, k, v, g, _ = inputs(2048, batch=1, width=8, values=4, temperature=0.02, dtype=torch.float32)
    assert not torch.isfinite(reference.factorised(q, k, v, g)).all()
    given = [tensor.requires_grad_() for tensor in (q, k, v, g)]
    o, _ = gated_linear_chunkwise(*given)
    gradients = torch.autograd.grad(o.square().sum(), given)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    o = o.detach()
    exact, _ = gated_linear_chunkwise(*(tensor.detach().double() for tensor in given), chunk_size=1)
    assert float((o - exact).abs().max() / exact.abs().max()) < 1e-4


def test_a_state_continues_a_sequence_and_later_steps_change_nothing():
    q, k, v, g, _ = inputs(40)
    whole, last = gated_linear_chunkwise(q, k, v, g, chunk_size=16)
    first, state = gated_linear_chunkwise(*(part[:, :, :23] for part in (q, k, v, g)), chunk_size=16)
    second, end = gated_linear_quadratic(*(part[:, :, 23:] for part in (q, k, v, g)), state=state)
    assert torch.allclose(torch.cat([first, second], 2), whole)
    assert torch.allclose(end, last)
    moved = v.clone()
    moved[:, :, 23] += 1
    assert torch.equal(gated_linear_chunkwise(q, k, moved, g, chunk_size=16)[0][:, :, :23], whole[:, :, :23])


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_in_single(form):
    q, k, v, g, _ = inputs(30, dtype=torch.float32)
    half = [tensor.bfloat16() for tensor in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        o, state = FORMS[form](*half, g)
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact, _ = gated_linear_recurrent(*(tensor.float() for tensor in half), g)
    assert torch.allclose(o.float(), exact, atol=1e-6, rtol=2**-8)


def test_forms_have_one_signature():
    signatures = {name: inspect.signature(form) for name, form in FORMS.items()}
    shared = list(signatures["recurrent"].parameters)
    assert all(list(signature.parameters)[: len(shared)] == shared for signature in signatures.values())


@pytest.mark.parametrize("form", FORMS)
def test_refused(form):
    q, k, v, g, state = inputs(5)
    for given, message in [
        ((q[0], k, v, g, None), r"q has shape \(1, 5, 3\)"),
        ((q[:, :, :0], k, v, g, None), r"q has shape \(2, 1, 0, 3\)"),
        ((q, k[..., :2], v, g, None), r"k has shape \(2, 1, 5, 2\)"),
        ((q, k, v[:, :, :4], g, None), r"v has shape \(2, 1, 4, 2\)"),
        ((q, k, v, g[..., :1], None), r"g has shape \(2, 1, 5, 1\)"),
        ((q, k, v, g, state[:1]), r"state has shape \(1, 1, 3, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            FORMS[form](*given[:4], state=given[4])
    with pytest.raises(ValueError, match="chunk_size is 12"):
        gated_linear_chunkwise(q, k, v, g, chunk_size=12)
