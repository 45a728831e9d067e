"""Layers over the recent neighbours of a node, used by the embeddings of the same names."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.nn.temporal.plan import SharedLookups
from graphseq.nn.temporal.time_encoding import TimeEncoder
from graphseq.ops.attention import neighbor_attention

__all__ = ["neighbor_attention"]


class AttentionLayer(nn.Module):
    """One layer of temporal attention, merged with the node's own state."""

    def __init__(
        self, dim: int, out_channels: int, msg_channels: int, time_dim: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        width = dim + time_dim
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"dim + time dim is {width}; it must be a multiple of num_heads = {num_heads}")
        self.msg_channels, self.num_heads, self.dropout = msg_channels, num_heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width + msg_channels, width, bias=False)  # a key's bias cancels in the softmax
        self.value = nn.Linear(width + msg_channels, width)
        self.out = nn.Linear(width, width)
        self.merge = _Merge(width + dim, dim, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.out.reset_parameters()
        nn.init.zeros_(self.out.bias)
        self.merge.reset_parameters()

    def forward(
        self,
        own: Tensor,
        source: Tensor,
        neighbor: Tensor,
        gaps: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_encoder: TimeEncoder,
        shared: SharedLookups | None = None,
    ) -> Tensor:
        now = time_encoder(own.new_zeros(1))  # (1, D_t)
        of_own, of_now = self.query.weight.split([own.size(1), now.size(1)], dim=1)
        query = functional.linear(own, of_own) + functional.linear(now, of_now, self.query.bias)  # (R, H C)
        folded = _fold(query, self.key.weight, self.num_heads)  # (R, H, F)
        pairs = (source, neighbor, gaps, msg, mask)
        sums = _attend(folded, pairs, time_encoder, shared, self.dropout if self.training else 0.0)  # (S, H, F + 1)
        # from values to the ReLU of the merge all is linear: weights are multiplied with each other, once a batch
        first, heads = self.merge.first, self.num_heads
        ahead, of_self = first.weight.split([self.out.out_features, own.size(1)], dim=1)
        by_head = (ahead @ self.out.weight).view(len(ahead), heads, -1).transpose(0, 1)  # (H, D, C)
        value = torch.cat([self.value.weight, self.value.bias[:, None]], dim=1)
        values = torch.bmm(by_head, value.view(heads, by_head.size(2), -1)).transpose(0, 1)  # (D, H, F + 1)
        # a node without neighbours attends to nothing, not to a bias
        some = mask.any(1, keepdim=True).to(own.dtype) * functional.linear(self.out.bias, ahead)
        hidden = functional.linear(own, of_self, first.bias) + some  # (R, D)
        if shared is not None:
            hidden = hidden.index_select(0, shared.lookup)  # (S, D)
        hidden = torch.addmm(hidden, sums.flatten(1), values.flatten(1).t())
        return self.merge.second(functional.relu(hidden))


class TransformerLayer(nn.Module):
    """The layer of ``torch_geometric.nn.TransformerConv`` with edge features, over padded neighbours."""

    def __init__(
        self, dim: int, out_channels: int, msg_channels: int, time_dim: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        if num_heads < 1 or out_channels % num_heads:
            raise ValueError(f"out_channels is {out_channels}; it must be a multiple of num_heads = {num_heads}")
        self.msg_channels, self.num_heads, self.dropout = msg_channels, num_heads, dropout
        self.query = nn.Linear(dim, out_channels)
        self.key = nn.Linear(dim, out_channels, bias=False)  # a key's bias cancels in the softmax
        self.value = nn.Linear(dim, out_channels)
        self.edge = nn.Linear(msg_channels + time_dim, out_channels, bias=False)
        self.skip = nn.Linear(dim, out_channels)

    def reset_parameters(self) -> None:
        for linear in (self.query, self.key, self.value, self.edge, self.skip):
            linear.reset_parameters()

    def forward(
        self,
        own: Tensor,
        source: Tensor,
        neighbor: Tensor,
        gaps: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_encoder: TimeEncoder,
        shared: SharedLookups | None = None,
    ) -> Tensor:
        skipped = self.skip(own)  # (R, H C)
        if shared is not None:
            skipped = skipped.index_select(0, shared.lookup)  # (S, H C)
        key = torch.cat([self.key.weight, self.edge.weight], dim=1)
        value = torch.cat([self.value.weight, self.edge.weight, self.value.bias[:, None]], dim=1)
        folded = _fold(self.query(own), key, self.num_heads)  # (R, H, F)
        pairs = (source, neighbor, gaps, msg, mask)
        sums = _attend(folded, pairs, time_encoder, shared, self.dropout if self.training else 0.0)  # (S, H, F + 1)
        return _weighted_values(sums, value) + skipped


class SumLayer(nn.Module):
    """One layer of temporal sums."""

    def __init__(self, dim: int, out_channels: int, msg_channels: int, time_dim: int) -> None:
        super().__init__()
        self.neighbor = nn.Linear(dim + msg_channels + time_dim, dim)
        self.merge = nn.Linear(2 * dim + time_dim, out_channels)

    def reset_parameters(self) -> None:
        self.neighbor.reset_parameters()
        self.merge.reset_parameters()

    def forward(
        self,
        own: Tensor,
        source: Tensor,
        neighbor: Tensor,
        gaps: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_encoder: TimeEncoder,
    ) -> Tensor:
        # the sum of W x + b over neighbours is W times the sum of x, plus b times their number
        present = mask.to(own.dtype)[:, None, :]  # (R, 1, K)
        near = source.index_select(0, neighbor.flatten()).view(*neighbor.shape, -1)  # (R, K, D)
        parts = (near, msg, time_encoder(gaps))
        total = torch.cat([torch.bmm(present, part).squeeze(1) for part in parts], dim=1)  # (R, F)
        count = present.sum(2)  # (R, 1)
        summed = functional.relu(functional.linear(total, self.neighbor.weight) + count * self.neighbor.bias)
        now = time_encoder(own.new_zeros(1)).expand(len(own), -1)
        return self.merge(torch.cat([summed, own, now], dim=1))


class _Merge(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(in_channels, hidden_channels), nn.Linear(hidden_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.first, self.second):
            linear.reset_parameters()
            nn.init.xavier_normal_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(x)))


def _fold(query: Tensor, key_weight: Tensor, num_heads: int) -> Tensor:
    """Multiply queries (R, H C) with key weights (H C, F): queries in the space of the inputs, (R, H, F)."""
    query = (query / math.sqrt(query.size(1) // num_heads)).unflatten(1, (num_heads, -1)).transpose(0, 1)
    return torch.bmm(query, key_weight.view(num_heads, -1, key_weight.size(1))).transpose(0, 1)


def _weighted_values(sums: Tensor, weight: Tensor) -> Tensor:
    """Multiply weighted sums of inputs (R, H, F) with value weights (H C, F): weighted sums of values (R, H C)."""
    weight = weight.view(sums.size(1), -1, weight.size(1))
    return torch.bmm(sums.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1).flatten(1)


def _attend(
    query: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    time_encoder: TimeEncoder,
    shared: SharedLookups | None,
    dropout: float,
) -> Tensor:
    """Return weighted sums of neighbours, messages, times and 1 of all rows, (R, H, F + 1)."""
    (roots, heads, _), places = query.shape, pairs[1].size(1)
    time = (time_encoder.weight, time_encoder.bias)
    keep = None
    if dropout:
        shape = (roots, heads if shared is None else shared.later.size(1) * heads, places)
        keep = torch.empty(shape, dtype=time[0].dtype, device=query.device).bernoulli_(1 - dropout).div_(1 - dropout)
    if shared is None:
        return neighbor_attention(query, *pairs, *time, keep)
    return neighbor_attention(query, *pairs, *time, keep, later=shared.later, slot=shared.slot)
