"""Prompts of node features that are learned by gradients through a frozen encoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.prompt.graphs import EmbeddedGraphs
from graphseq.ops import segment_smallest

__all__ = ["GPF", "SUPT", "GPFPlus", "PromptTokens", "RandomPrompt"]


def _check_counts(module: str, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{module}({name}={count}): give at least 1")


def _prompts(count: int, channels: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(count, channels)))


class GPF(Recorded, nn.Module):
    r"""One prompt that is added to the features of every node.

    .. math:: p_i = p

    Source: arXiv 2209.15240, section 3.3. Differs from it: none.

    Args:
        channels: width of the embedded features, ``prompt_channels`` of the encoder, at least 1.

    Shape:
        EmbeddedGraphs of N nodes -> (N, channels)

    Raises:
        ValueError: if ``channels`` is below 1.

    Example:
        >>> GPF(4).prompt.shape
        torch.Size([1, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_counts("GPF", channels=channels)
        self.prompt = _prompts(1, channels)

    def reset_parameters(self) -> None:
        """Reinitialise the prompt."""
        nn.init.xavier_uniform_(self.prompt)

    def forward(self, graphs: EmbeddedGraphs) -> Tensor:
        """Return the prompt of each node.

        Args:
            graphs: graphs with embedded features.
        """
        return self.prompt.expand(len(graphs.h), -1)


class GPFPlus(Recorded, nn.Module):
    r"""A mixture of prompts for each node, by attention on its features.

    .. math:: p_i = \sum_k \operatorname{softmax}(W x_i + b)_k\, b_k

    Source: arXiv 2209.15240, section 3.3 (GPF-plus). Differs from it: none known.

    Args:
        channels: width of the embedded features, ``prompt_channels`` of the encoder, at least 1.
        num_prompts: number of prompts that are mixed, at least 1.

    Shape:
        EmbeddedGraphs of N nodes -> (N, channels)

    Raises:
        ValueError: if an argument is below 1.

    Example:
        >>> GPFPlus(4, num_prompts=3).prompt.shape
        torch.Size([3, 4])
    """

    def __init__(self, channels: int, num_prompts: int = 10) -> None:
        super().__init__()
        _check_counts("GPFPlus", channels=channels, num_prompts=num_prompts)
        self.prompt = _prompts(num_prompts, channels)
        self.score = nn.Linear(channels, num_prompts)

    def reset_parameters(self) -> None:
        """Reinitialise prompts and scores."""
        nn.init.xavier_uniform_(self.prompt)
        self.score.reset_parameters()

    def forward(self, graphs: EmbeddedGraphs) -> Tensor:
        """Return the prompt of each node.

        Args:
            graphs: graphs with embedded features.
        """
        return self.score(graphs.h).softmax(1) @ self.prompt


class SUPT(Recorded, nn.Module):
    r"""A mixture of prompts for each node, by attention on the features of the node and its neighbours.

    .. math:: p_i = \sum_k \operatorname{softmax}\bigl((\hat A X W + b)_i\bigr)_k\, b_k

    with :math:`\hat A = \tilde D^{-1/2} \tilde A \tilde D^{-1/2}` and :math:`\tilde A = A + I`.
    Nodes of one subgraph get similar mixtures.

    Source: arXiv 2402.10380 (the soft form). Differs from it: one round of propagation, and softmax over prompts; the
    full text of the paper was not available.

    Args:
        channels: width of the embedded features, ``prompt_channels`` of the encoder, at least 1.
        num_prompts: number of prompts that are mixed, at least 1.

    Shape:
        EmbeddedGraphs of N nodes -> (N, channels)

    Raises:
        ValueError: if an argument is below 1.

    Example:
        >>> SUPT(4, num_prompts=3).prompt.shape
        torch.Size([3, 4])
    """

    def __init__(self, channels: int, num_prompts: int = 10) -> None:
        super().__init__()
        _check_counts("SUPT", channels=channels, num_prompts=num_prompts)
        self.prompt = _prompts(num_prompts, channels)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, num_prompts)))
        self.bias = nn.Parameter(torch.zeros(num_prompts))

    def reset_parameters(self) -> None:
        """Reinitialise prompts and scores."""
        nn.init.xavier_uniform_(self.prompt)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, graphs: EmbeddedGraphs) -> Tensor:
        """Return the prompt of each node.

        Args:
            graphs: graphs with embedded features.
        """
        source, target = graphs.edge_index
        score = graphs.h @ self.weight  # (N, K)
        degree = torch.ones_like(score[:, 0]).index_add(0, target, score.new_ones(len(target)))
        scale = degree.rsqrt()
        messages = (scale[source] * scale[target])[:, None] * score[source]
        score = (score / degree[:, None]).index_add(0, target, messages) + self.bias
        return score.softmax(1) @ self.prompt


class PromptTokens(Recorded, nn.Module):
    r"""Tokens that are joined to the nodes they resemble and add themselves to their features.

    .. math:: p_i = \sum_k w_{ik}\, t_k, \qquad
        w_{ik} = \sigma(t_k^\top x_i)\ \text{if above the threshold, else } 0

    Source: arXiv 2307.01504 (All in One), section 3.3, tokens and inserting pattern. Differs from it: tokens exchange
    no messages with each other, and are trained together with the head and without meta-learning.

    Args:
        channels: width of the embedded features, ``prompt_channels`` of the encoder, at least 1.
        num_tokens: number of tokens, at least 1.
        threshold: weight below which a token and a node are not joined, in [0, 1).

    Shape:
        EmbeddedGraphs of N nodes -> (N, channels)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> PromptTokens(4, num_tokens=3).tokens.shape
        torch.Size([3, 4])
    """

    def __init__(self, channels: int, num_tokens: int = 10, threshold: float = 0.1) -> None:
        super().__init__()
        _check_counts("PromptTokens", channels=channels, num_tokens=num_tokens)
        if not 0 <= threshold < 1:
            raise ValueError(f"PromptTokens(threshold={threshold}): give a number in [0, 1)")
        self.threshold = threshold
        self.tokens = _prompts(num_tokens, channels)

    def reset_parameters(self) -> None:
        """Reinitialise the tokens."""
        nn.init.xavier_uniform_(self.tokens)

    def forward(self, graphs: EmbeddedGraphs) -> Tensor:
        """Return the prompt of each node.

        Args:
            graphs: graphs with embedded features.
        """
        weight = (graphs.h @ self.tokens.T).sigmoid()  # (N, K)
        return functional.threshold(weight, self.threshold, 0.0) @ self.tokens


class RandomPrompt(Recorded, nn.Module):
    r"""Normal noise that is added to the features of randomly chosen nodes: a control, which learns nothing.

    It is drawn anew at each call in training; in evaluation mode from a fixed seed.

    Args:
        channels: width of the embedded features, ``prompt_channels`` of the encoder, at least 1.
        magnitude: mean absolute entry of the prompt of a chosen node, at least 0; give the magnitude of the prompts
            that it is compared with.
        share: share of the nodes of each graph that are chosen, in [0, 1], rounded up to at least one node; give the
            coverage of those prompts.
        seed: seed of the prompts in evaluation mode.

    Shape:
        EmbeddedGraphs of N nodes -> (N, channels)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> list(RandomPrompt(4).parameters())
        []
    """

    def __init__(self, channels: int, magnitude: float = 0.1, share: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        _check_counts("RandomPrompt", channels=channels)
        if not magnitude >= 0 or not 0 <= share <= 1:
            raise ValueError(
                f"RandomPrompt(magnitude={magnitude}, share={share}): give a magnitude of at least 0, a share in [0, 1]"
            )
        self.channels, self.magnitude, self.share, self.seed = channels, magnitude, share, seed

    def forward(self, graphs: EmbeddedGraphs) -> Tensor:
        """Return the prompt of each node.

        Args:
            graphs: graphs with embedded features.
        """
        device = graphs.h.device
        generator = None if self.training else torch.Generator(device).manual_seed(self.seed)
        scale = self.magnitude * (torch.pi / 2) ** 0.5  # the mean absolute value of a normal number is sqrt(2 / pi)
        prompt = scale * torch.randn(graphs.h.shape, dtype=graphs.h.dtype, device=device, generator=generator)
        sizes = graphs.ptr.diff()
        counts = sizes - (sizes * (1 - self.share) + 1e-4).long()
        scores = torch.rand(graphs.batch.shape, device=device, generator=generator)
        chosen = segment_smallest(scores, counts.clamp(min=1), graphs.ptr)
        return torch.where(chosen[:, None], prompt, 0)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"magnitude={self.magnitude}, share={self.share}"
