"""The embedding step of TGN: identity, time projection, sums and attention over recent neighbours."""

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.temporal.neighbor_layers import AttentionLayer, SumLayer, TransformerLayer
from graphseq.nn.temporal.plan import Plan
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = [
    "IdentityEmbedding",
    "TemporalAttentionEmbedding",
    "TemporalEmbedding",
    "TemporalSumEmbedding",
    "TimeProjectionEmbedding",
    "TransformerEmbedding",
]

RelativeTime = Literal["query", "update"]


class TemporalEmbedding(Recorded, nn.Module):
    """Base class of embedding modules, which map the memories of a batch to one embedding for each row.

    Attributes:
        out_channels: width of an embedding.
        num_neighbors: number of neighbours looked up for each row, 0 for none.
        num_layers: number of layers that look up neighbours.
        share_rows: whether endpoints of the same node share one row, which then has no time of its own.
        share_lookups: whether the layers support rows of one node that share a neighbour lookup.
        msg_channels: width of the event features the embedding was built for; None if it uses none.

    Example:
        >>> IdentityEmbedding(8).num_neighbors
        0
    """

    out_channels: int
    num_neighbors: int = 0
    num_layers: int = 0
    share_rows: bool = False
    share_lookups: bool = False
    msg_channels: int | None = None

    def forward(self, z: Tensor, plan: Plan, last_update: Tensor, time_encoder: TimeEncoder) -> Tensor:
        """Return the embeddings of ``plan.layers[0]``.

        Args:
            z: memories of ``plan.nodes``, their mail applied (U, D).
            plan: plan of the batch with its rows and neighbours.
            last_update: time of the last event of ``plan.nodes`` (U,).
            time_encoder: encoder of time differences.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def _of_rows(self, z: Tensor, position: Tensor) -> Tensor:
        """Return the entries of ``z`` for the nodes of the rows; shared rows are the first nodes of the plan."""
        return z[: len(position)] if self.share_rows else z.index_select(0, position)


class IdentityEmbedding(TemporalEmbedding):
    r"""The memory is the embedding.

    .. math:: h_u(t) = s_u

    Source: arXiv 2006.10637, section 3.1 (``id``).

    Args:
        dim: size of a memory.

    Shape:
        z (U, D) -> (R, D)

    Raises:
        ValueError: if ``dim`` is below 1.

    Example:
        >>> IdentityEmbedding(dim=8).out_channels
        8
    """

    share_rows = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        positive(dim=dim)
        self.out_channels = dim

    def forward(self, z: Tensor, plan: Plan, last_update: Tensor, time_encoder: TimeEncoder) -> Tensor:
        """Return the memories of the rows."""
        return self._of_rows(z, plan.layers[0].position)


class TimeProjectionEmbedding(TemporalEmbedding):
    r"""The memory drifts linearly with the time since its last event.

    .. math:: h_u(t) = s_u \odot (1 + \tau w + b), \qquad \tau = (t - t_u - \mu) / \sigma

    with mean and deviation of the gaps of sources for sources, and of destinations for destinations.

    Source: arXiv 2006.10637, section 3.1 (``time``), after arXiv 1908.01207, eq. 4. Differs from the code of the
    former: the statistics come from the training split only.

    Args:
        dim: size of a memory.
        time_statistics: mean and standard deviation of the time between events of sources, then of destinations, such
            as ``time_statistics`` of the data module.

    Shape:
        z (U, D) -> (R, D)

    Raises:
        ValueError: if ``dim`` is below 1, there are not four finite statistics, or a deviation is not above 0.

    Example:
        >>> TimeProjectionEmbedding(dim=8, time_statistics=[0.0, 1.0, 0.0, 1.0]).out_channels
        8
    """

    def __init__(self, dim: int, time_statistics: list[float]) -> None:
        super().__init__()
        finite = len(time_statistics) == 4 and all(math.isfinite(value) for value in time_statistics)
        if not finite or min(time_statistics[1], time_statistics[3]) <= 0:
            raise ValueError(
                f"time_statistics is {time_statistics}; give mean and deviation (> 0) of the gaps of sources, then of "
                "destinations, as the data module's time_statistics has them"
            )
        positive(dim=dim)
        self.out_channels = dim
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.time_statistics = list(time_statistics)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise weight and bias from N(0, 1), the scale of a linear map with one input."""
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)

    def forward(self, z: Tensor, plan: Plan, last_update: Tensor, time_encoder: TimeEncoder) -> Tensor:
        """Return the projected memories of the rows."""
        rows, events = plan.layers[0], len(plan.batch)
        # sources come first, and the sources of negatives, where they have their own, last
        sources_of_negatives = 0 if plan.batch.neg_src is None else plan.batch.neg_src.numel()
        destination = torch.ones_like(rows.position, dtype=torch.bool)
        destination[:events] = False
        destination[len(destination) - sources_of_negatives :] = False
        gap = rows.t.double() - last_update.index_select(0, rows.position)  # (R,)
        source, of_source, other, of_other = self.time_statistics  # mean and deviation of each role
        scaled = torch.where(destination, (gap - other) / of_other, (gap - source) / of_source)
        drift = 1 + scaled.to(z.dtype)[:, None] * self.weight + self.bias  # (R, D)
        return z.index_select(0, rows.position) * drift


class _NeighborEmbedding(TemporalEmbedding):
    """Base class of embeddings over recent neighbours: sizes, layers, relative times."""

    layers: nn.ModuleList
    layers_share = True
    """Whether layers take rows that share a lookup."""

    def __init__(
        self,
        dim: int,
        out_channels: int,
        num_neighbors: int,
        num_layers: int,
        dropout: float,
        relative_time: RelativeTime,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        if min(dim, out_channels, num_neighbors, num_layers) < 1:
            raise ValueError(
                f"dim is {dim}, out_channels {out_channels}, num_neighbors {num_neighbors}, num_layers {num_layers}; "
                "all must be at least 1"
            )
        if relative_time not in ("query", "update"):
            raise ValueError(f"relative_time is {relative_time!r}; it must be 'query' or 'update'")
        if relative_time == "update" and num_layers > 1:
            raise ValueError("relative_time='update' gives rows no moment, which deeper layers need; use 'query'")
        self.out_channels, self.num_neighbors, self.num_layers = out_channels, num_neighbors, num_layers
        self.relative_time = relative_time
        self.share_rows = relative_time == "update"
        self.share_lookups = self.layers_share and num_layers == 1 and not self.share_rows

    def forward(self, z: Tensor, plan: Plan, last_update: Tensor, time_encoder: TimeEncoder) -> Tensor:
        """Return the embeddings of the rows after the last layer."""
        return self._embed(self.num_layers, 0, z, plan, last_update, time_encoder)

    def _embed(
        self, level: int, depth: int, z: Tensor, plan: Plan, last_update: Tensor, time_encoder: TimeEncoder
    ) -> Tensor:
        """Return the output of ``level`` layers for the rows that are ``depth`` steps away from the roots."""
        rows = plan.layers[depth]
        neighbor, neighbor_t = cast(Tensor, rows.neighbor), cast(Tensor, rows.neighbor_t)
        if level == 1:
            own, source = self._of_rows(z, (rows.shared or rows).position), z  # (R, D), (U, D)
        else:  # both at the moment of the root, by the layers below
            own = self._embed(level - 1, depth, z, plan, last_update, time_encoder)
            source = self._embed(level - 1, depth + 1, z, plan, last_update, time_encoder)  # (R K, D)
        if self.relative_time == "query":
            gaps = (rows.shared or rows).t[:, None] - neighbor_t  # (R, K)
        else:
            gaps = last_update.index_select(0, neighbor.flatten()).view_as(neighbor) - neighbor_t
        if level > 1:
            neighbor = torch.arange(len(source), device=source.device).view_as(neighbor)
        layer, msg = self.layers[level - 1], cast(Tensor, rows.msg).to(z.dtype)
        given = (own, source, neighbor, gaps, msg, cast(Tensor, rows.mask), time_encoder)
        return layer(*given) if rows.shared is None else layer(*given, rows.shared)


class TemporalAttentionEmbedding(_NeighborEmbedding):
    r"""Attention of a node over its most recent neighbours, their events and the times since.

    .. math::
        q = [h_u \,\Vert\, \phi(0)], \quad k_n = v_n = [h_n \,\Vert\, x_e \,\Vert\, \phi(t - t_e)], \qquad
        h_u' = \mathrm{MLP}([\mathrm{MultiHead}(q, k, v) \,\Vert\, h_u])

    Embeddings of neighbours below the last layer are taken at the time of the root. The attention output is zero
    for a node without neighbours.

    Source: arXiv 2006.10637, section 3.1 (``attn``). Differs from it: none known.

    Args:
        dim: size of a memory.
        out_channels: width of an embedding.
        msg_channels: width of the event features.
        time_dim: width of an encoded time.
        num_neighbors: number of neighbours K looked up for each node, the most recent ones.
        num_layers: number of layers; each reaches neighbours one step farther.
        num_heads: number of attention heads; it must divide ``dim + time_dim``.
        dropout: probability of dropping an attention weight, in [0, 1).
        relative_time: ``query`` encodes the time since the event at the moment of the root, one row for each
            endpoint; ``update`` the time between the event and the neighbour's last update, one row for each node, as
            in PyG's example: faster, but the embedding does not depend on the time that has passed.

    Shape:
        z (U, D) -> (R, out_channels)

    Raises:
        ValueError: if a size is out of range, or ``relative_time`` is ``update`` with several layers.

    Example:
        >>> TemporalAttentionEmbedding(dim=8, out_channels=8, msg_channels=0, time_dim=4, num_neighbors=5).num_layers
        1
    """

    def __init__(
        self,
        dim: int,
        out_channels: int,
        msg_channels: int,
        time_dim: int,
        num_neighbors: int = 10,
        num_layers: int = 1,
        num_heads: int = 2,
        dropout: float = 0.1,
        relative_time: RelativeTime = "query",
    ) -> None:
        super().__init__(dim, out_channels, num_neighbors, num_layers, dropout, relative_time)
        _check_widths(msg_channels, time_dim)
        widths = [dim] + [out_channels] * num_layers
        if num_layers > 1 and out_channels != dim:
            raise ValueError(f"out_channels is {out_channels} and dim {dim}; several layers need them equal")
        self.msg_channels = msg_channels
        self.layers = nn.ModuleList(
            AttentionLayer(width, out_channels, msg_channels, time_dim, num_heads, dropout) for width in widths[:-1]
        )


class TransformerEmbedding(_NeighborEmbedding):
    r"""PyG's ``TransformerConv`` over the most recent neighbours: the embedding of PyG's own TGN example.

    .. math::
        h_u' = W_s h_u + \sum_n \alpha_{un} (W_v h_n + W_e e_{un}), \quad
        \alpha_{un} = \mathrm{softmax}_n \frac{(W_q h_u)^\top (W_k h_n + W_e e_{un})}{\sqrt{C}}, \quad
        e_{un} = [x_e \,\Vert\, \phi(\Delta t)]

    Source: arXiv 2009.03509, eq. 3 and 4, as ``examples/tgn.py`` of PyG uses it. Differs from it: the columns of
    :math:`W_e` are in this order; keys have no bias, which cancels.

    Args:
        dim: size of a memory.
        out_channels: width of an embedding.
        msg_channels: width of the event features.
        time_dim: width of an encoded time.
        num_neighbors: number of neighbours K looked up for each node, the most recent ones.
        num_heads: number of attention heads; it must divide ``out_channels``.
        dropout: probability of dropping an attention weight, in [0, 1).
        relative_time: time that is encoded, ``query`` or ``update`` as in :class:`TemporalAttentionEmbedding`; PyG's
            example has ``update``.

    Shape:
        z (U, D) -> (R, out_channels)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> TransformerEmbedding(dim=8, out_channels=8, msg_channels=0, time_dim=4).share_rows
        True
    """

    def __init__(
        self,
        dim: int,
        out_channels: int,
        msg_channels: int,
        time_dim: int,
        num_neighbors: int = 10,
        num_heads: int = 2,
        dropout: float = 0.1,
        relative_time: RelativeTime = "update",
    ) -> None:
        super().__init__(dim, out_channels, num_neighbors, 1, dropout, relative_time)
        _check_widths(msg_channels, time_dim)
        layer = TransformerLayer(dim, out_channels, msg_channels, time_dim, num_heads, dropout)
        self.msg_channels = msg_channels
        self.layers = nn.ModuleList([layer])


class TemporalSumEmbedding(_NeighborEmbedding):
    r"""Sum over the most recent neighbours, their events and the times since.

    .. math::
        \tilde h_u = \mathrm{ReLU}\Bigl(\sum_n W_1 [h_n \,\Vert\, x_e \,\Vert\, \phi(t - t_e)]\Bigr), \qquad
        h_u' = W_2 [\tilde h_u \,\Vert\, h_u \,\Vert\, \phi(0)]

    Source: arXiv 2006.10637, section 3.1 (``sum``). Differs from its code: absent neighbours are left out of the sum.

    Args:
        dim: size of a memory.
        out_channels: width of an embedding.
        msg_channels: width of the event features.
        time_dim: width of an encoded time.
        num_neighbors: number of neighbours K looked up for each node, the most recent ones.
        num_layers: number of layers; each reaches neighbours one step farther.
        relative_time: time that is encoded, ``query`` or ``update`` as in :class:`TemporalAttentionEmbedding`.

    Shape:
        z (U, D) -> (R, out_channels)

    Raises:
        ValueError: if a size is out of range, or ``relative_time`` is ``update`` with several layers.

    Example:
        >>> TemporalSumEmbedding(dim=8, out_channels=8, msg_channels=0, time_dim=4).num_neighbors
        10
    """

    layers_share = False

    def __init__(
        self,
        dim: int,
        out_channels: int,
        msg_channels: int,
        time_dim: int,
        num_neighbors: int = 10,
        num_layers: int = 1,
        relative_time: RelativeTime = "query",
    ) -> None:
        super().__init__(dim, out_channels, num_neighbors, num_layers, 0.0, relative_time)
        _check_widths(msg_channels, time_dim)
        if num_layers > 1 and out_channels != dim:
            raise ValueError(f"out_channels is {out_channels} and dim {dim}; several layers need them equal")
        self.msg_channels = msg_channels
        self.layers = nn.ModuleList(SumLayer(dim, out_channels, msg_channels, time_dim) for _ in range(num_layers))


def _check_widths(msg_channels: int, time_dim: int) -> None:
    if msg_channels < 0 or time_dim < 1:
        raise ValueError(f"msg_channels is {msg_channels}, time_dim {time_dim}; at least 0 and 1 are needed")
