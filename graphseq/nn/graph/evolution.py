"""Graph soft evolution: mixes variables by a learned image of their co-occurrence graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded
from graphseq.ops.graphs.variable_graph import co_occurrence

__all__ = ["GraphSoftEvolution", "VariableMixing"]


def _check_activation(activation: nn.Module | None) -> None:
    if activation is not None and not isinstance(activation, nn.Module):
        given = activation.__name__ if isinstance(activation, type) else repr(activation)
        raise TypeError(f"activation is {given}; give a module that is built, such as torch.nn.ReLU(), or None")


def _check_series(x: Tensor, num_variables: int, window: int | None) -> None:
    steps = "T" if window is None else str(window)
    if not x.is_floating_point():
        raise TypeError(f"x holds {x.dtype}; real numbers are needed: convert it with .float()")
    if x.dim() < 2 or x.shape[-1] != num_variables or (window is not None and x.shape[-2] != window):
        raise ValueError(f"x has shape {tuple(x.shape)}; (*, {steps}, {num_variables}) is needed")


class GraphSoftEvolution(Recorded, nn.Module):
    r"""Mixing of the variables of a series by cosines between learned combinations of a graph's rows.

    .. math::
        H &= A W_a + b_a \mathbf{1}^\top, \qquad
        G = \Bigl(\frac{H_b \cdot H_c}{\lVert H_b \rVert \lVert H_c \rVert}\Bigr)_{bc} \odot W_c + b_c \\
        y_{ta} &= \sigma\Bigl(\sum_b G_{ab}\, x_{tb}\Bigr), \qquad
        y'_{da} = \sum_t (W_t)_{td}\, y_{ta} + (b_t)_d

    The graph A is not learned: it is a buffer that :meth:`fit_graph` computes once from training series, or the hidden
    graph H of another layer, passed to :meth:`forward`. H is returned without gradient.

    Source: arXiv 2008.12833; formula from the behaviour of the official code. Differs from that code: A is computed
    once from the training series, each step counted once, where the code adds up overlapping windows during the first
    epoch; it is divided by its largest entry, which leaves the cosines unchanged if :math:`b_a = 0`.

    Args:
        num_variables: number of variables V, at least 1.
        window: number of steps T that the time map reads; None for no time map.
        out_window: number of steps of its output; None for ``window``.
        activation: module applied after the mixing; None for none.
        dropout: probability with which a mixed value is zeroed in training, in [0, 1).
        bias: whether there are the additive terms :math:`b_a`, :math:`b_c` and :math:`b_t`.

    Shape:
        x (*, T, V), adjacency (V, V) -> y (*, T', V), hidden graph (V, V)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if a shape does not fit.
        TypeError: if ``activation`` is not a module, or ``x`` holds integers.

    Example:
        >>> layer = GraphSoftEvolution(num_variables=3, window=8)
        >>> y, graph = layer(torch.randn(5, 8, 3))
        >>> y.shape, graph.shape
        (torch.Size([5, 8, 3]), torch.Size([3, 3]))
    """

    adjacency: Tensor

    def __init__(
        self,
        num_variables: int,
        window: int | None = None,
        *,
        out_window: int | None = None,
        activation: nn.Module | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("num_variables", num_variables), ("window", window), ("out_window", out_window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if window is None and out_window is not None:
            raise ValueError(f"out_window is {out_window} without window; the time map needs the number of its inputs")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        _check_activation(activation)
        self.num_variables = num_variables
        self.graph_weight = nn.Parameter(torch.empty(num_variables, num_variables))
        self.cosine_weight = nn.Parameter(torch.empty(num_variables, num_variables))
        self.graph_bias = nn.Parameter(torch.empty(num_variables, 1)) if bias else None
        self.cosine_bias = nn.Parameter(torch.empty(num_variables, num_variables)) if bias else None
        self.time_map = None if window is None else nn.Linear(window, out_window or window, bias=bias)
        self.activation = nn.Identity() if activation is None else activation
        self.dropout = nn.Dropout(dropout)
        # until a graph is fitted, all variables count as present at all times
        self.register_buffer("adjacency", torch.ones(num_variables, num_variables))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from Glorot's uniform distribution, and set additive terms to 0; the graph is kept."""
        matrices = [self.graph_weight, self.cosine_weight, *([] if self.time_map is None else [self.time_map.weight])]
        for matrix in matrices:
            nn.init.xavier_uniform_(matrix)
        for bias in (self.graph_bias, self.cosine_bias, None if self.time_map is None else self.time_map.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def fit_graph(self, series: Tensor, present: Tensor | None = None) -> None:
        """Compute the graph from training series, divided by its largest entry.

        Args:
            series: values (*, V).
            present: where a variable counts as present, bool of the same shape; None for where it is above 0.

        Raises:
            ValueError: if the number of variables differs, there is no step, or values are not finite.
        """
        if series.shape[-1] != self.num_variables:
            raise ValueError(f"series has {series.shape[-1]} variables; the layer was built for {self.num_variables}")
        if not series.numel():
            raise ValueError(f"series has shape {tuple(series.shape)}, so there is no step; give the training series")
        graph = co_occurrence(series, present)
        if not bool(graph.isfinite().all()):
            raise ValueError("series holds NaN or infinite values; give 0 for a missing value, and `present`")
        largest = graph.abs().max()
        self.adjacency.copy_(graph / largest.where(largest > 0, 1.0))

    def hidden_graph(self, adjacency: Tensor | None = None) -> Tensor:
        """Return the learned image H of a graph, (V, V).

        Args:
            adjacency: graph (V, V); None for the fitted one.
        """
        if adjacency is not None and adjacency.shape != self.adjacency.shape:
            raise ValueError(f"adjacency has shape {tuple(adjacency.shape)}; {tuple(self.adjacency.shape)} is needed")
        hidden = (self.adjacency if adjacency is None else adjacency) @ self.graph_weight
        return hidden if self.graph_bias is None else hidden + self.graph_bias

    def mixing_matrix(self, adjacency: Tensor | None = None) -> Tensor:
        """Return the matrix G by which variables are mixed, (V, V): row a holds the weights of the output a.

        Args:
            adjacency: graph (V, V); None for the fitted one.
        """
        return self._mixing(self.hidden_graph(adjacency))

    def _mixing(self, hidden: Tensor) -> Tensor:
        rows = functional.normalize(hidden, dim=1, eps=1e-12)
        mixing = rows @ rows.T * self.cosine_weight
        return mixing if self.cosine_bias is None else mixing + self.cosine_bias

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mixed series and the hidden graph, which carries no gradient.

        Args:
            x: values (*, T, V).
            adjacency: graph (V, V) of another layer; None for the fitted one.
        """
        _check_series(x, self.num_variables, None if self.time_map is None else self.time_map.in_features)
        hidden = self.hidden_graph(adjacency)
        y = self.activation(self.dropout(x @ self._mixing(hidden).T))  # (*, T, V)
        if self.time_map is not None:
            y = self.time_map(y.transpose(-1, -2)).transpose(-1, -2)  # (*, T', V)
        return y, hidden.detach()


class VariableMixing(Recorded, nn.Module):
    r"""Mixing of the variables of a series by a free matrix: :class:`GraphSoftEvolution` without a graph.

    .. math:: y_{ta} = \sigma\Bigl(\sum_b G_{ab}\, x_{tb}\Bigr), \qquad y'_{da} = \sum_t (W_t)_{td}\, y_{ta} + (b_t)_d

    It takes the place of a graph evolution in :class:`graphseq.models.ReGENN`, as a control: whether a gain comes from
    the graph or from mixing variables at all.

    Source: none; the control of arXiv 2008.12833 with G learned directly.

    Args:
        num_variables: number of variables V, at least 1.
        window: number of steps T that the time map reads; None for no time map.
        activation: module applied after the mixing; None for none.
        dropout: probability with which a mixed value is zeroed in training, in [0, 1).

    Shape:
        x (*, T, V) -> y (*, T, V), and None in place of a graph

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if a shape does not fit.
        TypeError: if ``activation`` is not a module, or ``x`` holds integers.

    Example:
        >>> y, graph = VariableMixing(num_variables=3, window=8)(torch.randn(5, 8, 3))
        >>> y.shape, graph
        (torch.Size([5, 8, 3]), None)
    """

    def __init__(
        self,
        num_variables: int,
        window: int | None = None,
        *,
        activation: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("num_variables", num_variables), ("window", window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        _check_activation(activation)
        self.mixing = nn.Linear(num_variables, num_variables, bias=False)
        self.time_map = None if window is None else nn.Linear(window, window)
        self.activation = nn.Identity() if activation is None else activation
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Reinitialise the matrix and the time map as ``nn.Linear`` does."""
        self.mixing.reset_parameters()
        if self.time_map is not None:
            self.time_map.reset_parameters()

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> tuple[Tensor, None]:
        """Return mixed series, and None in place of a graph.

        Args:
            x: values (*, T, V).
            adjacency: graph of another layer, which is ignored.
        """
        _check_series(x, self.mixing.in_features, None if self.time_map is None else self.time_map.in_features)
        y = self.activation(self.dropout(self.mixing(x)))
        if self.time_map is not None:
            y = self.time_map(y.transpose(-1, -2)).transpose(-1, -2)
        return y, None
