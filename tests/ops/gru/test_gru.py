import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import mail_gru
from graphseq.ops.gru import plain
from tests.reference import mail_gru as reference

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "time_weight", "time_bias")

pytestmark = pytest.mark.usefixtures("way")


def draw(nodes=7, dim=4, msg_dim=2, time_dim=3, dtype=torch.float64, times=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    dt = (torch.rand(nodes, generator=generator, dtype=torch.float64) * 20).to(times)
    state = (normal(nodes, dim), normal(nodes, dim + msg_dim), dt)
    width = 2 * dim + msg_dim + time_dim
    sizes = ((3 * dim, width), (3 * dim, dim), (3 * dim,), (3 * dim,), (time_dim,), (time_dim,))
    parameters = [normal(*size).mul_(0.5).requires_grad_() for size in sizes]
    return state, parameters


def compare(ours, theirs, parameters, tolerance):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=tolerance, atol=tolerance)
    arriving = torch.randn_like(ours)
    mine = torch.autograd.grad(ours, parameters, arriving)
    other = torch.autograd.grad(theirs, parameters, arriving.to(theirs.dtype))
    for name, one, two in zip(NAMES, mine, other, strict=False):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(1, 8),
    dim=st.integers(1, 5),
    msg_dim=st.integers(0, 3),
    time_dim=st.integers(1, 4),
    times=st.sampled_from([torch.int64, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_definition(nodes, dim, msg_dim, time_dim, times, seed):
    state, parameters = draw(nodes, dim, msg_dim, time_dim, times=times, seed=seed)
    ours = mail_gru(*state, *parameters)
    compare(ours, reference.mail_gru(*state, *parameters), parameters, 1e-10)


@settings(max_examples=25, deadline=None)
@given(nodes=st.integers(1, 8), msg_dim=st.integers(0, 3), seed=st.integers(0, 10**6))
def test_every_form_equals_plain(nodes, msg_dim, seed):
    state, parameters = draw(nodes, msg_dim=msg_dim, seed=seed)
    compare(mail_gru(*state, *parameters), plain.mail_gru(*state, *parameters), parameters, 1e-10)


@pytest.mark.parametrize("msg_dim", [0, 1, 5])
def test_equals_torch_cell(msg_dim, device):
    state, parameters = draw(nodes=50, dim=16, msg_dim=msg_dim, time_dim=8)
    state = [block.to(device) for block in state]
    parameters = [parameter.detach().to(device).requires_grad_() for parameter in parameters]
    ours = mail_gru(*state, *parameters)
    compare(ours, reference.with_cell(*state, *parameters), parameters, 1e-10)


@pytest.mark.parametrize("msg_dim", [0, 2])
def test_gradcheck(msg_dim):
    state, parameters = draw(nodes=5, dim=3, msg_dim=msg_dim, time_dim=2)
    assert torch.autograd.gradcheck(lambda *weights: mail_gru(*state, *weights), parameters)


def test_encoded_times_are_taken_as_they_are():
    """Means over several messages come encoded; the same numbers encoded inside give the same result."""
    (own, mail, dt), parameters = draw()
    *weights, time_weight, time_bias = parameters
    encoded = torch.cos(dt.unsqueeze(-1) * time_weight + time_bias).detach()
    ours = mail_gru(own, mail, encoded, *weights, None, None)
    torch.testing.assert_close(ours, mail_gru(own, mail, dt, *parameters), rtol=0, atol=1e-12)
    compare(ours, reference.mail_gru(own, mail, encoded, *weights), weights, 1e-10)


def test_single_precision():
    state, parameters = draw(nodes=40, dim=32, dtype=torch.float32)
    ours = mail_gru(*state, *parameters)
    assert ours.dtype == torch.float32
    compare(ours, reference.with_cell(*state, *parameters), parameters, 2e-4)


def test_views_of_wider_rows_and_untouched_inputs():
    """Callers keep memory and mail side by side in one row."""
    (own, mail, dt), parameters = draw()
    row = torch.cat([own, mail], dim=1)
    before = row.clone()
    views = row.split([4, 6], dim=1)
    ours = mail_gru(*views, dt, *parameters)
    compare(ours, mail_gru(own, mail, dt, *parameters), parameters, 1e-12)
    assert torch.equal(row, before)


def test_frozen_time_encoder_and_repeated_backward():
    state, parameters = draw()
    for parameter in parameters[4:]:
        parameter.requires_grad_(False)
    output = mail_gru(*state, *parameters)
    first = torch.autograd.grad(output.sum(), parameters[:4], retain_graph=True)
    second = torch.autograd.grad(output.sum(), parameters[:4])
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    compare(
        mail_gru(*state, *parameters),
        reference.mail_gru(*state, *parameters),
        parameters[:4],
        1e-10,
    )


def test_nothing_is_kept_without_gradients():
    state, parameters = draw()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        with torch.no_grad():
            quiet = mail_gru(*state, *parameters)
        assert not kept
        tracked = mail_gru(*state, *parameters)
        assert kept
    assert quiet.grad_fn is None
    assert torch.equal(quiet, tracked)


def test_autocast_leaves_the_precision():
    state, parameters = draw(dtype=torch.float32)
    expected = mail_gru(*state, *parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mail_gru(*state, *parameters), expected)


def test_second_derivative_is_refused():
    state, parameters = draw()
    output = mail_gru(*state, *parameters)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(output.sum(), parameters, create_graph=True)


def test_no_nodes():
    state, parameters = draw(nodes=0)
    output = mail_gru(*state, *parameters)
    assert output.shape == (0, 4)
    assert not any(gradient.any() for gradient in torch.autograd.grad(output.sum(), parameters))


def test_wrong_arguments():
    (own, mail, dt), parameters = draw()
    with pytest.raises(ValueError, match="\\(12, 12\\).*\\(12, 13\\)"):
        mail_gru(own, mail, dt, parameters[0][:, 1:], *parameters[1:])
    with pytest.raises(ValueError, match="time_weight and time_bias"):
        mail_gru(own, mail, dt, *parameters[:5], None)
    with pytest.raises(ValueError, match="detach"):
        mail_gru(own.clone().requires_grad_(), mail, dt, *parameters)


def test_what_is_not_finite_is_passed_on_and_large_inputs_saturate():
    (own, mail, dt), parameters = draw(nodes=6, dtype=torch.float32)
    own[1, 0], mail[2, 1], mail[3] = float("nan"), float("inf"), 1e30
    new = mail_gru(own, mail, dt, *parameters)
    assert new[1].isnan().all()
    assert not new[2].isfinite().all() or new[2].abs().max() <= own[2].abs().max().clamp(min=1)
    assert new[[0, 3, 4, 5]].isfinite().all()
    gradients = torch.autograd.grad(new.sum(), parameters)
    assert all(gradient.isnan().any() for gradient in gradients)


def test_memories_of_any_strides():
    (own, mail, dt), parameters = draw()
    turned = own.t().contiguous().t()
    compare(
        mail_gru(turned, mail, dt, *parameters),
        mail_gru(own, mail, dt, *parameters),
        parameters,
        1e-12,
    )
