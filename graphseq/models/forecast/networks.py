"""Forecasting networks that serve as baselines: recurrent, convolutional, patches, and recurrence on a given graph."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GraphConv

from graphseq.core.spec import Recorded
from graphseq.models.forecast.naive import checked_targets

__all__ = ["ConvolutionalForecaster", "GraphRecurrentForecaster", "PatchTransformer", "RecurrentForecaster"]


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < (0 if name == "num_known" else 1):
            raise ValueError(f"{name} is {value}; it must be at least {0 if name == 'num_known' else 1}")


def _joined(x: Tensor, known: Tensor | None, num_known: int) -> tuple[Tensor, Tensor | None]:
    """Return past values with their covariates (B, S, T, V + F), and the covariates of the future (B, S, Z, F)."""
    if num_known == 0:
        return x, None
    if known is None or known.shape[-1] != num_known:
        given = "none" if known is None else str(known.shape[-1])
        raise ValueError(
            f"known has {given} covariates, and the network was built with num_known={num_known}; give as many"
        )
    window = x.shape[2]
    spread = known[:, None].expand(-1, x.shape[1], -1, -1).to(x.dtype)
    return torch.cat([x, spread[:, :, :window]], 3), spread[:, :, window:]


class RecurrentForecaster(Recorded, nn.Module):
    r"""Encoder and decoder of recurrent layers: the decoder reads its own forecast of the step before.

    Each series is a sequence; all series share the weights.

    Source: arXiv 1409.3215, with numbers in place of words.

    Args:
        num_variables: number of variables V that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        targets: positions of the variables to predict; None for all.
        hidden_channels: width of the recurrent layers, at least 1.
        num_layers: number of recurrent layers, at least 1.
        cell: kind of recurrent layer: ``lstm`` or ``gru``.
        num_known: number F of covariates that are known in advance.
        dropout: dropout probability between recurrent layers, in [0, 1).

    Shape:
        x (B, S, T, V), known (B, T + Z, F) -> (B, S, Z, K)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> RecurrentForecaster(num_variables=3, horizon=4)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(
        self,
        num_variables: int,
        horizon: int,
        *,
        targets: Sequence[int] | None = None,
        hidden_channels: int = 64,
        num_layers: int = 1,
        cell: Literal["lstm", "gru"] = "lstm",
        num_known: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(num_variables=num_variables, horizon=horizon, hidden_channels=hidden_channels, num_layers=num_layers,
               num_known=num_known)  # fmt: skip
        if cell not in ("lstm", "gru"):
            raise ValueError(f"cell is {cell!r}; it must be 'lstm' or 'gru'")
        self.targets = checked_targets(targets, num_variables) or []
        self.horizon = horizon
        self.num_known = num_known
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.encoder = kind(num_variables + num_known, hidden_channels, num_layers, batch_first=True, dropout=dropout)
        self.decoder = kind(
            len(self.targets) + num_known, hidden_channels, num_layers, batch_first=True, dropout=dropout
        )
        self.head = nn.Linear(hidden_channels, len(self.targets))

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the forecast, each step decoded from the one before.

        Args:
            x: past values (B, S, T, V).
            known: covariates of past and future steps (B, T + Z, F).
        """
        return self._decode(x, known, None, 0.0)

    def forward_with_target(self, x: Tensor, target: Tensor, share: float, known: Tensor | None = None) -> Tensor:
        """Return the forecast, decoded from true values for a random share of the steps.

        Args:
            x: past values (B, S, T, V).
            target: true future values (B, S, Z, K), NaN where unknown.
            share: probability with which a step is decoded from the true value, in [0, 1].
            known: covariates of past and future steps (B, T + Z, F).
        """
        return self._decode(x, known, target, share)

    def _decode(self, x: Tensor, known: Tensor | None, target: Tensor | None, share: float) -> Tensor:
        joined, future = _joined(x, known, self.num_known)
        _, state = self.encoder(joined.flatten(0, 1))
        read = x[:, :, -1, self.targets].flatten(0, 1)  # (B S, K)
        steps = []
        # each step reads the one before: a loop over the horizon is what the method is
        for step in range(self.horizon):
            ahead = read if future is None else torch.cat([read, future[:, :, step].flatten(0, 1)], 1)
            output, state = self.decoder(ahead[:, None], state)
            forecast = self.head(output[:, 0])
            steps.append(forecast)
            read = forecast
            if target is not None and share > 0:
                true = target[:, :, step].flatten(0, 1).to(forecast.dtype)
                forced = (torch.rand(len(true), 1, device=true.device) < share) & ~true.isnan()
                read = torch.where(forced, true.nan_to_num(0.0), forecast)
        return torch.stack(steps, 1).view(*x.shape[:2], self.horizon, -1)


class ConvolutionalForecaster(Recorded, nn.Module):
    r"""Causal dilated convolutions over the steps of each series, and a linear read-out of the last one.

    Source: arXiv 1803.01271 (temporal convolutional network). Differs from the paper: no weight normalisation.

    Args:
        num_variables: number of variables V that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        num_targets: number of variables K to predict; None for all.
        hidden_channels: number of channels, at least 1.
        num_layers: number of residual blocks of two convolutions; block n has dilation 2^n.
        kernel_size: number of taps of a convolution, at least 1.
        num_known: number F of covariates that are known in advance; those of past steps are read.
        dropout: dropout probability after each convolution, in [0, 1).

    Shape:
        x (B, S, T, V), known (B, T + Z, F) -> (B, S, Z, K)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> ConvolutionalForecaster(num_variables=3, horizon=4)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(
        self,
        num_variables: int,
        horizon: int,
        *,
        num_targets: int | None = None,
        hidden_channels: int = 32,
        num_layers: int = 4,
        kernel_size: int = 3,
        num_known: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(num_variables=num_variables, horizon=horizon, hidden_channels=hidden_channels, num_layers=num_layers,
               kernel_size=kernel_size, num_known=num_known)  # fmt: skip
        self.horizon = horizon
        self.num_known = num_known
        self.num_targets = num_variables if num_targets is None else num_targets
        _check(num_targets=self.num_targets)
        self.kernel_size = kernel_size
        widths = [num_variables + num_known, *[hidden_channels] * num_layers]
        self.first = nn.ModuleList(
            nn.Conv1d(a, b, kernel_size, dilation=2**n) for n, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.second = nn.ModuleList(
            nn.Conv1d(hidden_channels, hidden_channels, kernel_size, dilation=2**n) for n in range(num_layers)
        )
        self.skip = nn.Conv1d(widths[0], hidden_channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_channels, horizon * self.num_targets)

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
            known: covariates of past and future steps (B, T + Z, F).
        """
        joined, _ = _joined(x, known, self.num_known)
        h = joined.flatten(0, 1).transpose(1, 2)  # (B S, V + F, T)
        for number, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            past = ((self.kernel_size - 1) * 2**number, 0)  # zeros before the window: no step reads a later one
            inner = self.dropout(functional.relu(first(functional.pad(h, past))))
            inner = self.dropout(functional.relu(second(functional.pad(inner, past))))
            h = functional.relu(inner + (self.skip(h) if number == 0 else h))
        return self.head(h[:, :, -1]).view(*x.shape[:2], self.horizon, self.num_targets)


class PatchTransformer(Recorded, nn.Module):
    r"""Transformer over patches of each variable by itself, with windows normalised by their own mean and deviation.

    Source: arXiv 2211.14730 (PatchTST). Differs from the paper: layer norm in place of batch norm; the normalisation
    has no learned scale and shift.

    Args:
        window: number of steps T that are read, at least ``patch``.
        horizon: number of steps Z to predict, at least 1.
        patch: number of steps of a patch, at least 1.
        stride: distance between patches, at least 1; the last step is repeated ``stride`` times at the end, as in
            the paper.
        dim: width of the transformer, a multiple of ``num_heads``.
        num_heads: number of attention heads, at least 1.
        num_layers: number of transformer blocks, at least 1.
        dropout: dropout probability, in [0, 1).

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> network = PatchTransformer(window=24, horizon=6, patch=8, stride=4, dim=16, num_heads=2)
        >>> network(torch.randn(2, 1, 24, 3)).shape
        torch.Size([2, 1, 6, 3])
    """

    def __init__(
        self,
        window: int,
        horizon: int,
        *,
        patch: int = 16,
        stride: int = 8,
        dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        _check(window=window, horizon=horizon, patch=patch, stride=stride, dim=dim, num_heads=num_heads,
               num_layers=num_layers)  # fmt: skip
        if patch > window:
            raise ValueError(f"patch is {patch} with window {window}; it must be at most the window")
        if dim % num_heads:
            raise ValueError(f"dim is {dim} with num_heads {num_heads}; it must be a multiple")
        self.patch, self.stride = patch, stride
        self.num_patches = (window + stride - patch) // stride + 1
        self.embedding = nn.Linear(patch, dim)
        self.position = nn.Parameter(torch.empty(self.num_patches, dim))
        layer = nn.TransformerEncoderLayer(
            dim, num_heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(self.num_patches * dim, horizon)
        nn.init.normal_(self.position, std=1 / math.sqrt(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        rows = x.transpose(-1, -2)  # (B, S, V, T)
        mean = rows.mean(-1, keepdim=True)
        scale = rows.std(-1, keepdim=True, correction=0).clamp(min=1e-5)
        rows = functional.pad(((rows - mean) / scale).flatten(0, 2), (0, self.stride), mode="replicate")
        patches = self.embedding(rows.unfold(-1, self.patch, self.stride)) + self.position  # (B S V, P, D)
        y = self.head(self.encoder(patches).flatten(1)).view(*x.shape[:2], x.shape[3], -1)
        return (y * scale + mean).transpose(-1, -2)


class GraphRecurrentForecaster(Recorded, nn.Module):
    r"""Graph convolutions over the series at each step, a recurrence over the steps, and graph convolutions again.

    .. math:: h_t = \mathrm{GRU}\bigl(h_{t-1}, \mathrm{relu}(\mathrm{conv}(x_t, A_t))\bigr), \qquad
        y = W\, \mathrm{relu}(\mathrm{conv}(h_T, A_T)) + b

    The convolutions of all steps are one call, so that no loop over steps remains. The graph is given; its weights may
    change with time.

    Source: the order of graph and time of arXiv 1811.05320 (T-GCN), with ``torch_geometric.nn.GraphConv`` as
    convolution, which adds neighbours by weight and keeps the series itself apart.

    Args:
        num_variables: number of variables V that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        num_targets: number of variables K to predict; None for all.
        hidden_channels: width of convolutions and recurrence, at least 1.
        num_known: number F of covariates that are known in advance; those of past steps are read.

    Shape:
        x (B, S, T, V), edge_index (2, E), edge_weight (E,) or (B, T, E) -> (B, S, Z, K)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> GraphRecurrentForecaster(num_variables=1, horizon=4)(torch.randn(2, 3, 8, 1), ring).shape
        torch.Size([2, 3, 4, 1])
    """

    def __init__(
        self,
        num_variables: int,
        horizon: int,
        *,
        num_targets: int | None = None,
        hidden_channels: int = 64,
        num_known: int = 0,
    ) -> None:
        super().__init__()
        _check(num_variables=num_variables, horizon=horizon, hidden_channels=hidden_channels, num_known=num_known)
        self.horizon = horizon
        self.num_known = num_known
        self.num_targets = num_variables if num_targets is None else num_targets
        _check(num_targets=self.num_targets)
        # mean over neighbours: the size of a sum would grow with the degree
        self.input = GraphConv(num_variables + num_known, hidden_channels, aggr="mean")
        self.recurrence = nn.GRU(hidden_channels, hidden_channels, batch_first=True)
        self.output = GraphConv(hidden_channels, hidden_channels, aggr="mean")
        self.head = nn.Linear(hidden_channels, horizon * self.num_targets)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
            edge_index: edges between series, int64 (2, E).
            edge_weight: weight of each edge (E,), or at each past step (B, T, E); None for 1.
            known: covariates of past and future steps (B, T + Z, F).
        """
        joined, _ = _joined(x, known, self.num_known)
        batch, series, window = joined.shape[:3]
        steps = joined.transpose(1, 2).reshape(batch * window, series, -1)  # (B T, S, V + F)
        weights = edge_weight if edge_weight is None or edge_weight.dim() == 1 else edge_weight.flatten(0, 1)
        h = functional.relu(_convolved(self.input, steps, edge_index, weights))  # (B T, S, D)
        h = h.view(batch, window, series, -1).transpose(1, 2).flatten(0, 1)  # (B S, T, D)
        last = self.recurrence(h)[0][:, -1].view(batch, series, -1)
        weights = edge_weight if edge_weight is None or edge_weight.dim() == 1 else edge_weight[:, -1]
        y = self.head(functional.relu(_convolved(self.output, last, edge_index, weights)))
        return y.view(batch, series, self.horizon, self.num_targets)


def _convolved(conv: nn.Module, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None) -> Tensor:
    """Apply a convolution to G copies of a graph, x (G, S, D), as one graph of G S nodes."""
    copies, series = x.shape[:2]
    offset = torch.arange(copies, device=x.device) * series
    edges = (edge_index[:, None] + offset[None, :, None]).flatten(1)  # (2, G E)
    if edge_weight is not None and edge_weight.dim() == 1:
        edge_weight = edge_weight.expand(copies, -1)
    weights = None if edge_weight is None else edge_weight.reshape(-1).to(x.dtype)
    return conv(x.flatten(0, 1), edges, weights).view(copies, series, -1)
