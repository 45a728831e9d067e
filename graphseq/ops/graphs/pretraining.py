"""Losses of self-supervised training on graphs, from vectors and scores alone."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["info_nce_loss", "link_loss", "masked_cross_entropy", "mutual_information_loss"]


def masked_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Return the mean cross-entropy of the masked rows; 0 if no row is masked.

    .. math:: L = -\frac{1}{|M|} \sum_{i \in M} \log \operatorname{softmax}(z_i)_{y_i}

    The rows are weighted and not selected, so that there is no synchronisation on an accelerator.

    Args:
        logits: scores of the categories.
        target: category of each row, int64.
        mask: whether a row counts.

    Shape:
        logits (N, K), target (N,), mask (N,) -> ()

    Example:
        >>> masked_cross_entropy(torch.zeros(2, 4), torch.tensor([1, 3]), torch.tensor([True, False]))
        tensor(1.3863)
    """
    each = functional.cross_entropy(logits, target, reduction="none")
    return torch.where(mask, each, 0).sum() / mask.sum().clamp(min=1)


def link_loss(node: Tensor, edges: Tensor, non_edges: Tensor, counts: Tensor, valid: Tensor) -> Tensor:
    r"""Return the binary cross-entropy of scalar products, over edges and pairs without an edge.

    .. math::
        L = -\frac{1}{|P|} \sum_{(u, v) \in P} \log \sigma(h_u^\top h_v)
            - \frac{1}{|N|} \sum_{(u, v) \in N} \log \sigma(-h_u^\top h_v)

    A mean over no pair is 0.

    Source: arXiv 1611.07308; arXiv 1905.12265, appendix (edge prediction).

    Args:
        node: node vectors.
        edges: edges.
        non_edges: pairs of nodes without an edge, one for each edge.
        counts: whether an edge is in P; its pair is then in N.
        valid: whether a pair has no edge; others are left out.

    Shape:
        node (N, D), edges (2, E), non_edges (2, E), counts (E,), valid (E,) -> ()

    Example:
        >>> yes, pair = torch.tensor([True]), torch.tensor([[0], [1]])
        >>> link_loss(torch.zeros(2, 3), pair, pair, yes, yes)
        tensor(1.3863)
    """
    negative = counts & valid
    present = functional.softplus(-(node[edges[0]] * node[edges[1]]).sum(1))
    absent = functional.softplus((node[non_edges[0]] * node[non_edges[1]]).sum(1))
    first = torch.where(counts, present, 0).sum() / counts.sum().clamp(min=1)
    return first + torch.where(negative, absent, 0).sum() / negative.sum().clamp(min=1)


def info_nce_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Return the contrastive loss of two views of the same samples.

    .. math::
        L = -\frac{1}{2G} \sum_g \left(\log \frac{e^{s_{gg}}}{\sum_k e^{s_{gk}}}
            + \log \frac{e^{s_{gg}}}{\sum_k e^{s_{kg}}}\right), \qquad
        s_{gk} = \frac{a_g^\top b_k}{\tau \lVert a_g \rVert \lVert b_k \rVert}

    Similarities are computed in float32 or wider, under autocast as well.

    Source: arXiv 2010.13902, eq. 3. Differs from it: both directions are averaged, and the sum of the denominator
    contains the pair itself, as in arXiv 1807.03748, so that a batch of one graph has loss 0.

    Args:
        first: vectors a of the first views.
        second: vectors b of the second views, in the same order.
        temperature: temperature :math:`\tau`, above 0.

    Shape:
        first (G, D), second (G, D) -> ()

    Raises:
        ValueError: if the temperature is not above 0, or shapes differ.

    Example:
        >>> info_nce_loss(torch.eye(3), torch.eye(3), temperature=0.1) < 1e-3
        tensor(True)
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"first is {tuple(first.shape)}, second {tuple(second.shape)}; both must be (G, D)")
    first, second = (vectors.to(torch.promote_types(vectors.dtype, torch.float32)) for vectors in (first, second))
    with torch.autocast(first.device.type, enabled=False):
        similarity = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (functional.cross_entropy(similarity, own) + functional.cross_entropy(similarity.T, own)) / 2


def mutual_information_loss(node: Tensor, corrupted: Tensor, summary: Tensor, negative_summary: Tensor) -> Tensor:
    r"""Return the binary cross-entropy that tells nodes of a graph from others by a summary of the graph.

    .. math::
        L = -\frac{1}{N} \sum_i \bigl(\log \sigma(h_i^\top s_i) + \log \sigma(-\tilde h_i^\top \tilde s_i)\bigr)

    Source: arXiv 1809.10341, eq. 1.

    Args:
        node: node vectors.
        corrupted: node vectors of the negative pairs.
        summary: summary of the graph of each node.
        negative_summary: summaries of the negative pairs.

    Shape:
        node (N, D), corrupted (N, D), summary (N, D), negative_summary (N, D) -> ()

    Example:
        >>> zeros = torch.zeros(4, 2)
        >>> mutual_information_loss(zeros, zeros, zeros, zeros)
        tensor(1.3863)
    """
    positive = functional.softplus(-(node * summary).sum(1))
    return (positive + functional.softplus((corrupted * negative_summary).sum(1))).mean()
