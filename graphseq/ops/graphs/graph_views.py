"""Parts of packed graphs: random edges, grown subgraphs, distances in hops, and pairs of nodes without an edge."""

import torch
from torch import Generator, Tensor

from graphseq.ops.segment.select import segment_sample

__all__ = ["growth_times", "hop_distances", "induced_edges", "random_edges", "random_non_edges"]


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it must be in [0, 1]")


def mask_positions(mask: Tensor, count: int) -> Tensor:
    """Return the positions that a mask marks, whose number is known: without a synchronisation on an accelerator.

    Args:
        mask: whether a position is marked, bool (N,).
        count: number of marked positions.

    Example:
        >>> mask_positions(torch.tensor([True, False, True]), 2)
        tensor([0, 2])
    """
    places = torch.where(mask, mask.cumsum(0) - 1, count)  # all others write one past the last
    return places.new_empty(count + 1).scatter_(0, places, torch.arange(len(mask), device=mask.device))[:count]


def induced_edges(edge_index: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges between kept nodes, numbered among them, and their positions.

    The number of these edges is read from the device: one synchronisation on an accelerator.

    Args:
        edge_index: edges from row 0 to row 1.
        kept: whether a node is kept.

    Shape:
        edge_index (2, E), bool (N,) -> int64 (2, E'), int64 (E',)

    Example:
        >>> edges, kept = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([True, False, True])
        >>> induced_edges(edges, kept)
        (tensor([[1],
                [0]]), tensor([2]))
    """
    positions = (kept[edge_index[0]] & kept[edge_index[1]]).nonzero().flatten()
    return (kept.cumsum(0) - 1)[edge_index[:, positions]], positions


def random_edges(edge_index: Tensor, share: float, generator: Generator | None = None) -> Tensor:
    """Choose edges at random, both directions of a pair of nodes together; no synchronisation on an accelerator.

    Args:
        edge_index: edges from row 0 to row 1.
        share: probability that a pair of nodes is chosen, in [0, 1].
        generator: random number generator of the device of the edges; None for torch's own.

    Returns:
        Whether an edge is chosen.

    Shape:
        edge_index (2, E) -> bool (E,)

    Raises:
        ValueError: if ``share`` is out of range.

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> chosen = random_edges(edges, 0.5, torch.Generator().manual_seed(0))
        >>> bool((chosen[0] == chosen[1]) & (chosen[2] == chosen[3]))
        True
    """
    _check_share("share", share)
    low, high = edge_index.min(0).values, edge_index.max(0).values
    order = high.argsort(stable=True)
    order = order[low[order].argsort(stable=True)]  # equal pairs follow one another
    low, high = low[order], high[order]
    pair = torch.zeros_like(low)
    pair[1:] = ((low[1:] != low[:-1]) | (high[1:] != high[:-1])).cumsum(0)
    drawn = torch.rand(low.shape, device=low.device, generator=generator)[pair] < share
    return torch.empty_like(drawn).scatter_(0, order, drawn)


def growth_times(
    edge_index: Tensor, batch: Tensor, ptr: Tensor, num_hops: int, generator: Generator | None = None
) -> Tensor:
    r"""Return when each node joins a subgraph that grows from a random node of its graph.

    .. math:: t_v = w_v + \min_{u \to v} t_u, \qquad w_v \sim \mathrm{Exp}(1), \qquad t_{\mathrm{start}} = 0

    Since waiting times have no memory, the next node to join is a uniformly chosen neighbour of the nodes that have
    joined. The nodes with the smallest times, see :func:`segment_smallest`, are thus a random connected subgraph. There
    is no synchronisation on an accelerator.

    Source: the subgraph of arXiv 2010.13902, there grown node by node.

    Args:
        edge_index: edges from row 0 to row 1.
        batch: graph of each node, sorted.
        ptr: first node of each graph and, last, the number of nodes.
        num_hops: longest path from the start that is followed, at least 0; nodes farther away never join.
        generator: random number generator of the device of the edges; None for torch's own.

    Returns:
        Time at which each node joins; infinite if it does not.

    Shape:
        edge_index (2, E), batch (N,), ptr (G+1,) -> (N,)

    Raises:
        ValueError: if ``num_hops`` is negative.

    Example:
        >>> batch, ptr = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 3])
        >>> growth_times(torch.tensor([[0, 1], [1, 0]]), batch, ptr, num_hops=2).isfinite()
        tensor([True, True, True])
    """
    if num_hops < 0:
        raise ValueError(f"num_hops is {num_hops}; it must be at least 0")
    wait = torch.empty(batch.shape, device=batch.device).exponential_(generator=generator)
    start = segment_sample(torch.zeros_like(wait), ptr, generator)
    times = torch.full((len(wait) + 1,), torch.inf, device=wait.device)  # an empty graph starts past the last row
    times.scatter_(0, start, 0.0)
    source, target = edge_index
    for _ in range(num_hops):
        times.scatter_reduce_(0, target, times[source] + wait[target], "amin")
    return times[:-1]


def hop_distances(edge_index: Tensor, starts: Tensor, num_nodes: int, num_hops: int) -> Tensor:
    """Return the number of hops from the nearest start to each node; no synchronisation on an accelerator.

    Args:
        edge_index: edges from row 0 to row 1.
        starts: nodes at distance 0.
        num_nodes: number of nodes N.
        num_hops: largest distance that is found, at least 0; nodes farther away have one more.

    Shape:
        edge_index (2, E), starts (S,) -> int64 (N,)

    Raises:
        ValueError: if ``num_hops`` is negative.

    Example:
        >>> hop_distances(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0]), 5, num_hops=2)
        tensor([0, 1, 2, 3, 3])
    """
    if num_hops < 0:
        raise ValueError(f"num_hops is {num_hops}; it must be at least 0")
    distance = torch.full((num_nodes,), num_hops + 1, dtype=torch.int64, device=edge_index.device)
    distance.scatter_(0, starts, 0)
    source, target = edge_index
    for _ in range(num_hops):
        distance.scatter_reduce_(0, target, distance[source] + 1, "amin")
    return distance


def _pair_numbers(first: Tensor, second: Tensor, num_nodes: int) -> Tensor:
    """Return a number for each pair of nodes, the same for both of its orders."""
    return torch.minimum(first, second) * num_nodes + torch.maximum(first, second)


def random_non_edges(
    edge_index: Tensor, batch: Tensor, ptr: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw, for each edge, a node of the same graph to which its first node is not joined in either direction.

    There is no synchronisation on an accelerator: pairs that are edges, or one node twice, are marked and not drawn
    again.

    Args:
        edge_index: edges from row 0 to row 1.
        batch: graph of each node, sorted.
        ptr: first node of each graph and, last, the number of nodes.
        generator: random number generator of the device of the edges; None for torch's own.

    Returns:
        Pairs of nodes, and whether a pair has no edge.

    Shape:
        edge_index (2, E), batch (N,), ptr (G+1,) -> int64 (2, E), bool (E,)

    Example:
        >>> edges, batch = torch.tensor([[0, 1], [1, 0]]), torch.zeros(3, dtype=torch.int64)
        >>> pairs, valid = random_non_edges(edges, batch, torch.tensor([0, 3]))
        >>> bool((pairs[1][valid] == 2).all())
        True
    """
    source, target = edge_index
    graph = batch[source]
    count = ptr.diff()[graph]
    drawn = torch.rand(source.shape, dtype=torch.float64, device=source.device, generator=generator)
    other = ptr[graph] + (drawn * count).long().clamp(max=count - 1)
    if not len(source):
        return edge_index, torch.zeros_like(source, dtype=torch.bool)
    keys = _pair_numbers(source, target, len(batch)).sort().values
    wanted = _pair_numbers(source, other, len(batch))
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.stack([source, other]), (keys[place] != wanted) & (other != source)
