"""Advantages by their definition, and the clipped loss with its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import (
    clipped_surrogate,
    generalized_advantage,
    leave_one_out_mean,
    policy_divergence,
    reinforce_loss,
)
from tests.reference import relief


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.7, 1.0]),
    st.sampled_from([0.0, 0.6, 1.0]),
)
def test_advantages_equal_their_definition_graph_by_graph(lengths, discount, trace_decay):
    torch.manual_seed(sum(lengths))
    ptr = torch.tensor([0, *lengths]).cumsum(0)
    reward, value = torch.randn(2, int(ptr[-1]), dtype=torch.float64)
    found = generalized_advantage(reward, value, ptr, discount=discount, trace_decay=trace_decay)
    for start, end in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        expected = relief.advantages(reward[start:end].tolist(), value[start:end].tolist(), discount, trace_decay)
        torch.testing.assert_close(found[start:end], torch.tensor(expected, dtype=torch.float64))


def test_limits_of_the_trace():
    """Decay 1: the discounted return less the value. Decay 0: the temporal difference."""
    reward, value = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.5, 0.25, 1.0]).double()
    ptr = torch.tensor([0, 3])
    whole = generalized_advantage(reward, value, ptr, discount=0.5, trace_decay=1.0)
    torch.testing.assert_close(whole, torch.tensor([1 + 1 + 1, 2 + 2, 4.0]).double() - value)
    one = generalized_advantage(reward, value, ptr, discount=0.5, trace_decay=0.0)
    torch.testing.assert_close(one, torch.tensor([1 + 0.125 - 0.5, 2 + 0.5 - 0.25, 4 - 1.0]).double())


def test_nothing_flows_from_one_trajectory_to_the_next():
    reward = torch.zeros(5)
    reward[2] = 1.0
    found = generalized_advantage(reward, torch.zeros(5), torch.tensor([0, 2, 5]), discount=1.0, trace_decay=1.0)
    assert found.tolist() == [0, 0, 1, 0, 0]


def test_refuses():
    one, ptr = torch.ones(2), torch.tensor([0, 2])
    with pytest.raises(ValueError, match=r"discount is 1\.5"):
        generalized_advantage(one, one, ptr, discount=1.5)
    with pytest.raises(ValueError, match="trace_decay is -1"):
        generalized_advantage(one, one, ptr, trace_decay=-1)
    with pytest.raises(ValueError, match=r"values \(3,\)"):
        generalized_advantage(one, torch.ones(3), ptr)
    for clip in (0, float("nan")):
        with pytest.raises(ValueError, match=f"clip is {clip}"):
            clipped_surrogate(one, one, clip)
    with pytest.raises(ValueError, match="one advantage"):
        clipped_surrogate(one[:, None], one)


def test_gradient_at_ratio_one_is_that_of_the_policy():
    log_prob = torch.tensor([-0.3, -2.0, -1.0], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.5, -2.0, 0.25], dtype=torch.float64)
    clipped_surrogate(log_prob - log_prob.detach(), advantage).sum().backward()
    torch.testing.assert_close(log_prob.grad, -advantage)


def test_gradient_vanishes_outside_the_clip_where_the_change_has_paid_off():
    log_ratio = torch.tensor([0.5, -0.5, 0.5, -0.5], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    loss = clipped_surrogate(log_ratio, advantage, 0.2)
    loss.sum().backward()
    assert log_ratio.grad[:2].tolist() == [0, 0]
    torch.testing.assert_close(log_ratio.grad[2:], -(log_ratio.exp() * advantage)[2:].detach())
    expected = [relief.clipped(a, b, 0.2) for a, b in zip(log_ratio.detach(), advantage, strict=True)]
    torch.testing.assert_close(loss.detach(), torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ratios_too_large_for_a_number_have_finite_losses_and_gradients(dtype):
    """Many entries of a prompt multiply to such a ratio; 0 times infinity would end every later step."""
    log_ratio = torch.tensor([1e3, 1e3, 0.0], dtype=dtype, requires_grad=True)
    loss = clipped_surrogate(log_ratio, torch.tensor([2.0, -2.0, 3.0], dtype=dtype), 0.2)
    loss.sum().backward()
    assert float(loss[0].detach()) == pytest.approx(-2.4)
    assert 1e18 < float(loss[1].detach()) < torch.inf
    assert log_ratio.grad.tolist() == [0, 0, -3]


def test_divergence_is_an_unbiased_estimate():
    """Weighted by the old probabilities it sums to the divergence of the old policy from the new one."""
    old, new = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.6, 0.3, 0.1]).double()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(old), torch.distributions.Categorical(new)
    )
    torch.testing.assert_close((old * policy_divergence((new / old).log())).sum(), expected)


def beta(logits):
    return torch.distributions.Beta(*logits.exp())


def estimates(logits, cost, loss, count=200_000):
    """Gradients of many draws, each an estimate of its own (count, 2)."""
    each = logits.detach().expand(count, 2).clone().requires_grad_()
    found = torch.distributions.Beta(*each.T.exp())
    draw = found.sample()
    (gradient,) = torch.autograd.grad(count * loss(found.log_prob(draw), cost(draw)), each)
    return gradient


@pytest.mark.parametrize("baseline", [None, leave_one_out_mean])
def test_mean_of_the_estimate_is_the_exact_gradient_and_a_baseline_lowers_its_variance(baseline):
    """One beta variable with the cost (m - 0.9)^2 + 1, whose expectation is known in closed form."""
    torch.manual_seed(0)
    logits = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)
    found = beta(logits)
    ((found.variance + (found.mean - 0.9) ** 2).sum()).backward()

    def drawn(baseline):
        return estimates(
            logits, lambda m: (m - 0.9) ** 2 + 1,
            lambda log_prob, cost: reinforce_loss(log_prob, cost, None if baseline is None else baseline(cost)),
        )  # fmt: skip

    gradient = drawn(baseline)
    error = gradient.std(0) / len(gradient) ** 0.5
    assert ((gradient.mean(0) - logits.grad).abs() < 3 * error).all()
    assert (logits.grad.abs() > 10 * error).all(), "the test could not tell it from zero"
    if baseline is not None:
        assert (gradient.var(0) < 0.5 * drawn(None).var(0)).all()


def test_logarithm_of_a_sum_of_densities_is_no_estimate_of_the_gradient():
    """What the released code of arXiv 2406.14568 multiplies the cost by, for two cells of which one matters."""
    torch.manual_seed(0)
    count, logits = 50_000, torch.tensor([[0.3, 0.8], [0.5, 0.1]], dtype=torch.float64, requires_grad=True)
    cells = [beta(cell) for cell in logits]
    (cells[0].variance + (cells[0].mean - 0.9) ** 2).backward()

    def mean_and_error(score):
        each = logits.detach().expand(count, 2, 2).clone().requires_grad_()
        found = torch.distributions.Beta(each[..., 0].exp(), each[..., 1].exp())
        draw = found.sample()  # (count, 2)
        cost = (draw[:, 0] - 0.9) ** 2
        cost = cost - cost.mean()
        (gradient,) = torch.autograd.grad((cost * score(found.log_prob(draw))).sum(), each)
        return gradient.mean(0), gradient.std(0) / count**0.5

    mean, error = mean_and_error(lambda log_density: log_density.sum(1))
    assert ((mean - logits.grad).abs() < 4 * error).all()
    mean, error = mean_and_error(lambda log_density: log_density.logsumexp(1))
    assert ((mean - logits.grad).abs() > 10 * error).any()


def test_others_of_a_row_and_shapes_of_reinforce():
    cost = torch.tensor([1.0, 2.0, 6.0])
    expected = [sum(float(other) for b, other in enumerate(cost) if b != a) / 2 for a in range(3)]
    assert leave_one_out_mean(cost).tolist() == expected
    assert leave_one_out_mean(torch.tensor([5.0])).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"log_prob is \(2, 2\)"):
        reinforce_loss(torch.ones(2, 2), torch.ones(2))
    cost.requires_grad_()
    log_prob = torch.ones(3, requires_grad=True)
    reinforce_loss(log_prob, cost, leave_one_out_mean(cost)).backward()
    assert cost.grad is None
