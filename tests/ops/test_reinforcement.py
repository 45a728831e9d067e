"""Advantages by their definition, and the clipped loss with its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import clipped_surrogate, generalized_advantage, policy_divergence
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
    with pytest.raises(ValueError, match="clip is 0"):
        clipped_surrogate(one, one, 0)


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


def test_divergence_is_an_unbiased_estimate():
    """Weighted by the old probabilities it sums to the divergence of the old policy from the new one."""
    old, new = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.6, 0.3, 0.1]).double()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(old), torch.distributions.Categorical(new)
    )
    torch.testing.assert_close((old * policy_divergence((new / old).log())).sum(), expected)
