"""Generated data of given statistics, for comparisons that need a size, or a machine without the real data."""

import numpy as np
import torch
from torch import Generator, Tensor
from torch_geometric.data import Data, InMemoryDataset

from graphseq.data import TemporalEvents

__all__ = ["busy_stream", "even_stream", "generated_graphs"]

_TAIL = 0.3  # share of events of the sources that are not busy


def generated_graphs(
    graphs: int, nodes: float, spread: float, edges: float, labels: int, attributes: int = 0, seed: int = 0
) -> InMemoryDataset:
    """Return random graphs of given sizes: gamma-distributed numbers of nodes, uniform edges in both directions.

    Args:
        graphs: number of graphs.
        nodes: mean number of nodes of a graph.
        spread: standard deviation of the number of nodes.
        edges: mean number of directed edges of a graph.
        labels: width of the one-hot node label.
        attributes: number of continuous node attributes, which stand before the label.
        seed: seed of everything random.

    Example:
        >>> generated_graphs(5, 9.0, 3.0, 20.0, labels=4)[0].x.size(1)
        4
    """
    random = np.random.default_rng(seed)
    shape = (nodes / spread) ** 2
    sizes = np.maximum(2, random.gamma(shape, nodes / shape, graphs).round()).astype(np.int64)
    pairs = (sizes * (edges / nodes / 2)).round().astype(np.int64)
    ends = random.integers(0, np.repeat(sizes, pairs), (2, pairs.sum()))
    both_ways = np.stack([ends, ends[::-1]], axis=-1).reshape(2, -1)  # an edge and its reverse side by side
    one_hot = np.eye(labels, dtype=np.float32)[random.integers(labels, size=sizes.sum())]
    x = np.concatenate([random.random((sizes.sum(), attributes), dtype=np.float32), one_hot], axis=1)
    fields = {"x": x, "edge_index": both_ways, "y": random.integers(2, size=graphs)}
    counts = {"x": sizes, "edge_index": 2 * pairs, "y": np.ones_like(sizes)}
    dataset = InMemoryDataset()
    dataset.data = Data(**{name: torch.from_numpy(field) for name, field in fields.items()})
    dataset.slices = {name: torch.from_numpy(np.append(0, count.cumsum())) for name, count in counts.items()}
    return dataset


def busy_stream(num_events: int, num_nodes: int, hot: int, destinations: int, generator: Generator) -> TemporalEvents:
    """Draw a bipartite stream whose busy part is the same however many nodes there are beside it.

    Busy sources make 7 of 10 events, the others, in turn, the rest. The k-th busiest source and destination occur in
    proportion to 1 / sqrt(k). Events come every second on average and have one feature.

    Args:
        num_events: number of events E, at least 1.
        num_nodes: number of nodes N, more than ``hot + destinations``.
        hot: number of busy sources, whose ids are random.
        destinations: number of nodes at the other end, the last ids.
        generator: generator of the random numbers.

    Raises:
        ValueError: if there is no other source.

    Example:
        >>> stream = busy_stream(100, 20, hot=4, destinations=6, generator=Generator().manual_seed(0))
        >>> len(stream), stream.num_sources
        (100, 14)
    """
    sources = num_nodes - destinations
    if sources <= hot:
        raise ValueError(f"num_nodes is {num_nodes}; it must be above {hot} sources and {destinations} destinations")
    ids = torch.randperm(sources, generator=generator)
    src = ids[_popular(hot, num_events, generator)]
    others = (torch.rand(num_events, generator=generator) < _TAIL).nonzero().squeeze(1)
    src[others] = ids[hot + torch.arange(len(others)) % (sources - hot)]
    return _events(src, sources + _popular(destinations, num_events, generator), num_nodes, sources, generator)


def even_stream(num_events: int, num_nodes: int, generator: Generator) -> TemporalEvents:
    """Draw a bipartite stream in which half of the nodes meet the other half, all alike.

    Args:
        num_events: number of events E, at least 1.
        num_nodes: number of nodes N, at least 2.
        generator: generator of the random numbers.

    Example:
        >>> even_stream(100, 20, Generator().manual_seed(0)).num_sources
        10
    """
    sources = num_nodes // 2
    src = torch.randint(sources, (num_events,), generator=generator)
    dst = torch.randint(sources, num_nodes, (num_events,), generator=generator)
    return _events(src, dst, num_nodes, sources, generator)


def _popular(number: int, count: int, generator: Generator) -> Tensor:
    edges = torch.arange(1, number + 1).double().rsqrt().cumsum(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * edges[-1]
    return torch.searchsorted(edges, drawn, right=True).clamp_(max=number - 1)


def _events(src: Tensor, dst: Tensor, num_nodes: int, num_sources: int, generator: Generator) -> TemporalEvents:
    gaps = torch.empty(len(src), dtype=torch.float64).exponential_(1.0, generator=generator)
    msg = torch.randn(len(src), 1, generator=generator)
    return TemporalEvents(src, dst, gaps.cumsum(0).long(), msg, num_nodes=num_nodes, num_sources=num_sources)
