"""Policy gradients: REINFORCE, advantages of trajectories, and the clipped objective of proximal optimisation."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.ops.segment.index import row_segments

__all__ = [
    "clipped_surrogate", "generalized_advantage", "leave_one_out_mean", "policy_divergence", "reinforce_loss",
]  # fmt: skip


def reinforce_loss(log_prob: Tensor, cost: Tensor, baseline: Tensor | None = None) -> Tensor:
    r"""Return a loss whose gradient estimates, without bias, that of the expected cost of a policy's draws.

    .. math:: L = \frac{1}{B} \sum_b (c_b - v_b)\, \log \pi(m_b), \qquad
        \mathbb{E}\bigl[\nabla L\bigr] = \nabla\, \mathbb{E}_{m \sim \pi}[c(m)]

    The factor is constant for the gradient. A baseline that does not depend on the draw of its own row leaves the mean
    of the estimate as it is and lowers its variance. The value of the loss means nothing.

    Source: R. J. Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    Machine Learning 8, 1992.

    Args:
        log_prob: logarithm of the probability, or density, of all that was drawn for a row.
        cost: cost of the row, to be lowered; for a reward its negative.
        baseline: baseline of each row, such as :func:`leave_one_out_mean`; None for 0.

    Shape:
        log_prob (B,), cost (B,), baseline (B,) -> scalar

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> logit = torch.zeros(2, requires_grad=True)
        >>> reinforce_loss(logit, torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])).backward()
        >>> logit.grad
        tensor([ 1., -1.])
    """
    advantage = cost if baseline is None else cost - baseline
    if log_prob.shape != advantage.shape or log_prob.shape != cost.shape or cost.dim() != 1:
        raise ValueError(
            f"log_prob is {tuple(log_prob.shape)}, cost {tuple(cost.shape)}, baseline "
            f"{None if baseline is None else tuple(baseline.shape)}; all must be (B,)"
        )
    return (advantage.detach() * log_prob).mean()


def leave_one_out_mean(cost: Tensor) -> Tensor:
    r"""Return for each row the mean of the others: a baseline that does not depend on the draw of the row.

    .. math:: v_b = \frac{1}{B - 1} \sum_{i \ne b} c_i

    Of a single row there are no others, and the baseline is 0.

    Args:
        cost: cost of each row.

    Shape:
        (B,) -> (B,)

    Example:
        >>> leave_one_out_mean(torch.tensor([1.0, 2.0, 6.0]))
        tensor([4.0000, 3.5000, 1.5000])
    """
    return (cost.sum() - cost) / max(1, len(cost) - 1)


def generalized_advantage(
    rewards: Tensor, values: Tensor, ptr: Tensor, *, discount: float = 0.99, trace_decay: float = 0.95
) -> Tensor:
    r"""Return the generalised advantage estimate of every step of trajectories of different lengths.

    .. math::
        A_t = \sum_{l \ge 0} (\gamma\lambda)^l \delta_{t+l}, \qquad
        \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)

    The last step of each trajectory is terminal: the value after it is 0. The sum is built by doubling, in
    :math:`\log_2` of the longest trajectory many operations on all steps at once.

    Source: arXiv 1506.02438, eq. 16.

    Args:
        rewards: reward of each step, steps of a trajectory in order and trajectories one after the other.
        values: estimated value of the state before each step.
        ptr: first step of each trajectory and, last, the number of steps.
        discount: discount factor :math:`\gamma`, in [0, 1].
        trace_decay: weight :math:`\lambda` of longer sums of rewards, in [0, 1]: 0 gives the temporal difference, 1
            the discounted return less the value.

    Shape:
        rewards (S,), values (S,), ptr (G+1,) -> (S,)

    Raises:
        ValueError: if shapes differ, or a factor is not in [0, 1].

    Example:
        >>> reward, value = torch.tensor([1.0, 1.0, 3.0]), torch.zeros(3)
        >>> generalized_advantage(reward, value, torch.tensor([0, 2, 3]), discount=0.5, trace_decay=1.0)
        tensor([1.5000, 1.0000, 3.0000])
    """
    for name, factor in (("discount", discount), ("trace_decay", trace_decay)):
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} is {factor}; it must be in [0, 1]")
    if rewards.shape != values.shape or rewards.dim() != 1:
        raise ValueError(f"rewards are {tuple(rewards.shape)}, values {tuple(values.shape)}; both must be (S,)")
    steps = rewards.numel()
    trajectory = row_segments(None, ptr, steps)
    end = ptr[1:].index_select(0, trajectory)  # one past the last step of the trajectory of each step
    place = torch.arange(steps, device=rewards.device)
    following = functional.pad(values, (0, 1))[1:]  # (S,)
    total = rewards + discount * torch.where(place + 1 < end, following, 0) - values
    # on an accelerator the longest trajectory is not known without a wait
    longest = steps if rewards.is_cuda or steps == 0 else int(ptr.diff().max())
    reach, factor = 1, discount * trace_decay
    while reach < longest:  # total covers `reach` steps; after this line twice as many
        ahead = functional.pad(total, (0, reach))[reach:]
        total = total + factor * torch.where(place + reach < end, ahead, 0)
        reach, factor = 2 * reach, factor * factor
    return total


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip: float = 0.2) -> Tensor:
    r"""Return the clipped loss of proximal policy optimisation for each action.

    .. math:: L = -\min(\rho A,\; \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) A), \qquad
        \rho = \frac{\pi(a|s)}{\pi_{\mathrm{old}}(a|s)}

    Above the root of the largest number of its type, about 1.8e19 in float32, the ratio counts as that root and has no
    gradient: a larger one would make the gradient infinite or, where the loss is clipped, 0 times infinity.

    Source: arXiv 1707.06347, eq. 7. Differs from it: the bound of the ratio.

    Args:
        log_ratio: logarithm of :math:`\rho`: new less old log-probability of the action that was taken.
        advantage: advantage of the action.
        clip: largest useful change :math:`\epsilon` of the ratio, above 0.

    Shape:
        log_ratio (S,), advantage (S,) -> (S,)

    Raises:
        ValueError: if ``clip`` is not above 0, or shapes differ.

    Example:
        >>> clipped_surrogate(torch.tensor([0.0, 9.0]), torch.tensor([2.0, 1.0]))
        tensor([-2.0000, -1.2000])
    """
    if not clip > 0:
        raise ValueError(f"clip is {clip}; it must be above 0")
    if log_ratio.shape != advantage.shape:
        raise ValueError(
            f"log_ratio is {tuple(log_ratio.shape)}, advantage {tuple(advantage.shape)}; there must be one advantage "
            "for each action"
        )
    ratio = log_ratio.clamp(max=math.log(torch.finfo(log_ratio.dtype).max) / 2).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def policy_divergence(log_ratio: Tensor) -> Tensor:
    r"""Estimate the divergence of a policy from the one that took the actions, for each action; never below 0.

    .. math:: k = (\rho - 1) - \log\rho, \qquad \mathbb{E}_{a \sim \pi_{\mathrm{old}}}[k]
        = \mathrm{KL}(\pi_{\mathrm{old}} \,\|\, \pi)

    Args:
        log_ratio: new less old log-probability of each action, drawn from the old policy.

    Shape:
        (S,) -> (S,)

    Example:
        >>> policy_divergence(torch.zeros(2))
        tensor([0., 0.])
    """
    return log_ratio.expm1() - log_ratio
