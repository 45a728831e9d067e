"""A small encoder with its plain twin, and graphs of different sizes, among them a single node."""

import torch
from torch import nn

from graphseq.core import Recorded
from graphseq.ops import segment_mean

SIZES = [3, 5, 1, 4]


class SmallEncoder(Recorded, nn.Module):
    """tanh(W (x + sum over neighbours)), and the mean of the nodes."""

    prompt_channels, node_channels, graph_channels = 3, 4, 4

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.passes = 0  # graphs encoded

    def embed(self, x, edge_attr=None):
        return x, None

    def encode_embedded(self, h, edge_index, batch=None, edge=None, ptr=None):
        self.passes += len(ptr) - 1
        node = self.linear(h + torch.zeros_like(h).index_add(0, edge_index[1], h[edge_index[0]])).tanh()
        return segment_mean(node, ptr=ptr), node

    def plain(self, rows, edges):
        """The same for one graph, with lists of rows and of pairs."""
        sums = []
        for number in range(len(rows)):
            total = rows[number]
            for source, target in edges:
                if target == number:
                    total = total + rows[source]
            sums.append(torch.tanh(self.linear.weight @ total + self.linear.bias))
        return sums


def graphs(dtype=torch.float64, sizes=SIZES, seed=0):
    """A batch as a dictionary, its edges in no order, and the edges of each graph."""
    generator = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    x = torch.randn(int(ptr[-1]), 3, dtype=dtype, generator=generator)
    each = [torch.randint(size, (2, 2 * size), generator=generator) for size in sizes]
    edges = torch.cat([edge + start for edge, start in zip(each, ptr.tolist(), strict=False)], 1)
    edges = edges[:, torch.randperm(edges.size(1), generator=generator)]
    return {"x": x, "edge_index": edges, "ptr": ptr}, [edge.T.tolist() for edge in each]
