"""Loss of proximal policy optimisation for policies over nodes and prompts."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.prompt.policies import PolicyEnsemble
from graphseq.nn.prompt.rollouts import Transitions
from graphseq.ops import clipped_surrogate, policy_divergence

__all__ = ["ProximalPolicyLoss"]


@dataclass
class PolicyLosses:
    """Loss of a minibatch, and how far the policy has moved."""

    loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    node_divergence: Tensor
    prompt_divergence: Tensor


class ProximalPolicyLoss(Recorded, nn.Module):
    r"""Clipped losses of the choice of nodes and of the prompts, with critic, entropy and link to the joint policy.

    .. math::
        L_d = \mathbb{E}\bigl[\mathrm{clip}_\epsilon(\rho_d, A)\bigr] - c_H\, \mathbb{E}[H(\pi_d)]
            + \alpha_d\, D_d, \qquad
        L_c = \mathbb{E}\bigl[\mathrm{clip}_\epsilon(\rho_c, A)\bigr] + \alpha_c\, D_c, \qquad
        L = L_d + L_c + c_V\, \mathbb{E}[(V - R)^2]

    where :math:`\mathrm{clip}_\epsilon` is :func:`graphseq.ops.clipped_surrogate` and D the divergence from the joint
    policy, :meth:`PolicyEnsemble.link_penalty`.

    Source: arXiv 2408.03195, section 4. Differs from its released code: direction and place of the divergences, unless
    ``link`` is ``released``.

    Args:
        node_clip: largest useful change of the ratio of probabilities of nodes, above 0.
        prompt_clip: largest useful change of the ratio of densities of prompts, above 0.
        entropy_weight: weight :math:`c_H` of the entropy of the choice of nodes.
        value_weight: weight :math:`c_V` of the squared error of the critic.
        node_link: weight :math:`\alpha_d` of the divergence of the choice of nodes from the joint policy.
        prompt_link: weight :math:`\alpha_c` of the divergence of the prompts from the joint policy.
        link: ``taken`` or ``released``, see :meth:`PolicyEnsemble.link_penalty`.

    Raises:
        ValueError: if an argument is out of range; in ``forward``, if the critic does not give one value a state.

    Example:
        >>> ProximalPolicyLoss(node_clip=0.1).node_clip
        0.1
    """

    def __init__(
        self,
        *,
        node_clip: float = 0.2,
        prompt_clip: float = 0.2,
        entropy_weight: float = 0.01,
        value_weight: float = 0.5,
        node_link: float = 1.0,
        prompt_link: float = 0.1,
        link: Literal["taken", "released"] = "taken",
    ) -> None:
        super().__init__()
        for name, clip in (("node_clip", node_clip), ("prompt_clip", prompt_clip)):
            if not clip > 0:
                raise ValueError(f"{name} is {clip}; it must be above 0")
        weights = {"entropy_weight": entropy_weight, "value_weight": value_weight}
        weights |= {"node_link": node_link, "prompt_link": prompt_link}
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"{name} is {weight}; it must be at least 0")
        if link not in ("taken", "released"):
            raise ValueError(f"link is {link!r}; it must be 'taken' or 'released'")
        self.node_clip, self.prompt_clip = node_clip, prompt_clip
        self.entropy_weight, self.value_weight = entropy_weight, value_weight
        self.node_link, self.prompt_link = node_link, prompt_link
        self.link: Literal["taken", "released"] = link

    def forward(
        self,
        ensemble: PolicyEnsemble,
        member: int,
        critic: nn.Module,
        taken: Transitions,
        advantage: Tensor,
        returns: Tensor,
        log_std: float,
        entropy_share: float = 1.0,
    ) -> PolicyLosses:
        """Return the losses of some transitions.

        Args:
            ensemble: all policies.
            member: number of the policy that took the actions.
            critic: module from node vectors and ``ptr`` to values.
            taken: transitions of a minibatch.
            advantage: advantage of each, (S,).
            returns: return that the critic is to predict, (S,).
            log_std: logarithm of the standard deviation of prompts.
            entropy_share: share of ``entropy_weight`` that counts, in [0, 1].
        """
        found = ensemble[member].evaluate(taken.h, taken.ptr, taken.node, taken.prompt, log_std)
        node_ratio = found.node_log_prob - taken.node_log_prob
        prompt_ratio = found.prompt_log_prob - taken.prompt_log_prob
        entropy = found.entropy.mean()
        loss = clipped_surrogate(node_ratio, advantage, self.node_clip).mean()
        loss = loss + clipped_surrogate(prompt_ratio, advantage, self.prompt_clip).mean()
        loss = loss - self.entropy_weight * entropy_share * entropy
        if len(ensemble) > 1 and (self.node_link or self.prompt_link):
            node_kl, prompt_kl = ensemble.link_penalty(
                member, found, taken.h, taken.ptr, taken.node, log_std, self.link
            )
            loss = loss + self.node_link * node_kl.mean() + self.prompt_link * prompt_kl.mean()
        value = critic(taken.h, taken.ptr)
        if value.shape != returns.shape:
            raise ValueError(
                f"the critic, a {type(critic).__name__}, gives values {tuple(value.shape)} for {len(returns)} states; "
                f"({len(returns)},) is needed: end it with squeeze(-1)"
            )
        value_loss = functional.mse_loss(value, returns)
        return PolicyLosses(
            loss + self.value_weight * value_loss,
            value_loss.detach(),
            entropy.detach(),
            policy_divergence(node_ratio.detach()).mean(),
            policy_divergence(prompt_ratio.detach()).mean(),
        )
