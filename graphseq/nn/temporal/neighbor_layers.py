"""Layers over the recent neighbours of a node, what the embeddings of that name are made of."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.nn.temporal.fused_attention import neighbor_attention
from graphseq.nn.temporal.plan import Seats, can_ask
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__: list[str] = []


class AttentionLayer(nn.Module):
    """One layer of temporal attention with a merge of what was attended and the node's own state."""

    def __init__(
        self, dim: int, out_channels: int, msg_channels: int, time_dim: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        width = dim + time_dim
        if width % num_heads:
            raise ValueError(f"dim + time dim is {width}; it must be a multiple of num_heads = {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.parts = [dim, msg_channels, time_dim]
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(sum(self.parts), width, bias=False)  # a key's bias cancels in the softmax
        self.value = nn.Linear(sum(self.parts), width)
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
        seats: Seats | None = None,
    ) -> Tensor:
        now = time_encoder(own.new_zeros(1))
        of_own, of_now = self.query.weight.split([own.size(1), now.size(1)], dim=1)
        query = functional.linear(own, of_own) + functional.linear(now, of_now, self.query.bias)
        folded = _fold(_heads(query, self.num_heads), self.key.weight, self.num_heads).split(self.parts, dim=2)
        pairs = (source, neighbor, gaps, msg, mask)
        *sums, share = _attend(folded, pairs, time_encoder, seats, self.dropout if self.training else 0.0)
        # from values to the ReLU of the merge all is linear: weights are multiplied with each other, once a batch
        first, heads = self.merge.first, self.num_heads
        ahead, of_self = first.weight.split([self.out.out_features, own.size(1)], dim=1)
        by_head = (ahead @ self.out.weight).view(len(ahead), heads, -1).transpose(0, 1)
        values = torch.bmm(by_head, self.value.weight.view(heads, by_head.size(2), -1)).transpose(0, 1)
        of_share = torch.bmm(by_head, self.value.bias.view(heads, -1, 1)).squeeze(2).t()
        # a node without neighbours attends to nothing, not to a bias
        some = mask.any(1, keepdim=True).to(own.dtype) * functional.linear(self.out.bias, ahead)
        hidden = functional.linear(own, of_self, first.bias) + some
        if seats is not None:
            hidden = hidden.index_select(0, seats.lookup)
        hidden = hidden + functional.linear(share, of_share)
        for total, weight in zip(sums, values.split(self.parts, dim=2), strict=True):
            if total.size(2):
                hidden = torch.addmm(hidden, total.flatten(1), weight.flatten(1).t())
        return self.merge.second(functional.relu(hidden))


class TransformerLayer(nn.Module):
    """The layer of ``torch_geometric.nn.TransformerConv`` with edge features, over padded neighbours."""

    def __init__(
        self, dim: int, out_channels: int, msg_channels: int, time_dim: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        if out_channels % num_heads:
            raise ValueError(f"out_channels is {out_channels}; it must be a multiple of num_heads = {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.parts = [dim, msg_channels, time_dim]
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
        seats: Seats | None = None,
    ) -> Tensor:
        skipped, some = self.skip(own), None
        if seats is not None:
            skipped = skipped.index_select(0, seats.lookup)
        elif can_ask(own.device):  # who has no neighbours attends to nothing
            some = mask.any(1).nonzero().squeeze(1)
            own, neighbor, gaps, msg, mask = (x.index_select(0, some) for x in (own, neighbor, gaps, msg, mask))
        query = _heads(self.query(own), self.num_heads)
        key = torch.cat([self.key.weight, self.edge.weight], dim=1)
        value = torch.cat([self.value.weight, self.edge.weight], dim=1)
        folded = _fold(query, key, self.num_heads).split(self.parts, dim=2)
        pairs = (source, neighbor, gaps, msg, mask)
        *sums, share = _attend(folded, pairs, time_encoder, seats, self.dropout if self.training else 0.0)
        attended = _weighted_values(sums, share, value, self.value.bias, self.num_heads)
        return attended + skipped if some is None else skipped.to(attended.dtype).index_add(0, some, attended)


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
        present = mask.to(own.dtype)[:, None, :]
        near = source.index_select(0, neighbor.flatten()).view(*neighbor.shape, -1)
        parts = (near, msg, time_encoder(gaps))
        total = torch.cat([torch.bmm(present, part).squeeze(1) for part in parts], dim=1)
        count = present.sum(2)
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


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(R, H C) -> (H, R, C)."""
    return x.unflatten(1, (num_heads, -1)).transpose(0, 1)


def _fold(query: Tensor, key_weight: Tensor, num_heads: int) -> Tensor:
    """Multiply queries (H, R, C) with key weights (H C, F): what a query looks for in an input, (R, H, F)."""
    weight = key_weight.view(num_heads, -1, key_weight.size(1)) / math.sqrt(query.size(2))
    return torch.bmm(query, weight).transpose(0, 1)


def _weighted_values(sums: list[Tensor], share: Tensor, weight: Tensor, bias: Tensor, num_heads: int) -> Tensor:
    """Multiply weighted sums of inputs (R, H, F) with value weights (H C, F): weighted sums of values (R, H C)."""
    inputs = torch.cat(sums, dim=2).transpose(0, 1)
    values = torch.bmm(inputs, weight.view(num_heads, -1, weight.size(1)).transpose(1, 2)).transpose(0, 1)
    return (values + share[..., None] * bias.view(num_heads, -1)).flatten(1)


def _attend(
    folded: tuple[Tensor, ...],
    pairs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    time_encoder: TimeEncoder,
    seats: Seats | None,
    dropout: float,
) -> tuple[Tensor, ...]:
    """Return weighted sums of neighbours, messages and times (R, H, *), and the sum of weights (R, H), of all rows."""
    query = (folded[0], folded[1], folded[2])
    roots, heads, places = *query[0].shape[:2], pairs[1].size(1)
    time = (time_encoder.weight, time_encoder.bias)
    keep = None
    if dropout:
        shape = (roots, heads if seats is None else seats.later.size(1) * heads, places)
        keep = query[0].new_empty(shape, dtype=pairs[0].dtype).bernoulli_(1 - dropout).div_(1 - dropout)
    if seats is None:
        return neighbor_attention(query, *pairs, *time, keep)
    return neighbor_attention(query, *pairs, *time, keep, later=seats.later, seat=seats.seat)
