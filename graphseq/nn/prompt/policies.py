"""Policies over prompts of graphs: a node is chosen, and a vector to add to its features."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from graphseq.core import Recorded
from graphseq.ops import segment_argmax, segment_log_softmax, segment_sample, segment_sum

__all__ = ["HybridPolicy", "PolicyEnsemble"]

Choice = Literal["learned", "random"]
Link = Literal["taken", "released"]


@dataclass
class PromptAction:
    """One action in each graph.

    Args:
        node: chosen node, as a row of the packed nodes, int64 (G,).
        prompt: vector that is added to its features, (G, D).
        node_log_prob: log-probability of the node, (G,).
        prompt_log_prob: log-density of the vector, (G,).

    Example:
        >>> PromptAction(torch.tensor([0]), torch.zeros(1, 2), torch.zeros(1), torch.zeros(1)).node
        tensor([0])
    """

    node: Tensor
    prompt: Tensor
    node_log_prob: Tensor
    prompt_log_prob: Tensor


@dataclass
class PromptEvaluation:
    """Probabilities of earlier actions under a policy.

    Args:
        log_probs: log-probability of each node in its graph, (N,).
        node_log_prob: log-probability of the node that was taken, (G,).
        entropy: entropy of the distribution over nodes, (G,).
        mean: mean of the prompt for the node that was taken, (G, D).
        prompt_log_prob: log-density of the prompt that was taken, (G,).

    Example:
        >>> PromptEvaluation(*[torch.zeros(1)] * 3, torch.zeros(1, 2), torch.zeros(1)).entropy
        tensor([0.])
    """

    log_probs: Tensor
    node_log_prob: Tensor
    entropy: Tensor
    mean: Tensor
    prompt_log_prob: Tensor


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(before, after)] if number == 0 else [nn.Tanh(), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _wide(values: Tensor) -> Tensor:
    """Return values in float32 or wider: a sum of many densities in half precision has no digit of a ratio left."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class HybridPolicy(Recorded, nn.Module):
    r"""Distribution over the nodes of a graph, and over the prompt of the chosen node.

    .. math::
        \pi_d(i) = \operatorname{softmax}_{i \in g}\, f(h_i), \qquad
        \pi_c(z \mid i) = \mathcal{N}\bigl(z;\; m \tanh e(h_i),\; \sigma^2 I\bigr)

    ``f`` and ``e`` are perceptrons shared by all nodes. The deviation is not learned: it is an argument of every call.
    Logarithms of densities are sums over the entries of the prompt. Behind the perceptrons all is computed in float32
    or wider, under autocast as well; prompts have that type.

    Source: arXiv 2408.03195, section 4. Differs from its released code: none.

    Args:
        in_channels: width of a node vector, the state.
        prompt_channels: width of a prompt.
        max_prompt: largest entry m of a mean, above 0. Samples exceed it, unless ``clamp`` is set.
        node_choice: whether the choice of the node is learned or, as a control, uniform.
        prompt_choice: whether the prompt is learned or, as a control, drawn uniformly from [-m, m].
        clamp: whether entries of a sampled prompt are limited to [-m, m]; its density is then that of the limited
            value.

    Shape:
        h (N, in_channels), ptr (G+1,) -> one node and one prompt (prompt_channels,) for each graph

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> policy = HybridPolicy(8, 4)
        >>> action = policy.act(torch.randn(5, 8), torch.tensor([0, 2, 5]), log_std=0.0)
        >>> action.node.shape, action.prompt.shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        in_channels: int,
        prompt_channels: int,
        max_prompt: float = 0.1,
        *,
        node_choice: Choice = "learned",
        prompt_choice: Choice = "learned",
        clamp: bool = False,
    ) -> None:
        super().__init__()
        if in_channels < 1 or prompt_channels < 1 or not max_prompt > 0:
            raise ValueError(
                f"in_channels is {in_channels}, prompt_channels {prompt_channels}, max_prompt {max_prompt}; all must "
                "be above 0"
            )
        for name, choice in (("node_choice", node_choice), ("prompt_choice", prompt_choice)):
            if choice not in ("learned", "random"):
                raise ValueError(f"{name} is {choice!r}; it must be 'learned' or 'random'")
        self.prompt_channels, self.max_prompt, self.clamp = prompt_channels, max_prompt, clamp
        half, quarter = max(1, in_channels // 2), max(1, in_channels // 4)
        learns = node_choice == "learned"
        self.selector = _perceptron([in_channels, half, quarter, 1]) if learns else None
        learns = prompt_choice == "learned"
        self.prompter = _perceptron([in_channels, half, half, prompt_channels]) if learns else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights orthogonally, those of the last layers small, and set all biases to 0."""
        for actor in (self.selector, self.prompter):
            layers = [layer for layer in actor or () if isinstance(layer, nn.Linear)]
            for layer in layers:
                nn.init.orthogonal_(layer.weight, 0.01 if layer is layers[-1] else 2**0.5)
                nn.init.zeros_(layer.bias)

    def node_log_probs(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Return the log-probability of each node in its graph, (N,).

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
        """
        logits = h.new_zeros(len(h)) if self.selector is None else self.selector(h).squeeze(-1)
        return segment_log_softmax(_wide(logits), ptr=ptr)

    def prompt_mean(self, h: Tensor) -> Tensor:
        """Return the mean of the prompt of some nodes, (G, prompt_channels); 0 if prompts are random.

        Args:
            h: vectors of the chosen nodes.
        """
        if self.prompter is None:
            return _wide(h.new_zeros(len(h), self.prompt_channels))
        return _wide(self.prompter(h)).tanh() * self.max_prompt

    def sample_prompt(self, mean: Tensor, log_std: float, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return a prompt for each mean, and its log-density; 0 if prompts are random.

        Args:
            mean: means that :meth:`prompt_mean` returned.
            log_std: logarithm of the standard deviation.
            generator: random number generator of the device; None for torch's own.
        """
        if self.prompter is None:
            shares = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            return (2 * shares - 1) * self.max_prompt, mean.new_zeros(len(mean))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        prompt = mean + math.exp(log_std) * noise
        if self.clamp:
            prompt = prompt.clamp(-self.max_prompt, self.max_prompt)
        return prompt, self.prompt_log_prob(prompt, mean, log_std)

    def prompt_log_prob(self, prompt: Tensor, mean: Tensor, log_std: float) -> Tensor:
        """Return the log-density of prompts, the sum over their entries, (G,); 0 if prompts are random.

        Args:
            prompt: prompts that were drawn.
            mean: means of the Gaussians.
            log_std: logarithm of their standard deviation.
        """
        if self.prompter is None:
            return prompt.new_zeros(len(prompt))
        return Normal(mean, math.exp(log_std), validate_args=False).log_prob(prompt).sum(-1)

    def act(self, h: Tensor, ptr: Tensor, log_std: float, generator: Generator | None = None) -> PromptAction:
        """Draw an action in each graph; no graph may be empty.

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
            log_std: logarithm of the standard deviation of prompts.
            generator: random number generator of the device; None for torch's own.
        """
        log_probs = self.node_log_probs(h, ptr)
        node = segment_sample(log_probs, ptr, generator)
        prompt, density = self.sample_prompt(self.prompt_mean(h[node]), log_std, generator)
        return PromptAction(node, prompt, log_probs[node], density)

    def evaluate(self, h: Tensor, ptr: Tensor, node: Tensor, prompt: Tensor, log_std: float) -> PromptEvaluation:
        """Return probabilities of actions that were taken.

        Args:
            h: node vectors of the states in which they were taken.
            ptr: first node of each graph and, last, the number of nodes.
            node: chosen nodes, as rows of ``h``.
            prompt: prompts of these nodes.
            log_std: logarithm of the standard deviation of prompts.
        """
        log_probs = self.node_log_probs(h, ptr)
        entropy = -segment_sum(log_probs.exp() * log_probs, ptr=ptr)
        mean = self.prompt_mean(h[node])
        density = self.prompt_log_prob(prompt, mean, log_std)
        return PromptEvaluation(log_probs, log_probs[node], entropy, mean, density)


class PolicyEnsemble(Recorded, nn.Module):
    r"""Policies of which each is trained on its own share of the graphs, and their joint policy.

    .. math::
        \bar\pi_d(i) = \frac{\max_k \pi_d^{(k)}(i)}{\sum_{j \in g} \max_k \pi_d^{(k)}(j)}, \qquad
        \bar\pi_c(\cdot \mid i) = \mathcal{N}\Bigl(\tfrac1K \sum_k \mu^{(k)}_i,\; \sigma^2 I\Bigr)

    Source: arXiv 2408.03195, after LEEP, arXiv 2107.06277. Differs from the released code: the penalty, see
    :meth:`link_penalty`.

    Args:
        members: policies over the same states and prompts, at least one.

    Shape:
        h (N, in_channels), ptr (G+1,) -> one node and one prompt for each graph

    Raises:
        ValueError: if there is no member.

    Example:
        >>> ensemble = PolicyEnsemble([HybridPolicy(8, 4), HybridPolicy(8, 4)])
        >>> h, ptr = torch.randn(5, 8), torch.tensor([0, 2, 5])
        >>> round(ensemble.joint_log_probs(h, ptr).exp().sum().item(), 4)
        2.0
    """

    def __init__(self, members: Sequence[HybridPolicy]) -> None:
        super().__init__()
        if not members:
            raise ValueError("members is empty; an ensemble needs at least one policy")
        self.members = nn.ModuleList(members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, number: int) -> HybridPolicy:
        return cast(HybridPolicy, self.members[number])

    def joint_log_probs(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Return the log-probability of each node under the joint policy, (N,).

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
        """
        if len(self) == 1:
            return self[0].node_log_probs(h, ptr)
        each = torch.stack([self[number].node_log_probs(h, ptr) for number in range(len(self))])  # (K, N)
        return segment_log_softmax(each.amax(0), ptr=ptr)

    def joint_mean(self, h: Tensor) -> Tensor:
        """Return the mean prompt of some nodes under the joint policy, (G, prompt_channels).

        Args:
            h: vectors of the chosen nodes.
        """
        return torch.stack([self[number].prompt_mean(h) for number in range(len(self))]).mean(0)

    def act(
        self, h: Tensor, ptr: Tensor, generator: Generator | None = None, *, most_likely: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the node and the prompt of the joint policy in each graph: (G,), (G, prompt_channels).

        The prompt is the mean, without noise. Random prompts are drawn.

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
            generator: random number generator of the device; None for torch's own.
            most_likely: whether the node of largest probability is taken, instead of a drawn one.
        """
        log_probs = self.joint_log_probs(h, ptr)
        node = segment_argmax(log_probs, ptr=ptr) if most_likely else segment_sample(log_probs, ptr, generator)
        mean = self.joint_mean(h[node])
        return node, mean if self[0].prompter is not None else self[0].sample_prompt(mean, 0.0, generator)[0]

    def link_penalty(
        self,
        number: int,
        evaluation: PromptEvaluation,
        h: Tensor,
        ptr: Tensor,
        node: Tensor,
        log_std: float,
        link: Link = "taken",
    ) -> tuple[Tensor, Tensor]:
        r"""Return the divergences of a member from the joint policy in its nodes and in its prompts, (G,), (G,).

        ``taken``: :math:`\mathrm{KL}(\pi^{(k)} \| \bar\pi)` for both, that of the prompts at the node that was taken.
        ``released``, as the code of the paper computes it: :math:`\mathrm{KL}(\bar\pi \| \pi^{(k)})` for nodes, and
        :math:`\mathrm{KL}(\pi^{(k)} \| \bar\pi)` for the prompts of the joint policy's most likely node. Only the
        member gets a gradient.

        Args:
            number: number of the member.
            evaluation: evaluation of that member.
            h: node vectors of the states.
            ptr: first node of each graph and, last, the number of nodes.
            node: chosen nodes, as rows of ``h``.
            log_std: logarithm of the standard deviation of prompts.
            link: divergences that are taken, see above.
        """
        if len(self) == 1:
            return torch.zeros_like(evaluation.entropy), torch.zeros_like(evaluation.entropy)
        with torch.no_grad():
            joint = self.joint_log_probs(h, ptr)
            at = node if link == "taken" else segment_argmax(joint, ptr=ptr)
            center = self.joint_mean(h[at])
        mine = evaluation.log_probs
        mean = evaluation.mean if link == "taken" else self[number].prompt_mean(h[at])
        each = mine.exp() * (mine - joint) if link == "taken" else joint.exp() * (joint - mine)
        # all members have the same deviation
        return segment_sum(each, ptr=ptr), 0.5 * ((mean - center) / math.exp(log_std)).square().sum(-1)
