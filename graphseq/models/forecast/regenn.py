"""ReGENN: forecasting by graph evolution between variables, attention and recurrence."""

from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded, make
from graphseq.core.windows import SeriesSpan
from graphseq.nn.graph.evolution import GraphSoftEvolution

__all__ = ["ReGENN"]


class ReGENN(Recorded, nn.Module):
    r"""Recurrent graph evolution network: forecasts all variables of all series of a window.

    ::

        x (B,S,T,V) -> source evolution -> attention -> gate along V: T -> Z -> sequencer along Z -> target evolution
                            |                                                                            ^   |
                            +------------------ hidden graph H (V,V), no gradient -----------------------+   +--> y
        x ------------------------ autoregression (T x Z, shared by all variables) --------------------------^

    The nodes of the graph are the V variables, not the S series. The gate is a recurrence *along the variables* whose
    features are time steps; the sequencer is one along the predicted steps. Both directions of a bidirectional
    recurrence are added. Attention stays inside one window: between its series for each variable, or between the
    variables of each series; a prediction never depends on what else is in the batch.

    Source: arXiv 2008.12833; structure from the behaviour of the official code. Differs from that code: attention does
    not mix the samples of a batch; the target graph in evaluation is computed from the current weights, where the code
    reuses that of the last training step; the graph is fitted once (see :class:`GraphSoftEvolution`); no scaling by
    future values exists; the output activation is optional, since a ReLU cannot give scaled values below 0.

    A part is left out, as in the paper's ablation, by passing ``torch.nn.Identity()`` in its place.

    Args:
        num_variables: number of variables V, at least 1.
        window: number of steps T that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        attention: axis of the attention: ``series`` or ``variables``; None for no attention.
        feedforward_size: width of the feed-forward part of the attention block.
        bidirectional: whether gate and sequencer run in both directions.
        autoregression: whether a linear map from the T past steps to the Z future ones is added, one for all variables.
        source: first graph evolution; default :class:`GraphSoftEvolution` with a time map, ReLU and dropout.
        target: second graph evolution; default :class:`GraphSoftEvolution` without time map and dropout.
        sequencer: recurrence along the predicted steps, from (B, Z, V) to (output, state); default ``nn.LSTM``.
        activation: module applied to the output; None for none.
        dropout: dropout probability of evolution, attention, gate and sequencer, in [0, 1).

    Shape:
        x (B, S, T, V) or (S, T, V) -> (B, S, Z, V) or (S, Z, V)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> network = ReGENN(num_variables=3, window=8, horizon=4)
        >>> network(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(
        self,
        num_variables: int,
        window: int,
        horizon: int,
        *,
        attention: Literal["series", "variables"] | None = "series",
        feedforward_size: int = 2048,
        bidirectional: bool = False,
        autoregression: bool = True,
        source: nn.Module | None = None,
        target: nn.Module | None = None,
        sequencer: nn.Module | None = None,
        activation: nn.Module | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"num_variables": num_variables, "window": window, "horizon": horizon}
        for name, value in {**sizes, "feedforward_size": feedforward_size}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if attention not in (None, "series", "variables"):
            raise ValueError(f"attention is {attention!r}; it must be 'series', 'variables' or None")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        self.num_variables, self.window, self.horizon = num_variables, window, horizon
        self.attention = attention
        for name, part in (("source", source), ("target", target)):
            if part is not None and not isinstance(part, nn.Module):
                given = part.__name__ if isinstance(part, type) else repr(part)
                raise TypeError(f"{name} is {given}; give a graph evolution that is built, or None")
        self.source = source or GraphSoftEvolution(num_variables, window, activation=make(nn.ReLU), dropout=dropout)
        self.encoder = nn.TransformerEncoderLayer(
            window, nhead=1, dim_feedforward=feedforward_size, dropout=dropout, batch_first=True
        ) if attention else None  # fmt: skip
        self.gate = nn.LSTM(window, horizon, batch_first=True, bidirectional=bidirectional)
        self.sequencer = sequencer or nn.LSTM(
            num_variables, num_variables, batch_first=True, bidirectional=bidirectional
        )
        self.target = target or GraphSoftEvolution(num_variables)
        self.autoregression = nn.Linear(window, horizon) if autoregression else None
        self.activation = nn.Identity() if activation is None else activation
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw all weights anew; fitted graphs are kept."""
        for module in self.modules():
            if module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def fit_to(self, span: SeriesSpan) -> None:
        """Compute the graph of the source evolution from the training span, by :meth:`fit_graph`.

        Args:
            span: series of the training span.
        """
        self.fit_graph(span.original, span.observed)

    def fit_graph(self, series: Tensor, observed: Tensor | None = None) -> None:
        """Compute the graph of the source evolution.

        Each variable of each series is divided by its largest absolute value, so that all series count alike; a
        variable is present where it was observed and is above 0.

        Args:
            series: values of the training span in original units, float (S, steps, V).
            observed: where a value was observed, bool (S, steps, V); None for everywhere.
        """
        if not isinstance(self.source, GraphSoftEvolution):
            return
        observed = torch.ones_like(series, dtype=torch.bool) if observed is None else observed
        values = series.where(observed, 0.0)
        largest = values.abs().amax(1, keepdim=True)
        values = values / largest.where(largest > 0, 1.0)
        self.source.fit_graph(values, observed & (values > 0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V) or (S, T, V).

        Raises:
            ValueError: if the number of steps or variables is not that of the network.
        """
        if x.dim() == 3:
            return self.forward(x[None])[0]
        if x.dim() != 4 or x.shape[2:] != (self.window, self.num_variables):
            raise ValueError(
                f"x is {tuple(x.shape)}; it must be (batch, series, {self.window}, {self.num_variables}): window and "
                "num_variables of the network"
            )
        batch, series = x.shape[:2]
        evolved, graph = _evolve(self.source, x, None)
        steps = self._attend(evolved.transpose(2, 3))  # (B, S, V, T)
        gated = _summed(self.gate(steps.flatten(0, 1))[0], self.horizon)  # (B S, V, Z)
        gated = self.dropout(gated.transpose(1, 2))  # (B S, Z, V)
        if not isinstance(self.sequencer, nn.Identity):
            gated = self.dropout(_summed(self.sequencer(gated)[0], self.num_variables)) + gated
        y, _ = _evolve(self.target, gated.view(batch, series, self.horizon, self.num_variables), graph)
        if self.autoregression is not None:
            y = y + self.autoregression(x.transpose(2, 3)).transpose(2, 3)
        return self.activation(y)

    def _attend(self, steps: Tensor) -> Tensor:
        """Attend between series or variables whose features are the steps, (B, S, V, T)."""
        if self.encoder is None:
            return steps
        if self.attention == "variables":
            return self.encoder(steps.flatten(0, 1)).view(steps.shape)
        rows = steps.transpose(1, 2)  # (B, V, S, T)
        return self.encoder(rows.flatten(0, 1)).view(rows.shape).transpose(1, 2)


def _evolve(module: nn.Module, x: Tensor, graph: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Apply a graph evolution, or leave values and graph as they are if it is the identity."""
    return (x, graph) if isinstance(module, nn.Identity) else module(x, graph)


def _summed(output: Tensor, width: int) -> Tensor:
    """Return the output of a recurrence, both directions added."""
    return output if output.shape[-1] == width else output[..., :width] + output[..., width:]
