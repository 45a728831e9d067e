"""Rollouts: prompts are placed step by step on packed graphs, and each step is rewarded by the decrease of the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.core import PromptableEncoder
from graphseq.nn.prompt.graphs import EmbeddedGraphs
from graphseq.nn.prompt.policies import HybridPolicy, PolicyEnsemble
from graphseq.ops import generalized_advantage, segment_rows

__all__ = ["RewardScale", "place_prompts", "roll_out_prompts"]


@dataclass
class Transitions:
    """Actions with the states in which they were taken.

    Args:
        h: node vectors of all states, one state after the other, (R, D).
        ptr: first node of each state and, last, the number of rows, int64 (S+1,).
        node: chosen nodes, as rows of ``h``, int64 (S,).
        prompt: prompts of these nodes, (S, D').
        node_log_prob: log-probability of the node when it was chosen, (S,).
        prompt_log_prob: log-density of the prompt when it was drawn, (S,).

    Example:
        >>> ptr = torch.tensor([0, 2])
        >>> len(Transitions(torch.ones(2, 3), ptr, torch.tensor([1]), torch.ones(1, 3), *[torch.zeros(1)] * 2))
        1
    """

    h: Tensor
    ptr: Tensor
    node: Tensor
    prompt: Tensor
    node_log_prob: Tensor
    prompt_log_prob: Tensor

    def __len__(self) -> int:
        return len(self.node)

    def select(self, chosen: Tensor, num_rows: int) -> "Transitions":
        """Return some transitions.

        Args:
            chosen: numbers of transitions, int64 (K,), on the device of ``h``.
            num_rows: number of nodes of their states together.
        """
        rows, ptr = segment_rows(self.ptr, chosen, num_rows)
        node = self.node[chosen] - self.ptr[chosen] + ptr[:-1]
        return Transitions(
            self.h[rows], ptr, node, self.prompt[chosen], self.node_log_prob[chosen], self.prompt_log_prob[chosen]
        )


@dataclass
class Rollout:
    """One episode on each graph of a batch.

    Transitions are in the order in which they were taken: the first steps of all graphs, then the second ones.

    Args:
        transitions: all S actions with their states.
        num_nodes: number of nodes of the state of each transition on the host, int64 (S,).
        reward: decrease of the graph's loss by each action, (S,).
        by_graph: order that puts the steps of a graph one after the other, int64 (S,).
        steps: first step of each graph in that order and, last, S; int64 (G+1,).
        prompt: prompts after the last step, one row for each node, (N, D').
        loss: loss of each graph before the first step, (G,).
        final_loss: loss of each graph after its last step, (G,).

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> encoder, policy = GraphEncoder(2, 8, norm="none"), HybridPolicy(8, 2)
        >>> batch = {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0], [1]]), "ptr": torch.tensor([0, 2, 3])}
        >>> graphs = EmbeddedGraphs.from_batch(encoder, batch)
        >>> rollout = roll_out_prompts(policy, graphs, encoder, lambda vectors: vectors.square().sum(1), log_std=0.0)
        >>> len(rollout.transitions), rollout.steps.tolist()
        (3, [0, 2, 3])
    """

    transitions: Transitions
    num_nodes: np.ndarray
    reward: Tensor
    by_graph: Tensor
    steps: Tensor
    prompt: Tensor
    loss: Tensor
    final_loss: Tensor

    def advantages(self, reward: Tensor, value: Tensor, discount: float, trace_decay: float) -> Tensor:
        r"""Return the generalised advantage of each transition, (S,).

        Args:
            reward: reward of each transition, scaled or not.
            value: value of the state of each transition.
            discount: discount factor, in [0, 1].
            trace_decay: decay :math:`\lambda` of generalised advantage estimation, in [0, 1].
        """
        order = self.by_graph
        found = generalized_advantage(
            reward[order], value[order], self.steps, discount=discount, trace_decay=trace_decay
        )
        return torch.empty_like(found).index_copy_(0, order, found)


def _horizons(graphs: EmbeddedGraphs, max_steps: int | None) -> np.ndarray:
    """Return the number of steps of each graph; refuse graphs that are not sorted from large to small."""
    sizes = graphs.num_nodes
    if (sizes[1:] > sizes[:-1]).any():
        raise ValueError("graphs are not sorted from the largest to the smallest; take graphs.select(graphs.by_size())")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}; it must be at least 1, or None for the number of nodes")
    return sizes if max_steps is None else np.minimum(sizes, max_steps)


@torch.no_grad()
def roll_out_prompts(
    policy: HybridPolicy,
    graphs: EmbeddedGraphs,
    encoder: PromptableEncoder,
    loss_of: Callable[[Tensor], Tensor],
    log_std: float,
    *,
    max_steps: int | None = None,
    generator: Generator | None = None,
) -> Rollout:
    r"""Let a policy place prompts, by default as many in each graph as it has nodes, and record its actions.

    .. math:: P_t = P_{t-1} + e_{a_t} z_t^\top, \qquad H_t = f(A, X + P_t), \qquad r_t = \ell(P_{t-1}) - \ell(P_t)

    All graphs take a step together. Those with the fewest nodes are done first, and what is left is a slice of all
    tensors, so that the encoder never runs on graphs that are done, and no graph is padded.

    Source: arXiv 2408.03195, section 4.

    Args:
        policy: policy that draws nodes and prompts.
        graphs: graphs sorted from the largest to the smallest, see :meth:`EmbeddedGraphs.by_size`.
        encoder: frozen encoder that embedded the graphs.
        loss_of: function from graph vectors (K, graph_channels) of the first K graphs to their losses, (K,).
        log_std: logarithm of the standard deviation of prompts.
        max_steps: largest number of steps of a graph, at least 1; None for its number of nodes.
        generator: random number generator of the device; None for torch's own.

    Returns:
        The transitions with rewards that sum, over the steps of a graph, to the decrease of its loss.

    Raises:
        ValueError: if the graphs are not sorted, or ``max_steps`` is below 1.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> encoder = GraphEncoder(2, 8, norm="none")
        >>> graphs = EmbeddedGraphs.from_batch(encoder, {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0], [1]])})
        >>> result = roll_out_prompts(HybridPolicy(8, 2), graphs, encoder, lambda vectors: vectors.sum(1), log_std=-1.0)
        >>> bool(torch.allclose(result.reward.sum(), (result.loss - result.final_loss).sum(), atol=1e-5))
        True
    """
    horizon = _horizons(graphs, max_steps)
    prompt = torch.zeros_like(graphs.h, dtype=torch.promote_types(graphs.h.dtype, torch.float32))
    vector, state = graphs.encode(encoder)
    loss = final = loss_of(vector)
    before = loss
    device = graphs.h.device
    actions, states, bounds, rewards, sizes, counts, offset = [], [], [], [], [], [], 0
    part = graphs
    for step in range(int(horizon.max(initial=0))):
        count = int((horizon > step).sum())
        part = part if len(part) == count else graphs.first(count)
        rows = len(part.h)
        action = policy.act(state[:rows], part.ptr, log_std, generator)
        actions.append(action)
        states.append(state[:rows])
        bounds.append(part.ptr[:-1] + offset)
        prompt[action.node] += action.prompt
        vector, state = part.encode(encoder, prompt[:rows])
        after = loss_of(vector)
        rewards.append(before[:count] - after)
        before = after
        final = torch.cat([after, final[count:]])
        sizes.append(part.num_nodes)
        counts.append(count)
        offset += rows
    if not actions:
        raise ValueError("no graph has a node; there is nothing to prompt")
    end = torch.tensor([offset], device=device)
    shift = torch.tensor(np.cumsum([0, *map(len, states[:-1])])).to(device)
    shift = shift.repeat_interleave(torch.tensor(counts, device=device), output_size=sum(counts))
    transitions = Transitions(
        torch.cat(states),
        torch.cat([*bounds, end]),
        torch.cat([action.node for action in actions]) + shift,
        torch.cat([action.prompt for action in actions]),
        torch.cat([action.node_log_prob for action in actions]),
        torch.cat([action.prompt_log_prob for action in actions]),
    )
    graph = np.concatenate([np.arange(count) for count in counts])
    by_graph = torch.from_numpy(np.argsort(graph, kind="stable")).to(device)
    steps = functional.pad(torch.from_numpy(horizon.astype(np.int64)).cumsum(0), (1, 0)).to(device)
    return Rollout(transitions, np.concatenate(sizes), torch.cat(rewards), by_graph, steps, prompt, loss, final)


@torch.no_grad()
def place_prompts(
    ensemble: PolicyEnsemble,
    graphs: EmbeddedGraphs,
    encoder: PromptableEncoder,
    *,
    max_steps: int | None = None,
    most_likely: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Return the prompts that the joint policy places, one row for each node; no label and no loss is needed.

    Args:
        ensemble: trained policies.
        graphs: graphs sorted from the largest to the smallest.
        encoder: frozen encoder that embedded the graphs.
        max_steps: largest number of steps of a graph, at least 1; None for its number of nodes.
        most_likely: whether the node of largest probability is taken in each step, instead of a drawn one.
        generator: random number generator of the device; None for torch's own.

    Raises:
        ValueError: if the graphs are not sorted, or ``max_steps`` is below 1.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> encoder = GraphEncoder(2, 8, norm="none")
        >>> graphs = EmbeddedGraphs.from_batch(encoder, {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0], [1]])})
        >>> place_prompts(PolicyEnsemble([HybridPolicy(8, 2)]), graphs, encoder).shape
        torch.Size([3, 2])
    """
    horizon = _horizons(graphs, max_steps)
    prompt = torch.zeros_like(graphs.h, dtype=torch.promote_types(graphs.h.dtype, torch.float32))
    _, state = graphs.encode(encoder)
    part = graphs.first(int((horizon > 0).sum()))
    for step in range(int(horizon.max(initial=0))):
        node, added = ensemble.act(state[: len(part.h)], part.ptr, generator, most_likely=most_likely)
        prompt[node] += added
        count = int((horizon > step + 1).sum())
        part = part if len(part) == count else graphs.first(count)
        if count:
            _, state = part.encode(encoder, prompt[: len(part.h)])
    return prompt


class RewardScale:
    """Running mean and deviation of rewards, by which they are scaled.

    Args:
        mode: ``std`` divides by the deviation, ``zscore`` also subtracts the mean, as the released code of the paper
            does, and ``none`` leaves rewards as they are.

    Raises:
        ValueError: if ``mode`` is unknown.

    Example:
        >>> RewardScale("std")(torch.tensor([0.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, mode: Literal["std", "zscore", "none"] = "std") -> None:
        if mode not in ("std", "zscore", "none"):
            raise ValueError(f"reward_scaling is {mode!r}; it must be 'std', 'zscore' or 'none'")
        self.mode = mode
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0  # sum of squared deviations from the mean

    def __call__(self, reward: Tensor) -> Tensor:
        """Update the running statistics with some rewards, and return the rewards scaled."""
        if self.mode == "none" or not reward.numel():
            return reward
        old, self.count = self.count, self.count + reward.numel()
        mean = reward.mean()
        apart = mean - self.mean
        self.mean = self.mean + apart * (reward.numel() / self.count)
        self.squares = (
            self.squares + (reward - mean).square().sum() + apart.square() * (old * reward.numel() / self.count)
        )
        std = (self.squares / self.count).sqrt()
        std = torch.where(std > torch.finfo(std.dtype).eps, std, 1)  # equal rewards stay as they are
        return (reward - self.mean) / std if self.mode == "zscore" else reward / std
